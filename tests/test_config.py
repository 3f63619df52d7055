"""The configuration: what it means, and exactly what it says when it is wrong."""

from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from joulemeter.accounting import Tariff
from joulemeter.config import (
    Config,
    DiscoverySettings,
    GridSettings,
    ObservationSettings,
    PriceSettings,
    Sampling,
    ServerConfig,
    load,
    parse,
    with_overrides,
)
from joulemeter.dialects.generic import GenericNames
from joulemeter.errors import ConfigError
from joulemeter.grids import ConstantSource
from joulemeter.grids.static import Static
from joulemeter.model import Moves
from joulemeter.schedule import Span

CHAT = {"url": "http://127.0.0.1:8000"}
ANY_URL = "expected an http(s) URL such as http://127.0.0.1:8000, got"
ANY_LISTEN = "listen: expected HOST:PORT such as 0.0.0.0:9847 or [::]:9847, got"
ANY_GPU = "expected an index >= 0 or a 'GPU-...' UUID, got"

FULL = """
listen: 0.0.0.0:9847
series_ttl_seconds: 3600         # a vanished model's or pod's series are dropped after this
zero_hold_seconds: 30            # new series stay at 0 this long (two scrapes)
sampling:    {interval_seconds: 0.05}
observation: {interval_seconds: 1, timeout_seconds: 2, give_up_seconds: 60}
servers:
  - url: http://127.0.0.1:8000   # /metrics is appended when the URL has no path
    name: chat                   # default: host:port
    dialect: auto                # generic: names under `metrics:`
    model: null                  # for servers that do not say
    authorization: {credentials_file: null}   # llama.cpp with --api-key, LiteLLM
    tls_config: {ca_file: null, insecure_skip_verify: false}
    tokens: true                 # false on the nodes of a multi-node server that do not run its head
    gpus: auto                   # or [0, 1], or ["GPU-..."]
idle: owner                      # or unattributed
time_zone: Europe/Paris
grid:
  zone: FR
  sources: [static]              # first that answers wins; settings per source under its name:
  fixed: {intensity_grams_per_kwh: 56}
pue: 1.2
price:
  per_kwh: 0.22
  time_of_use: [{from: "22:00", to: "06:00", per_kwh: 0.12}]
  currency: EUR
  gpu_hour: null
"""


def server(**keys: object) -> Mapping[str, object]:
    return {"servers": [CHAT | keys]}


def prices(row: object) -> Mapping[str, object]:
    return {"time_zone": "UTC", "price": {"currency": "EUR", "per_kwh": 1, "time_of_use": [row]}}


