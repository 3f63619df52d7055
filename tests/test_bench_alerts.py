"""The bench of the alerts: its harness fires when Prometheus does, and what it measures is what the simulator did."""

import itertools
import math
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.alerts import rules
from benchmarks.alerts.__main__ import PAGE, SEEDS
from benchmarks.alerts.cases import Case, Episode, chat, episodes, longer_prompts, plan, quick
from benchmarks.alerts.evaluate import RULES, Outcome, delay
from benchmarks.alerts.firing import Span, firing
from benchmarks.alerts.prometheus import Prometheus, passes, written
from benchmarks.alerts.report import HEAD, PAGING, misses, page, told
from benchmarks.alerts.weeks import MONDAY_TIMESTAMP_SECONDS, Node, Weeks, weeks
from benchmarks.truth.ratios import DAY_SECONDS
from dashboards import alert_records, alerts

MINUTE = 60.0
DAY_MINUTES = 1440


def told_by_promtool(
    promtool: str, folder: Path, test: dict[str, Any], rule_file: Path, asked: list[Any]
) -> None:
    """Run promtool's unit test of a day; asked are its promql_expr_test."""
    case = {
        "rule_files": [str(rule_file)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "promql_expr_test": asked, **test}],
    }
    path = folder / "day.yaml"
    path.write_text(yaml.safe_dump(case))
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def firing_of(
    name: str, spans: Sequence[Span], every: int, until: int, *, apart_seconds: float = 0.0
) -> list[dict[str, Any]]:
    """What promtool is to say of an alert, by the minute, if the harness is right.

    Minutes nearer than `apart_seconds` to a begin or an end are not asked for: where an alert's value is its threshold
    to the last digit, the order of a sum decides in which of two minutes it fires.
    """
    edges = [edge for span in spans for edge in span]
    return [
        {
            "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})',
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": "{}", "value": 1}]
            if any(first <= minute * MINUTE <= last for first, last in spans)
            else [],
        }
        for minute in range(0, until, every)
        if not any(abs(minute * MINUTE - edge) < apart_seconds for edge in edges)
    ]


# ------------------------------------------------------------------------------------------------- the harness


def test_alerts_fire_when_promtool_says_so(promtool: str, tmp_path: Path):
    """A day of chance, and every combination of `for` and `keep_firing_for`."""
    chance = random.Random(7)
    there = [minute for minute in range(DAY_MINUTES) if math.sin(minute / 40) + chance.gauss(0, 0.5) > 0.3]
    values = ["1" if minute in set(there) else "0" for minute in range(DAY_MINUTES)]
    holds = list(itertools.product(("0s", "1m", "7m"), ("0s", "3m", "20m")))
    file = tmp_path / "rules.yaml"
    named = {f"Alert{number}": one for number, one in enumerate(holds)}
    group = [
        {"alert": name, "expr": "x == 1", "for": hold, "keep_firing_for": keep}
        for name, (hold, keep) in named.items()
    ]
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": group}]}))
    asked = []
    for name, (hold, keep) in named.items():
        spans = firing(
            [minute * MINUTE for minute in there],
            [minute * MINUTE for minute in range(DAY_MINUTES)],
            hold=rules.seconds(hold),
            keep=rules.seconds(keep),
        )
        assert 1 < len(spans) < DAY_MINUTES / 4, "or there is nothing to hold against"
        asked += firing_of(name, spans, 3, DAY_MINUTES)
    told_by_promtool(
        promtool, tmp_path, {"input_series": [{"series": "x", "values": " ".join(values)}]}, file, asked
    )


def test_what_never_is_there_never_fires():
    assert firing([], [0.0, 60.0, 120.0]) == []


def test_the_kept_page_is_of_this_bench():
    """Its figures are a run's; what the page says of them is the code's."""
    text = PAGE.read_text()
    assert text.startswith(HEAD)
    assert "Not finished" not in text
    for line in told(one for one in plan(SEEDS) if not one.stays):
        assert line in text
    for rule in rules.ours():
        assert rule.name in text


