"""What the report's options say: ranges in time zones, which exporters, at which rates, and how to ask."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from joulemeter.errors import ConfigError
from joulemeter.http_config import HttpConfig, read_http_config
from joulemeter.report.offer import Rates, charge, checked, total_charge
from joulemeter.report.range import Range, chosen
from joulemeter.report.rows import Row, Section
from joulemeter.report.selector import selector
from joulemeter.runtime.prometheus import base_url
from joulemeter.runtime.report_command import http_config

HOUR = 3600.0
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC).timestamp()


def utc(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()


def span(zone: str = "UTC", now: float = NOW, **options: str) -> Range:
    return chosen(now, zone, **options)  # type: ignore[arg-type]


def problems(call: object, *arguments: object, **options: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **options)  # type: ignore[operator]
    return caught.value.problems


# ---------------------------------------------------------------------------------------------- the range


@pytest.mark.parametrize(
    ("zone", "month", "begin", "hours"),
    [
        ("UTC", "2026-10", utc(2026, 10, 1), 744),
        ("Europe/Berlin", "2026-10", utc(2026, 9, 30, 22), 745),
        ("Europe/Berlin", "2026-03", utc(2026, 2, 28, 23), 743),
        ("America/New_York", "2026-02", utc(2026, 2, 1, 5), 672),
        ("Asia/Kolkata", "2024-02", utc(2024, 1, 31, 18, 30), 696),
        ("UTC", "2025-12", utc(2025, 12, 1), 744),
        ("America/Asuncion", "2017-10", utc(2017, 10, 1, 4), 743),  # this month's first hour does not exist
    ],
)
def test_month_is_that_of_the_time_zone(zone: str, month: str, begin: float, hours: float):
    found = span(zone, month=month)
    assert found.begin_seconds == begin
    assert found.seconds == hours * HOUR
    assert not found.cut_at_now


def test_without_options_it_is_the_last_whole_month_there():
    new_year = utc(2026, 12, 31, 23, 30)
    assert span(now=new_year).local(span(now=new_year).begin_seconds) == "2026-11-01 00:00:00+00:00"
    berlin = span("Europe/Berlin", now=new_year)
    assert berlin.local(berlin.begin_seconds) == "2026-12-01 00:00:00+01:00"


def test_month_that_is_not_over_ends_now():
    found = span(month="2026-11")
    assert found.end_seconds == NOW
    assert found.cut_at_now


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("24h", 86_400), ("30d", 30 * 86_400), ("2w", 1_209_600)]
)
def test_since(text: str, seconds: float):
    assert span(since=text) == Range(NOW - seconds, NOW, span().time_zone)


@pytest.mark.parametrize(
    ("zone", "begin", "end", "want"),
    [
        ("UTC", "2026-10-01", "2026-10-08", (utc(2026, 10, 1), utc(2026, 10, 8))),
        ("Europe/Berlin", "2026-10-25", "2026-10-26", (utc(2026, 10, 24, 22), utc(2026, 10, 25, 23))),
        ("Europe/Berlin", "2026-10-01T08:30", None, (utc(2026, 10, 1, 6, 30), NOW)),
        (
            "Europe/Berlin",
            "2026-10-01T08:30Z",
            "2026-10-01T12:00-02:00",
            (utc(2026, 10, 1, 8, 30), utc(2026, 10, 1, 14)),
        ),
    ],
)
def test_from_and_to(zone: str, begin: str, end: str | None, want: tuple[float, float]):
    found = chosen(NOW, zone, begin=begin, end=end)
    assert (found.begin_seconds, found.end_seconds) == want


BAD_RANGES = {
    "--month: expected a month such as 2026-10, got '2026-13'": {"month": "2026-13"},
    "--month: expected a month such as 2026-10, got '2026-1'": {"month": "2026-1"},
    "--month: expected a month such as 2026-10, got 'October'": {"month": "October"},
    "--month: expected a month such as 2026-10, got '0000-10'": {"month": "0000-10"},
    "--month: the range begins in the future; now is 2026-11-21 09:30+00:00": {"month": "2026-12"},
    "--from: the range begins in the future; now is 2026-11-21 09:30+00:00": {"begin": "2027-01-01"},
    "--from/--to: the range ends before it begins; exchange them": {"begin": "2026-10-02", "end": "2026-10-01"},
    "--from: expected 2026-10-01 or 2026-10-01T08:00, got 'yesterday'": {"begin": "yesterday"},
    "--to: expected 2026-10-01 or 2026-10-01T08:00, got '31.10.2026'": {"begin": "2026-10-01", "end": "31.10.2026"},
    "--to: --from is missing; give both, or --from alone for a range until now": {"end": "2026-10-01"},
    "--since: expected a number and m, h, d or w such as 30d, got '30'": {"since": "30"},
    "--since: expected a number and m, h, d or w such as 30d, got '0d'": {"since": "0d"},
    "--since: expected a number and m, h, d or w such as 30d, got '-1d'": {"since": "-1d"},
    "give one of --month, --since, or --from with --to": {"month": "2026-10", "since": "30d"},
}  # fmt: skip


@pytest.mark.parametrize(("message", "options"), BAD_RANGES.items(), ids=BAD_RANGES)
def test_bad_range(message: str, options: dict[str, str]):
    assert problems(span, **options) == (message,)


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/Berlln", "did you mean 'Europe/Berlin'?"),
        ("Middle-earth", "give a name such as Europe/Berlin"),
        ("Europe", "did you mean"),
        ("../etc/passwd", "give a name such as Europe/Berlin"),
        ("", "give a name such as Europe/Berlin"),
    ],
)
def test_unknown_time_zone(zone: str, hint: str):
    (message,) = problems(span, zone)
    assert message.startswith(f"--timezone: no such time zone {zone!r}; ")
    assert hint in message


# ---------------------------------------------------------------------------------------------- which exporters


def test_selector():
    assert selector([]) == ""
    assert selector(['cluster="a", job=~"gpu.*"', '{instance!="b,\\"c\\""}']) == (
        '{cluster="a", job=~"gpu.*", instance!="b,\\"c\\""}'
    )


@pytest.mark.parametrize("text", ["cluster=a", 'cluster="a" job="b"', 'cluster="a', "=", 'a="b"}[1d]', "up"])
def test_selector_that_is_none(text: str):
    (message,) = problems(selector, [text])
    assert message.startswith('--selector: expected matchers such as cluster="a", job=~"gpu.*", got ')


@pytest.mark.parametrize("name", ["model", "uuid", "phase", "namespace", "pod", "exported_pod", "server"])
def test_selector_of_single_series_is_refused(name: str):
    (message,) = problems(selector, [f'{name}="a"'])
    assert "select whole exporters (cluster, job, instance), or the sums would not add up" in message


# ---------------------------------------------------------------------------------------------- rates


def row(**tokens: float) -> Row:
    return Row(Section.MODEL, model="m", energy_joules=3.6e6 / 2, tokens=tokens)


def test_cached_tokens_cost_as_computed_ones_unless_they_have_a_rate():
    one = row(prompt=1e6, cached_prompt=2e6, generation=3e6)
    assert charge(one, Rates(1.0, None, 10.0)).by_token_cost == pytest.approx(33)
    assert charge(one, Rates(1.0, 0.0, 10.0)).by_token_cost == pytest.approx(31)


def test_0_14_against_2_34_is_94_percent():
    got = charge(row(prompt=0.5e6, cached_prompt=0.0, generation=0.5e6), Rates(2.34, None, 2.34, 0.28))
    assert (got.by_token_per_mtok, got.by_energy_per_mtok) == (pytest.approx(2.34), pytest.approx(0.14))
    assert got.savings_ratio == pytest.approx(0.94, abs=0.0005)


def test_one_kind_of_rate_alone_prices_that_kind():
    one = row(prompt=1e6, cached_prompt=0.0, generation=1e6)
    assert charge(one, Rates(1.0, None, 1.0)).by_energy_cost is None
    assert charge(one, Rates(sell_per_kwh=3.0)).by_token_cost is None
    assert charge(one, Rates(sell_per_kwh=3.0)).savings_ratio is None
    assert total_charge((one, one), Rates(sell_per_kwh=3.0)).by_energy_cost == pytest.approx(3.0)
    assert charge(Row(Section.UNATTRIBUTED, energy_joules=5.0), Rates(sell_per_kwh=3.0)) is None


def test_bad_rates_are_all_named():
    assert problems(checked, Rates(-1.0, float("nan"), None, float("inf"))) == (
        "--rate-prompt: expected a price >= 0, got -1",
        "--rate-cached-prompt: expected a price >= 0, got nan",
        "--sell-per-kwh: expected a price >= 0, got inf",
        "--rate-prompt and --rate-generation: one is missing; give both",
    )
    assert problems(checked, Rates(cached_prompt_per_mtok=1.0)) == (
        "--rate-cached-prompt: give --rate-prompt and --rate-generation too",
    )


# ---------------------------------------------------------------------------------------------- how to ask


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "localhost:9090",
            "--prometheus: expected a URL such as http://127.0.0.1:9090, got 'localhost:9090'",
        ),
        ("http://", "--prometheus: expected a URL such as http://127.0.0.1:9090, got 'http://'"),
        ("http://a:b", "--prometheus: expected a URL such as http://127.0.0.1:9090, got 'http://a:b'"),
        ("http://me:secret@a", "--prometheus: the URL holds a user or password; use --http-config instead"),
        ("http://a/?x=1", "--prometheus: expected a URL without ? and #, got 'http://a/?x=1'"),
    ],
)
def test_bad_url(text: str, message: str):
    assert problems(base_url, text) == (message,)


def test_url_keeps_its_path():
    assert base_url(" https://mimir/prometheus/ ") == "https://mimir/prometheus"


def test_http_config_in_prometheus_own_form():
    text = """