BAD = {
    # the form of the whole
    "configuration: expected a mapping of keys to values, got a list": [],
    "sampling: expected a mapping of keys to values, got text": {"sampling": "fast"},
    "servers: expected a list, got {'url': 'http://127.0.0.1:8000'}": {"servers": CHAT},
    "servers[0]: expected a server such as {url: http://127.0.0.1:8000}, got 'http://a'": {
        "servers": ["http://a"]
    },
    "servers[0]: expected a server such as {url: http://127.0.0.1:8000}, got None": {"servers": [None]},
    # unknown keys
    "serverz: unknown key; did you mean 'servers'?": {"serverz": []},
    "sampling.interval: unknown key; did you mean 'interval_seconds'?": {"sampling": {"interval": 1}},
    "discovery.kubernetes: expected true or false, got 'yes'": {"discovery": {"kubernetes": "yes"}},
    "discovery.tls_config.ca_files: unknown key; did you mean 'ca_file'?": {
        "discovery": {"tls_config": {"ca_files": "x"}}
    },
    "discovery.kubernets: unknown key; did you mean 'kubernetes'?": {"discovery": {"kubernets": True}},
    "discovery.api_server: expected an http(s) URL without a path such as https://10.0.0.1:6443, got '10.0.0.1'": {
        "discovery": {"api_server": "10.0.0.1"}
    },
    "discovery.api_server: expected an http(s) URL without a path such as https://10.0.0.1:6443, got 'https://a/api'": {
        "discovery": {"api_server": "https://a/api"}
    },
    "sampling.hertz: unknown key; known: interval_seconds": {"sampling": {"hertz": 20}},
    "True: unknown key; known: baseline, discovery, grid, idle, listen, observation, price, pue, sampling,"
    " series_ttl_seconds, servers, state_dir, time_zone, web_config_file, zero_hold_seconds": {True: 1},
    "servers[0].tls_config.ca_files: unknown key; did you mean 'ca_file'?": server(
        tls_config={"ca_files": "x"}
    ),
    "servers[0].authorization.token: unknown key; known: credentials_file": server(
        authorization={"token": "x"}
    ),
    # listen
    f"{ANY_LISTEN} 'localhost'": {"listen": "localhost"},
    f"{ANY_LISTEN} 9847": {"listen": 9847},
    f"{ANY_LISTEN} '0.0.0.0:98470'": {"listen": "0.0.0.0:98470"},
    f"{ANY_LISTEN} ':::9847'": {"listen": ":::9847"},
    f"{ANY_LISTEN} '[::g]:9847'": {"listen": "[::g]:9847"},
    # numbers
    "sampling.interval_seconds: expected a number from 0.02 to 1, got '5s'": {
        "sampling": {"interval_seconds": "5s"}
    },
    "sampling.interval_seconds: expected a number from 0.02 to 1, got 0.001": {
        "sampling": {"interval_seconds": 0.001}
    },
    "sampling.interval_seconds: expected a number from 0.02 to 1, got True": {
        "sampling": {"interval_seconds": True}
    },
    "observation.timeout_seconds: expected a number from 0.1 to 60, got inf": {
        "observation": {"timeout_seconds": float("inf")}
    },
    "observation.give_up_seconds: expected more than timeout_seconds (20), got 10": {
        "observation": {"timeout_seconds": 20, "give_up_seconds": 10}
    },
    "pue: expected a number from 1 to 10, got 0.9": {"pue": 0.9},
    "pue: expected a number from 1 to 10, got nan": {"pue": float("nan")},
    "baseline.learn_days: expected a number from 0.05 to 60, got 0": {"baseline": {"learn_days": 0}},
    "baseline.days: unknown key; known: file, learn_days": {"baseline": {"days": 3}},
    "state_dir: expected text, got 7; put it in quotes": {"state_dir": 7},
    # words
    "idle: unknown value 'unatributed'; did you mean 'unattributed'?": {"idle": "unatributed"},
    "idle: expected text, got False; put it in quotes": {"idle": False},
    # the grid
    "grid.zone: expected a zone, got False; YAML reads an unquoted NO as false: put it in quotes, 'NO'": {
        "grid": {"zone": False}
    },
    "grid.zone: unknown zone 'UK'; did you mean 'GB'?": {"grid": {"zone": "UK"}},
    "grid.zone: 'us-east-1' is a cloud region; write `cloud_region: aws/us-east-1` instead of a zone": {
        "grid": {"zone": "us-east-1"}
    },
    "grid.cloud_region: expected PROVIDER/REGION such as aws/eu-west-3, got 'eu-west-3'; did you mean"
    " 'aws/eu-west-3'?": {"grid": {"cloud_region": "eu-west-3"}},
    "grid.sources[1]: unknown value 'statik'; did you mean 'static'?": {
        "grid": {"sources": ["static", "statik"]}
    },
    "grid.sources[1]: 'static' is already in the list; name each source once": {
        "grid": {"sources": ["static", "static"]}
    },
    "grid.fixed.intensity_grams_per_kwh: missing; source 'fixed' needs it (gCO2e per kWh)": {
        "grid": {"sources": ["fixed"]}
    },
    "grid.fixed.intensity_grams_per_kwh: expected a number from 0 to 2000, got -5": {
        "grid": {"sources": ["fixed"], "fixed": {"intensity_grams_per_kwh": -5}}
    },
    "grid.fixed.time_of_day: times of day need the site's time zone: set `time_zone`, such as Europe/Paris": {
        "grid": {
            "sources": ["fixed"],
            "fixed": {
                "intensity_grams_per_kwh": 5,
                "time_of_day": [{"from": "08:00", "intensity_grams_per_kwh": 1}],
            },
        }
    },
    "grid.sources[1]: 'relay' is never asked, for 'static' before it always answers; put it before": {
        "grid": {"sources": ["static", "relay"], "relay": {"url": "http://a"}}
    },
    "grid.relay.url: missing; give the other joulemeter's address such as http://node-1:9847": {
        "grid": {"sources": ["relay"]}
    },
    "grid.relay.url: expected an http(s) URL without a password such as http://node-1:9847, got 'node-1'": {
        "grid": {"sources": ["relay"], "relay": {"url": "node-1"}}
    },
    "grid.relay.username: username and password_file go together; give both or none": {
        "grid": {"sources": ["relay"], "relay": {"url": "http://a", "username": "b"}}
    },
    "grid.relay.password_env: password_file is given too; keep one of them": {
        "grid": {
            "sources": ["relay"],
            "relay": {"url": "http://a", "username": "b", "password_file": "c", "password_env": "d"},
        }
    },
    "grid.coordinates: expected both latitude and longitude": {
        "grid": {"coordinates": {"latitude": 0.0}}  # the equator is a place
    },
    # time and prices
    "time_zone: unknown time zone 'Europe/Pari'; did you mean 'Europe/Paris'?": {"time_zone": "Europe/Pari"},
    "time_zone: unknown time zone 'qqqq'; expected a name of the IANA database such as Europe/Paris": {
        "time_zone": "qqqq"
    },
    "time_zone: unknown time zone 7; expected a name of the IANA database such as Europe/Paris": {
        "time_zone": 7
    },
    "price.currency: missing; give the currency of the prices, such as EUR": {"price": {"gpu_hour": 2}},
    "price.currency: expected an ISO 4217 code such as EUR or USD, got 'euro'": {
        "price": {"per_kwh": 1, "currency": "euro"}
    },
    "price.gpu_hour: expected a number from 0 to 1e+06, got -1": {
        "price": {"currency": "EUR", "gpu_hour": -1}
    },
    "price.per_kwh: missing; give the price of the times that no row of time_of_use holds for": {
        "time_zone": "UTC",
        "price": {"currency": "EUR", "time_of_use": [{"per_kwh": 1}]},
    },
    "price.time_of_use: times of day need the site's time zone: set `time_zone`, such as Europe/Paris": {
        "price": {"currency": "EUR", "per_kwh": 1, "time_of_use": [{"per_kwh": 1}]}
    },
    "price.time_of_use[0].per_kwh: missing; each row of the table needs its value": prices({}),
    "price.time_of_use[0]: expected a mapping of keys to values, got text": prices("22:00"),
    "price.time_of_use[0].from: expected a time of day from '00:00' to '24:00', got '24:01'": prices(
        {"from": "24:01", "per_kwh": 1}
    ),
    "price.time_of_use[0].to: expected a time of day from '00:00' to '24:00', got '9pm'": prices(
        {"to": "9pm", "per_kwh": 1}
    ),
    "price.time_of_use[0].days: expected mon-fri or a list of mon, tue, wed, thu, fri, sat, sun,"
    " got 'weekdays'": prices({"days": "weekdays", "per_kwh": 1}),
    "price.time_of_use[0].months: expected jan-may or a list of jan, feb, mar, apr, may, jun, jul, aug, sep,"
    " oct, nov, dec, got 'winter'": prices({"months": "winter", "per_kwh": 1}),
    "price.time_of_use[0].until: unknown key; known: days, from, months, per_kwh, to": prices(
        {"until": "9:00", "per_kwh": 1}
    ),
    # servers
    "servers[0].url: missing; give the server's address such as http://127.0.0.1:8000": {"servers": [{}]},
    "servers[0].url: expected a URL of at most 2000 characters, got 3019": server(
        url=f"http://gpu1:8000/{'x' * 3002}"
    ),
    f"servers[0].url: {ANY_URL} 'localhost:8000'": server(url="localhost:8000"),
    f"servers[0].url: {ANY_URL} 'ftp://gpu1'": server(url="ftp://gpu1"),
    f"servers[0].url: {ANY_URL} 'http://'": server(url="http://"),
    f"servers[0].url: {ANY_URL} 'http://a..b'": server(url="http://a..b"),
    f"servers[0].url: {ANY_URL} 'http://gpu 1'": server(url="http://gpu 1"),
    f"servers[0].url: {ANY_URL} 'http://gpu1:80800'": server(url="http://gpu1:80800"),
    f"servers[0].url: {ANY_URL} 'http://[::1:8000'": server(url="http://[::1:8000"),
    f"servers[0].url: {ANY_URL} 8000": server(url=8000),
    "servers[0].url: the URL holds a user or password; use authorization.credentials_file instead": server(
        url="http://me:secret@gpu1:8000"
    ),
    "servers[0].authorization: expected a mapping of keys to values, got text": server(
        authorization="Bearer secret"
    ),
    "servers[0].dialect: unknown value 'vlm'; did you mean 'vllm'?": server(dialect="vlm"),
    "servers[0].tokens: expected true or false, got 'yes'": server(tokens="yes"),
    "servers[0].model: expected text, got ' '": server(model=" "),
    "servers[0].model: expected text, got '\\ud800'": server(model="\ud800"),
    "servers[0].gpus: expected auto, or a list such as [0, 1] or ['GPU-...'], got 0": server(gpus=0),
    "servers[0].gpus[1]: 'MIG-41c0' is a MIG instance, and energy is counted for whole GPUs: give the 'GPU-...' UUID"
    " above it in the list of `nvidia-smi -L`; servers on instances of one GPU then share it": server(
        gpus=["GPU-aa", "MIG-41c0"]
    ),
    "servers[0].gpus: expected auto, or a list such as [0, 1] or ['GPU-...'], got []": server(gpus=[]),
    f"servers[0].gpus[1]: {ANY_GPU} '1'": server(gpus=[0, "1"]),
    f"servers[0].gpus[0]: {ANY_GPU} -1": server(gpus=[-1]),
    f"servers[0].gpus[0]: {ANY_GPU} True": server(gpus=[True]),
    "servers[0].gpus[1]: 0 is already in the list; name each GPU once": server(gpus=[0, 0]),
    "servers[1]: same URL as servers[0], 'http://127.0.0.1:8000/metrics'; keep one of them": {
        "servers": [CHAT, {"url": "http://127.0.0.1:8000/metrics", "name": "other"}]
    },
    "servers[1]: same name as servers[0], '127.0.0.1:8000'; set another `name`": {
        "servers": [CHAT, {"url": "http://127.0.0.1:8000/metrics?model=b"}]
    },
    "servers[0].metrics: missing; dialect 'generic' needs the names of the server's series": server(
        dialect="generic"
    ),
    "servers[0].metrics: only dialect 'generic' takes names; set `dialect: generic`"
    " or leave them out": server(metrics={"generation": "tokens_total"}),
    "servers[0].metrics.generation: missing; give the name of the counter of generated tokens": server(
        dialect="generic", metrics={"prompt": "prompt_total"}
    ),
    "servers[0].metrics.prompt_moves: unknown value 'end';"
    " known: admission, finish, first_token, step": server(
        dialect="generic", metrics={"generation": "tokens_total", "prompt_moves": "end"}
    ),
}