@pytest.fixture
def empty(prometheus: str, tmp_path: Path) -> Prometheus:
    return Prometheus(tmp_path / "prometheus")


def test_a_day_on_a_real_prometheus_is_what_promtool_says(promtool: str, empty: Prometheus, tmp_path: Path):
    """Simulated, back-filled, recorded and evaluated over a range: the alert fires in the same minutes as in the
    unit test of the same rules file with the same samples, and within the time that is wanted.
    """
    case = quick(days=0.95, learn_days=0.6, begins_days=0.7)
    found = weeks(case.label, case.nodes)
    assert found.true_ratio(0.1 * DAY_SECONDS, 0.69 * DAY_SECONDS) == pytest.approx(1.0, abs=1e-3)
    empty.backfill(found.series)
    empty.record(RULES, MONDAY_TIMESTAMP_SECONDS, MONDAY_TIMESTAMP_SECONDS + case.seconds)
    with empty.running():
        fired = {
            rule.name: list(itertools.chain(*rule.fired(empty, case.seconds).values()))
            for rule in rules.ours()
        }
    (begun,) = (first for first, _ in fired[PAGING])
    one = delay(case, case.episodes[0], fired[PAGING], found.true_ratio)
    assert one.true_ratio > 1.15
    assert one.wanted_seconds == 3600.0
    assert begun - case.episodes[0].begins_seconds == one.seconds
    assert one.seconds <= one.wanted_seconds
    until = round(case.seconds / MINUTE)
    series = [
        {"series": written(*key), "values": " ".join(by_minute(samples, until))}
        for key, samples in found.series.items()
    ]
    asked = [
        *firing_of(PAGING, fired[PAGING], 5, until, apart_seconds=2 * MINUTE),
        *firing_of(alerts.LOAD_HIGH.name, fired[alerts.LOAD_HIGH.name], 5, until, apart_seconds=2 * MINUTE),
    ]
    told_by_promtool(promtool, tmp_path, {"input_series": series}, RULES, asked)


def by_minute(samples: Sequence[tuple[float, float]], until: int) -> list[str]:
    values = {round((at - MONDAY_TIMESTAMP_SECONDS) / MINUTE): repr(value) for at, value in samples}
    return [values.get(minute, "_") for minute in range(until)]


def test_records_are_made_in_the_order_in_which_they_need_each_other():
    found = [[rule["record"] for rule in one["groups"][0]["rules"]] for one in passes(RULES)]
    place = {name: number for number, names in enumerate(found) for name in names}
    chain = (alert_records.COMPARED, alert_records.RATIO, alert_records.LEAST)
    assert [place[rule.record] for rule in chain] == [0, 1, 2]


# -------------------------------------------------------------------------------------------------- the figures


def test_straight_line_finds_the_line_that_was_there():
    minutes = round(rules.FITTED_DAYS * DAY_SECONDS / MINUTE)
    chance = random.Random(3)
    prompt, generated, joules = [0.0], [0.0], [0.0]
    for _ in range(minutes):
        a, b = chance.uniform(0, 4000), chance.uniform(0, 1000)
        prompt.append(prompt[-1] + 60 * a)
        generated.append(generated[-1] + 60 * b)
        joules.append(joules[-1] + 60 * (120 + 0.02 * a + 0.5 * b))

    def at_minutes(values: list[float]) -> list[tuple[float, float]]:
        return [(MONDAY_TIMESTAMP_SECONDS + MINUTE * minute, value) for minute, value in enumerate(values)]

    node = ("instance", "node-0")
    found = Weeks(
        {
            ("joulemeter_model_energy_joules_total", (node, ("phase", "decode"))): at_minutes(joules),
            ("joulemeter_model_tokens_total", (node, ("kind", "prompt"))): at_minutes(prompt),
            ("joulemeter_model_tokens_total", (node, ("kind", "generation"))): at_minutes(generated),
        }
    )
    assert rules.straight_line(found) == pytest.approx((120, 0.02, 0.5))