basic_auth: {username: me, password_file: password}
tls_config: {ca_file: /etc/ca.pem, cert_file: c.pem, key_file: k.pem, insecure_skip_verify: true}
proxy_from_environment: true
"""
    assert read_http_config(text, "http.yaml", Path("/etc/x")) == HttpConfig(
        username="me",
        password_file=Path("/etc/x/password"),
        ca_file=Path("/etc/ca.pem"),
        cert_file=Path("/etc/x/c.pem"),
        key_file=Path("/etc/x/k.pem"),
        insecure_skip_verify=True,
        proxy_from_environment=True,
    )
    text = "authorization: {type: Token, credentials_file: token}"
    assert read_http_config(text, "http.yaml", Path("/etc/x")) == HttpConfig(
        authorization_type="Token", credentials_file=Path("/etc/x/token")
    )
    assert read_http_config("", "http.yaml", Path()) == HttpConfig()


FROM_FILES = "secrets are read from files alone; write it to one and give"
BAD_HTTP = {
    f"basic_auth.password: {FROM_FILES} password_file": "basic_auth: {username: me, password: hunter2}",
    "basic_auth.username: missing; give the name that the password is of": "basic_auth: {password_file: a}",
    "basic_auth.password_file: missing; give the file that holds it": "basic_auth: {username: me}",
    f"authorization.credentials: {FROM_FILES} credentials_file": "authorization: {credentials: hunter2}",
    "authorization.credentials_file: missing; give the file that holds it": "authorization: {type: Bearer}",
    "authorization: basic_auth is given too; keep one of them": """
basic_auth: {username: me, password_file: a}
authorization: {credentials_file: b}""",
    "tls_config.cert_file: missing; give the certificate that key_file belongs to": "tls_config: {key_file: k}",
    "tls_config.cafile: unknown key; did you mean 'ca_file'?": "tls_config: {cafile: x}",
    "bearer_token: unknown key; known: authorization, basic_auth, proxy_from_environment, tls_config": """
bearer_token: hunter2""",
    "configuration: expected a mapping of keys to values, got text": "hunter2",
    "basic_auth: expected a mapping of keys to values, got text": "basic_auth: hunter2",
}


@pytest.mark.parametrize(("message", "text"), BAD_HTTP.items(), ids=BAD_HTTP)
def test_bad_http_config(message: str, text: str):
    got = problems(read_http_config, text, "http.yaml", Path())
    assert f"http.yaml: {message}" in got
    assert "hunter2" not in "".join(got)


def test_http_config_that_cannot_be_read(tmp_path: Path):
    (message,) = problems(http_config, tmp_path / "missing.yaml")
    assert "missing.yaml: cannot be read: " in message
    broken = tmp_path / "http.yaml"
    broken.write_text("basic_auth: [")
    assert f"{broken}: not YAML: " in problems(http_config, broken)[0]