@pytest.mark.parametrize(("message", "raw"), BAD.items(), ids=BAD)
def test_bad_configuration_says_what_and_where(message: str, raw: Mapping[str, object]):
    with pytest.raises(ConfigError) as caught:
        parse(raw)
    assert caught.value.problems == (message,)


def test_every_problem_is_reported_at_once():
    raw = {"listen": "x", "pue": 0, "interval": 1, "servers": [{"url": "gpu1", "gpus": [-1]}, {"name": "b"}]}
    with pytest.raises(ConfigError) as caught:
        parse(raw)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "listen",
        "servers[0].url",
        "servers[0].gpus[0]",
        "servers[1].url",
        "pue",
        "interval",
    ]
    assert str(caught.value) == "\n".join(caught.value.problems)


def test_secrets_in_wrong_places_are_not_repeated():
    raw = server(url="http://me:secret@gpu1", authorization="secret")
    with pytest.raises(ConfigError) as caught:
        parse(raw)
    assert "secret" not in str(caught.value)


def test_full_example():
    assert load(FULL, source="joulemeter.yaml") == Config(
        listen_host="0.0.0.0",
        listen_port=9847,
        series_ttl_seconds=3600,
        zero_hold_seconds=30,
        sampling=Sampling(interval_seconds=0.05),
        observation=ObservationSettings(interval_seconds=1, timeout_seconds=2, give_up_seconds=60),
        servers=(ServerConfig(url="http://127.0.0.1:8000/metrics", name="chat"),),
        idle="owner",
        time_zone=ZoneInfo("Europe/Paris"),
        grid=GridSettings(zone="FR", sources=(Static("FR"),)),
        pue=1.2,
        price=PriceSettings(
            0.22,
            (Span(22 * 60, 6 * 60, frozenset(range(7)), frozenset(range(1, 13)), 0.12),),
            "EUR",
        ),
    )


