"""The page of the bench: what fired although nothing was wrong, and how long it took where something was."""

import statistics
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import Final

from benchmarks.alerts.cases import EPISODE_SECONDS, Case
from benchmarks.alerts.evaluate import Delay, Outcome
from dashboards import alerts

PAGING: Final = alerts.REGRESSION.name
HEAD: Final = """\
# Alerts on energy per token, 2026-11

Written by `make bench-alerts`; edit `benchmarks/alerts`, not this page. Traffic, engines, power and the energy counter
are simulated (`benchmarks/truth`); the books, the estimator and the baselines are the daemon's own. Their page is
back-filled by the minute into a Prometheus, the recording rules of `dashboards/generated/prometheus/rules.yaml` are
back-filled on top, and the alerts' own expressions are evaluated as range queries, a minute apart; `for` and
`keep_firing_for` are applied by `benchmarks/alerts/firing.py`, which a test holds against promtool.

Baselines learn for the first week. Our rules are counted from the first minute on, the naive ones from the second
week on. Servers restart five times in every run in which nothing is wrong.

For speed, servers are observed every ten seconds and counters read every five; in the run in which prompts become
longer, both every five, the daemon's longest interval: the fewer pages there are, the less they tell of contexts (ADR
17).
"""
QUIET_TEXT: Final = """\
## Nothing wrong

False alarms per week. The straight line is fitted to the first week's minutes.
"""
EPISODES_TEXT: Final = """\
## Something wrong for three hours

Once a day, in the morning or the afternoon, working days and weekends, decoding takes more power. How long the paging
rule takes, in minutes, by how much more energy all of it then needs: the true ratio over the first hour. +10, +15 and
+25 % are wanted within 2 h, 1 h and 45 min. That is meant of the true ratio, which a bill shows: 15 % more power
of decoding is 12 % more energy. Where the true ratio is below 1.08, nothing is owed.
"""
STAYS_TEXT: Final = """\
## Something wrong for good

{says} One alarm is wanted: at night idle energy hides it, which is why the rule remembers.
"""
BOUNDS: Final = (1.0, 1.08, 1.10, 1.15, 1.25, 9.0)


def page(outcomes: Sequence[Outcome], missing: int) -> str:
    """Return the whole page; `missing` cases have not been run."""
    quiet = [one for one in outcomes if not one.case.episodes]
    back = [one for one in outcomes if one.case.episodes and not one.case.stays]
    stay = [one for one in outcomes if one.case.stays]
    parts = [HEAD]
    if missing:
        parts.append(f"**Not finished: {missing} runs are missing.**\n")
    parts.append(verdict(outcomes))
    if quiet:
        parts.append(f"{QUIET_TEXT}\n{_quiet_table(quiet)}\n{''.join(told(one.case for one in quiet))}")
    if back:
        parts.append(EPISODES_TEXT)
        for _, group in _by_name(back):
            delays = [delay for one in group for delay in one.delays[PAGING]]
            parts.append(f"{''.join(told(one.case for one in group))}\n{_delay_table(delays)}")
            parts.append(f"All rules, over the same episodes:\n\n{_rules_table(group)}")
    if stay:
        parts.append(f"{STAYS_TEXT.format(says=stay[0].case.says)}\n{_stay_table(stay)}")
    return "\n".join(parts)


def misses(outcomes: Iterable[Outcome]) -> list[str]:
    """Return what was wanted of the paging rule and is not so."""
    found = []
    for one in outcomes:
        false = _false(one)
        if false:
            found.append(f"{one.case.label}: {false} false alarms")
        for delay in one.delays[PAGING]:
            limit = delay.wanted_seconds
            if limit is None or (delay.seconds is not None and delay.seconds <= limit):
                continue
            took = "not found" if delay.seconds is None else f"after {delay.seconds / 60:.0f} min"
            late = "fired already" if delay.masked else took
            found.append(
                f"{one.case.label}: true ratio {delay.true_ratio:.3f} {late}, wanted {limit / 60:.0f} min"
            )
    return found


def _false(one: Outcome) -> int:
    """Count what began while nothing was wrong."""
    case = one.case
    lasts = case.seconds if case.stays else EPISODE_SECONDS
    wrong = [(episode.begins_seconds, episode.begins_seconds + lasts) for episode in case.episodes]
    return sum(not any(begin <= first <= end for begin, end in wrong) for first, _ in one.fired[PAGING])


