"""Measured over expected energy against the truth: hour by hour over weeks, with and without a regression.

python -m benchmarks.truth.ratios [SCENARIO...] [--weeks N]

The truth of an hour is the simulator's: what the servers took, over what the same steps would have taken of an
engine without the regression. Everything between the counter and the ratio is the daemon's own: pages, books,
attribution, baseline.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from benchmarks.truth.books import BEGIN_SECONDS, VLLM, Style, gpus, server_name, to_books
from benchmarks.truth.kernel import Floats
from benchmarks.truth.run import Chunk, simulate
from benchmarks.truth.scenario import Scenario
from benchmarks.truth.scenarios import SCENARIOS, regressed
from benchmarks.truth.sensor import TICK_SECONDS
from joulemeter.accounting import unpriced
from joulemeter.accounts import Terms
from joulemeter.attributor import Attributor
from joulemeter.baseline import Basis
from joulemeter.baselines import Baselines
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.model import EnergyReading, User

DAY_SECONDS: Final = 86_400.0
HOUR_SECONDS: Final = 3600.0
WEEKS_SECONDS: Final = 4 * 7 * DAY_SECONDS
LEARN_DAYS: Final = 7.0
READ_SECONDS: Final = 1.0
OBSERVE_SECONDS: Final = 5.0
"""Rarer than the daemon does, for speed: four weeks in three minutes. Enough where one server that counts its steps
has the GPUs to itself; shared GPUs are read at every tick, which tells steps from idle."""


@dataclass(frozen=True, slots=True)
class Ratios:
    """One server's hours, from the first whole one after its baseline was frozen.

    `measured` are compared over expected by basis, `true` the simulator's; `in_range` is the part of the
    hour in which the baseline had seen such a load, `requests` how many came.
    """

    hours: Floats
    measured: dict[Basis, Floats]
    true: Floats
    in_range: Floats
    requests: Floats

    def errors(self, basis: Basis = Basis.ENGINE) -> Floats:
        """Return measured less true, in points (hundredths)."""
        return 100.0 * (self.measured[basis] - self.true)


def ratios(
    scenario: Scenario,
    style: Style = VLLM,
    *,
    learn_days: float = LEARN_DAYS,
    read_seconds: float | None = None,
    observe_seconds: float = OBSERVE_SECONDS,
) -> list[Ratios]:
    """Drive fresh books with baselines through a run, and compare every hour; one answer per server."""
    if read_seconds is None:
        read_seconds = READ_SECONDS if len(scenario.servers) == 1 else TICK_SECONDS
    scenario = replace(scenario, observe_seconds=observe_seconds)
    now = [0.0]
    baselines = Baselines(learn_days * DAY_SECONDS, lambda: now[0])
    books = Bookkeeper(
        Terms(),
        price=unpriced,
        attributor=Attributor(),
        baselines=baselines,
    )
    boards = {gpu.uuid: gpu for gpu in gpus(scenario)}
    users = [User(server_name(index), server.model) for index, server in enumerate(scenario.servers)]
    for user in users:
        books.expect_server(user.server, user.model, BEGIN_SECONDS, counts_tokens=True)
        books.own(user.server, frozenset(boards), BEGIN_SECONDS)
    truth: list[Floats] = []

    def noted() -> Iterator[Chunk]:
        for chunk in simulate(scenario):
            truth.append(true_joules(scenario, chunk))
            yield chunk

    logs: list[list[tuple[float, ...]]] = [[] for _ in users]
    for event in to_books(scenario, noted(), style, read_seconds=read_seconds):
        if isinstance(event, EnergyReading):
            books.meter(boards[event.uuid], [event])
            continue
        now[0] = event.at_seconds
        books.observe(event, has_phases=style.has_phases)
        if event.server == users[-1].server:
            books.settle(event.at_seconds)
            settled = min(a.settled_until_seconds for a in books.gpus.values()) - BEGIN_SECONDS
            for log, row in zip(logs, _rows(baselines, users, settled), strict=True):
                if row and (not log or row[0] > log[-1][0]):
                    log.append(row)
    totals = np.concatenate(truth)
    return [
        _by_hour(scenario, np.array(log), totals[:, index]) for index, log in enumerate(logs) if len(log) > 1
    ]


def _rows(baselines: Baselines, users: Sequence[User], settled: float) -> Iterator[tuple[float, ...]]:
    """Yield each server's totals at an instant, once its baseline is frozen."""
    followed = {user: (one, in_range) for user, one, in_range in baselines.followed()}
    for user in users:
        baseline, in_range = followed.get(user, (None, None))
        comparison = baselines.comparisons.get((user, baseline.id)) if baseline else None
        if baseline is None or baseline.learning is not None or comparison is None:
            yield ()
            continue
        expected = comparison.expected_joules
        yield (
            settled,
            comparison.compared_joules,
            *(expected[basis] for basis in Basis),
            float(bool(in_range)),
        )