def test_everything_about_a_server():
    raw = {
        "url": "https://gpu1/stats/prometheus?model=b",
        "dialect": "generic",
        "model": "b",
        "authorization": {"credentials_file": "/run/secrets/key"},
        "tls_config": {"ca_file": "/etc/ca.pem", "insecure_skip_verify": True},
        "tokens": False,
        "gpus": [1, "GPU-aa"],
        "metrics": {
            "generation": "out_total",
            "generation_moves": "step",
            "prompt_includes_cached": True,
            "steps": "steps_total",
            "first_tokens": "ttft_count",
            "inter_token_seconds": "itl_sum",
        },
    }
    assert parse({"servers": [raw]}).servers == (
        ServerConfig(
            url="https://gpu1:443/stats/prometheus?model=b",
            name="gpu1:443",
            dialect="generic",
            model="b",
            credentials_file=Path("/run/secrets/key"),
            ca_file=Path("/etc/ca.pem"),
            insecure_skip_verify=True,
            tokens=False,
            gpus=(1, "GPU-aa"),
            metrics=GenericNames(
                "out_total",
                generation_moves=Moves.STEP,
                prompt_includes_cached=True,
                steps="steps_total",
                first_tokens="ttft_count",
                inter_token_seconds="itl_sum",
            ),
        ),
    )


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "sampling:\nservers: null\npue: null\n"])
def test_what_is_left_out_has_its_default(text: str):
    assert load(text, source="joulemeter.yaml") == Config()