def verdict(outcomes: Sequence[Outcome]) -> str:
    """Return whether it is as wanted, in a sentence or a list."""
    quiet = sum(not one.case.episodes for one in outcomes)
    found = misses(outcomes)
    wanted = f"Wanted of `{PAGING}`: no false alarm in {quiet} runs, and every regression in time."
    return (
        f"{wanted} Not reached:\n\n" + "".join(f"- {line}\n" for line in found)
        if found
        else f"{wanted} Reached.\n"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rest)) + "\n"


def _by_name(outcomes: Sequence[Outcome]) -> list[tuple[str, list[Outcome]]]:
    ordered = sorted(outcomes, key=lambda one: one.case.name)
    return [(name, list(group)) for name, group in groupby(ordered, key=lambda one: one.case.name)]


def _quiet_table(outcomes: Sequence[Outcome]) -> str:
    groups = _by_name(outcomes)
    rows = [["rule", *(f"{name} ({len(group)})" for name, group in groups)]]
    for rule in outcomes[0].fired:
        cells = []
        for _, group in groups:
            alarms = sum(len(one.fired[rule]) for one in group)
            counted = sum(one.weeks_counted[rule] for one in group)
            cells.append(f"{alarms / counted:.2g}" if alarms else "0")
        rows.append([f"`{rule}`" if rule.startswith("Joulemeter") else rule, *cells])
    return _table(rows)


def told(cases: Iterable[Case]) -> list[str]:
    """Say what happens in cases, a line for each name."""
    ordered = sorted(cases, key=lambda one: one.name)
    groups = [list(group) for _, group in groupby(ordered, key=lambda one: one.name)]
    return [
        f"* {one.name} ({1 + len(more)} seed{'s' if more else ''}): {one.says}\n" for one, *more in groups
    ]


def _delay_table(delays: Sequence[Delay]) -> str:
    rows = [["true ratio", "episodes", "decode power", "found", "median", "longest", "wanted"]]
    for low, high in pairwise(BOUNDS):
        here = [one for one in delays if low <= one.true_ratio < high and not one.masked]
        if not here:
            continue
        took = [one.seconds / 60 for one in here if one.seconds is not None]
        powers = sorted({one.decode_power for one in here})
        limit = here[0].wanted_seconds
        rows.append(
            [
                f"{min(one.true_ratio for one in here):.3f} to {max(one.true_ratio for one in here):.3f}",
                str(len(here)),
                ", ".join(f"+{power:.3g}" for power in (100 * power for power in powers)) + " %",
                str(len(took)),
                f"{statistics.median(took):.0f}" if took else "-",
                f"{max(took):.0f}" if took else "-",
                "-" if limit is None else f"{limit / 60:.0f}",
            ]
        )
    return _table(rows)


def _rules_table(outcomes: Sequence[Outcome]) -> str:
    powers = sorted({delay.decode_power for one in outcomes for delay in one.delays[PAGING]})
    rows = [["rule", *(f"+{100 * power:.3g} %" for power in powers)]]
    for rule in outcomes[0].fired:
        cells = []
        for power in powers:
            here = [
                delay
                for one in outcomes
                for delay in one.delays[rule]
                if delay.decode_power == power and not delay.masked
            ]
            took = [delay.seconds / 60 for delay in here if delay.seconds is not None]
            times = f", {statistics.median(took):.0f} ({max(took):.0f}) min" if took else ""
            cells.append(f"{len(took)} of {len(here)}{times}")
        rows.append([f"`{rule}`" if rule.startswith("Joulemeter") else rule, *cells])
    return (
        _table(rows)
        + "\nFound of how many, the median and the longest; not counted where it fired already.\n"
    )


def _stay_table(outcomes: Sequence[Outcome]) -> str:
    rows = [["rule", "alarms", "first after, min", "firing, part of the time since"]]
    for rule in outcomes[0].fired:
        for one in outcomes:
            begins = one.case.episodes[0].begins_seconds
            spans = [span for span in one.fired[rule] if span[1] >= begins]
            seconds = sum(last - max(first, begins) for first, last in spans)
            first = one.delays[rule][0].seconds
            rows.append(
                [
                    f"`{rule}`" if rule.startswith("Joulemeter") else rule,
                    str(len(spans)),
                    "-" if first is None else f"{first / 60:.0f}",
                    f"{seconds / (one.case.seconds - begins):.0%}",
                ]
            )
    return _table(rows)