def outcome(case: Case, spans: list[Span], true_ratio: float = 1.12) -> Outcome:
    delays = [delay(case, one, spans, lambda *_: true_ratio) for one in case.episodes]
    return Outcome(case, {PAGING: spans}, {PAGING: 4.0}, {PAGING: delays})


def test_false_alarms_and_late_ones_are_named():
    case = quick()
    begins = case.episodes[0].begins_seconds
    assert misses([outcome(case, [(begins + 7000.0, begins + 9000.0)])]) == []
    assert misses([outcome(case, [])]) == ["quick-0: true ratio 1.120 not found, wanted 120 min"]
    late = outcome(case, [(begins + 9000.0, begins + 9060.0)])
    assert misses([late]) == ["quick-0: true ratio 1.120 after 150 min, wanted 120 min"]
    assert misses([outcome(case, [], true_ratio=1.06)]) == [], "too little to be owed"
    assert misses([outcome(chat(3), [(0.0, 60.0), (600.0, 900.0)])]) == ["chat-3: 2 false alarms"]
    early = outcome(case, [(begins - 60.0, begins + 60.0)])
    assert misses([early]) == [
        "quick-0: 1 false alarms",
        "quick-0: true ratio 1.120 fired already, wanted 120 min",
    ]


def test_page_says_what_was_found_and_what_is_missing():
    case = quick()
    begins = case.episodes[0].begins_seconds
    text = page([outcome(chat(0), []), outcome(case, [(begins + 1800.0, case.seconds)])], missing=2)
    assert "**Not finished: 2 runs are missing.**" in text
    assert "no false alarm in 1 runs, and every regression in time. Reached." in text
    assert f"| `{PAGING}` | 0 |" in text
    assert f"| `{PAGING}` | 1 | 30 | 99% |" in text


def test_an_alert_from_before_masks_an_episode():
    case = quick()
    begins = case.episodes[0].begins_seconds
    assert delay(case, Episode(begins, 0.25), [(begins - 60.0, begins + 60.0)], lambda *_: 1.2).masked


def test_the_plan_has_what_was_asked_for():
    cases = plan(5)
    by_name = {case.name: [one.seed for one in cases if one.name == case.name] for case in cases}
    assert by_name["chat"] == by_name["mixture-of-experts-drift"] == [0, 1, 2, 3, 4]
    assert {
        "traffic-x3",
        "longer-prompts",
        "warm-cache",
        "replica-added",
        "episodes",
        "stays",
    } <= by_name.keys()
    assert len({case.label for case in cases}) == len(cases)
    assert all(case.seconds == 4 * 7 * DAY_SECONDS for case in cases if not case.stays)


def test_episodes_are_over_and_forgotten_before_the_next():
    begins = [one.begins_seconds for one in episodes(0).episodes]
    remembered_seconds = 3 * 3600 + 12 * 3600 + 3600
    assert min(later - former for former, later in itertools.pairwise(begins)) > remembered_seconds


def test_longer_prompts_are_longer_from_a_time_on():
    (node,) = longer_prompts(0).nodes
    before, after = node.scenario.servers[0].traffic.kinds
    assert before.until_seconds == after.from_seconds
    assert after.prompt_tokens == 3 * before.prompt_tokens


def test_a_server_that_restarts_shows_only_what_goes_on():
    """Counters of the daemon do not fall when a server's begin again."""
    scenario = quick(days=0.5, begins_days=0.4).nodes[0].scenario
    found = weeks("restarts", (Node(scenario, restarts_seconds=(20_000.0,)),))
    for (name, _), samples in found.series.items():
        if name.endswith("_total"):
            assert all(a <= b for (_, a), (_, b) in itertools.pairwise(samples)), name