@pytest.mark.parametrize(
    ("given", "page", "name"),
    [
        ("http://gpu1", "http://gpu1:80/metrics", "gpu1:80"),
        ("http://gpu1:8000/", "http://gpu1:8000/metrics", "gpu1:8000"),
        (" http://GPU1:8000 ", "http://gpu1:8000/metrics", "gpu1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000/metrics", "[::1]:8000"),
        ("http://gpu1:8000?model=b", "http://gpu1:8000/metrics?model=b", "gpu1:8000"),
        ("http://gpu1:8000/a/metrics", "http://gpu1:8000/a/metrics", "gpu1:8000"),
    ],
)
def test_url_is_completed(given: str, page: str, name: str):
    assert parse({"servers": [{"url": given}]}).servers == (ServerConfig(url=page, name=name),)


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::]:9847", ("::", 9847)),
        (":9847", ("0.0.0.0", 9847)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_listen(listen: str, address: tuple[str, int]):
    config = parse({"listen": listen})
    assert (config.listen_host, config.listen_port) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pue: 1\nservers: [\n", "node.yaml:3:1: expected the node content, but found '<stream end>'"),
        ("pue: 1\npue: 2\n", "node.yaml:2:1: key 'pue' is given twice; keep one"),
        ("pue: 1\n[a]: 2\n", "node.yaml:2:1: found unhashable key"),
        (
            "pue: \x00\n",
            "node.yaml: not YAML text: unacceptable character #x0000: special characters are not allowed",
        ),
        (
            "servers: [{url: 'http://a', model: 2024-13-01}]",
            "node.yaml: month must be in 1..12; put text that looks like a date in quotes",
        ),
    ],
)
def test_text_that_is_not_yaml(text: str, message: str):
    with pytest.raises(ConfigError) as caught:
        load(text, source="node.yaml")
    assert caught.value.problems[0].splitlines()[0] == message