def true_joules(scenario: Scenario, chunk: Chunk) -> Floats:
    """Return (windows, servers, 3): joules, what they would have been, and requests that began."""
    servers = len(scenario.servers)
    busy = chunk.true("busy_seconds")
    others = busy.sum(axis=1, keepdims=True) - busy
    joules = chunk.true("prefill_joules") + chunk.true("decode_joules") + chunk.idle_joules[:, None] / servers
    idle_seconds = scenario.window_seconds - chunk.true("reference_seconds") - others
    reference = chunk.true("reference_joules") + scenario.idle_watts * idle_seconds / servers
    seen = chunk.showed("first_tokens")
    per_window = round(scenario.window_seconds / scenario.observe_seconds)
    return np.stack([joules, reference, seen[::per_window][: len(joules)]], axis=2)


def _by_hour(scenario: Scenario, log: Floats, true: Floats) -> Ratios:
    """Cut both at the instants nearest to each hour's border: what is settled lags, and differs by seconds."""
    at = log[:, 0]
    borders = np.arange(math.ceil(at[0] / HOUR_SECONDS), at[-1] / HOUR_SECONDS) * HOUR_SECONDS
    picks = np.minimum(np.searchsorted(at, borders), len(at) - 1)
    edges = scenario.window_seconds * np.arange(len(true) + 1)
    totals = np.concatenate([np.zeros((1, 2)), np.cumsum(true[:, :2], axis=0)])
    joules, reference = (np.diff(np.interp(at[picks], edges, totals[:, column])) for column in (0, 1))
    compared = np.diff(log[picks, 1])
    measured = {basis: compared / np.diff(log[picks, 2 + number]) for number, basis in enumerate(Basis)}
    in_range = np.array([log[a:b, -1].mean() for a, b in pairwise(picks.tolist())])
    requests = np.diff(np.interp(at[picks], edges[:-1], true[:, 2]))
    return Ratios(borders[:-1] / HOUR_SECONDS, measured, joules / reference, in_range, requests)


REGRESSIONS: Final = (
    ("", 0.0, 0.0, 0.0),
    ("decode power +10 %", 10.4, 0.10, 0.0),
    ("decode power +15 %", 14.0, 0.15, 0.0),
    ("decode power +25 %", 20.6, 0.25, 0.0),
    ("step time +10 %", 14.0, 0.0, 0.10),
    ("step time +15 %", 10.4, 0.0, 0.15),
    ("step time +25 %", 20.6, 0.0, 0.25),
)
"""What goes wrong, and after how many days."""
HEAD: Final = """\
| scenario | regression | hours | in range | engine: worst | p99 | median | load: worst | p99 | median |
|---|---|---|---|---|---|---|---|---|---|"""
EVERY_MINUTE: Final = 60.0


def line(name: str, what: str, found: Ratios) -> str:
    """Return a row of the table: errors in points over hours with more than a request a minute."""
    kept = found.requests > EVERY_MINUTE
    if not kept.any():
        kept = np.ones(len(kept), bool)
    cells = []
    for basis in Basis:
        errors = np.abs(found.errors(basis)[kept])
        cells += [f"{errors.max():.2f}", f"{np.quantile(errors, 0.99):.2f}", f"{np.median(errors):.2f}"]
    return f"| {name} | {what or 'none'} | {kept.sum()} | {found.in_range[kept].mean():.1%} | {' | '.join(cells)} |"


def table(names: Sequence[str], *, seconds: float = WEEKS_SECONDS, regressions: bool = True) -> Iterator[str]:
    """Yield the table's lines, one scenario and regression after the other."""
    yield HEAD
    for name in names:
        for what, days, decode_power, step_time in REGRESSIONS if regressions else REGRESSIONS[:1]:
            scenario = SCENARIOS[name](seconds)
            if what:
                scenario = regressed(
                    scenario, days * DAY_SECONDS, decode_power=decode_power, step_time=step_time
                )
            for index, found in enumerate(ratios(scenario)):
                yield line(f"{name} {scenario.servers[index].model.rpartition('/')[2]}", what, found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="*", default=["chat_day"], metavar="SCENARIO")
    parser.add_argument("--weeks", type=float, default=4.0)
    parser.add_argument("--regressions", action="store_true", help="with regressions too")
    options = parser.parse_args()
    for row in table(
        options.scenarios, seconds=options.weeks * 7 * DAY_SECONDS, regressions=options.regressions
    ):
        print(row, flush=True)


if __name__ == "__main__":
    main()