def test_flags_replace_servers_and_address_of_the_file():
    config = load(FULL, source="joulemeter.yaml")
    assert with_overrides(config, [], None) == config
    other = with_overrides(config, ["http://gpu1:1", "http://gpu1:2"], "[::1]:0")
    assert [one.name for one in other.servers] == ["gpu1:1", "gpu1:2"]
    assert (other.listen_host, other.listen_port) == ("::1", 0)
    assert other.pue == config.pue


def test_flags_have_their_problems_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        with_overrides(Config(), ["gpu1", "http://gpu2", "http://gpu2/metrics"], "nowhere")
    assert caught.value.problems == (
        f"--server: {ANY_URL} 'gpu1'",
        "--server http://gpu2:80/metrics: same URL as --server http://gpu2:80/metrics,"
        " 'http://gpu2:80/metrics'; keep one of them",
        "--listen: expected HOST:PORT such as 0.0.0.0:9847 or [::]:9847, got 'nowhere'",
    )


def test_every_intensity_that_is_accepted_can_be_priced_with():
    """A value that the configuration took and the source refused would end the daemon with a traceback."""
    grid = parse({"grid": {"sources": ["fixed"], "fixed": {"intensity_grams_per_kwh": 2000}}}).grid
    (source,) = grid.sources
    assert isinstance(source, ConstantSource)
    assert source.at(1.8e9).intensity_grams_per_kwh == 2000


def test_settings_of_a_source_that_is_not_listed_may_stay():
    assert parse({"grid": {"sources": ["static"], "relay": {"anything": 1}}}).grid.sources == (
        Static("WORLD"),
    )


def test_a_cloud_region_leads_to_its_country():
    place = parse({"grid": {"cloud_region": "gcp/europe-west9"}}).place
    assert (place.zone, place.cloud_region) == ("FR", ("gcp", "europe-west9"))
    assert parse({"grid": {"cloud_region": "gcp/europe-west9", "zone": "EU"}}).place.zone == "EU"
    assert parse({}).place.zone == "WORLD"


def test_without_a_price_there_is_no_tariff():
    assert parse({}).price.tariff(None) is None
    tariff = parse({"price": {"currency": "EUR", "gpu_hour": 2.5}}).price.tariff(None)
    assert tariff == Tariff("EUR", None, 2.5)


def test_discovery_is_off_and_knows_the_usual_places():
    assert parse({}).discovery == DiscoverySettings()
    keys = {
        "kubernetes": True,
        "node_name": "node-a",
        "api_server": "https://10.0.0.1:6443/",
        "service_account_dir": "/run/account",
        "pod_resources_socket": "/var/lib/k0s/kubelet/pod-resources/kubelet.sock",
        "tls_config": {"ca_file": "/etc/serving/ca.pem", "insecure_skip_verify": True},
    }
    assert parse({"discovery": keys}).discovery == DiscoverySettings(
        True,
        "node-a",
        "https://10.0.0.1:6443",
        Path("/run/account"),
        Path("/var/lib/k0s/kubelet/pod-resources/kubelet.sock"),
        Path("/etc/serving/ca.pem"),
        insecure_skip_verify=True,
    )
