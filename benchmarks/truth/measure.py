"""One simulated run under the books, and how far each way of splitting it is from the truth."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from benchmarks.truth.books import VLLM, Comparison, Style, keep_books, server_name
from benchmarks.truth.methods import EngineJoules, SideBySide, others
from benchmarks.truth.scenario import Scenario
from joulemeter.accounting import unpriced
from joulemeter.accounts import Terms
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.model import Phase, User
from joulemeter.priors import ENGINE_JOULES

OURS: Final = "joulemeter"
WARM_UP_SECONDS: Final = 3600.0
MINUTE_SECONDS: Final = 60.0
TEN_MINUTES_SECONDS: Final = 600.0
PARTS: Final[Mapping[str, tuple[Phase, ...]]] = {
    "idle": (Phase.IDLE,),
    "prefill": (Phase.PREFILL,),
    "decode": (Phase.DECODE,),
    "work": (Phase.PREFILL, Phase.DECODE),
    "all": (Phase.IDLE, Phase.PREFILL, Phase.DECODE),
}
"""Parts of a model's energy: its phases, and together, without and with its part of idle."""


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario as it is to be run, and what is wanted of it.

    `wanted` has the largest bias of each of `PARTS` that has a number, `wanted_weighted` the largest weighted error.
    """

    name: str
    scenario: Scenario
    wanted: Mapping[str, float] = field(default_factory=dict)
    wanted_weighted: Mapping[str, float] = field(default_factory=dict)
    style: Style = VLLM
    skew_seconds: float = 0.0
    compare_seconds: float = MINUTE_SECONDS
    others: bool = False
    wrong_priors: bool = False
    engine_joules: EngineJoules = ENGINE_JOULES


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative bias over a run, and the sum of absolute errors from instant to instant over that of the truth."""

    bias: float
    weighted: float


Key = tuple[int | None, str]
"""A server, None for all together, and one of `PARTS`."""


def measure(case: Case) -> dict[str, Comparison]:
    """Run a case once, and return what each method booked next to the truth, by its name; `OURS` first."""
    scenario = case.scenario
    users = [User(server_name(index), server.model) for index, server in enumerate(scenario.servers)]
    beside = (
        others(scenario.idle_watts / scenario.gpus, wrong_priors=case.wrong_priors) if case.others else {}
    )
    attributor = SideBySide(users, beside, case.engine_joules)
    books = Bookkeeper(
        Terms(zero_hold_seconds=0.0, series_ttl_seconds=math.inf),
        price=unpriced,
        attributor=attributor,
    )
    ours = keep_books(
        scenario,
        books,
        case.style,
        compare_seconds=case.compare_seconds,
        skew_seconds=case.skew_seconds,
    )
    return {OURS: ours, **attributor.compared(ours)}


def keys(scenario: Scenario) -> list[Key]:
    """Return the parts that a scenario is judged by."""
    if len(scenario.servers) == 1:
        return [(None, "idle"), (None, "prefill"), (None, "decode")]
    of_models = [
        (index, part)
        for index in range(len(scenario.servers))
        for part in ("prefill", "decode", "work", "all")
    ]
    return [(None, "idle"), *of_models]


def errors(case: Case) -> dict[Key, dict[str, Errors]]:
    """Run a case, and return how far off each method is in every part, after the hour of warm-up."""
    compared = measure(case)
    return {
        (server, part): {
            name: Errors(
                one.bias(*PARTS[part], server=server, since_seconds=WARM_UP_SECONDS),
                one.weighted_error(*PARTS[part], server=server, since_seconds=WARM_UP_SECONDS),
            )
            for name, one in compared.items()
        }
        for server, part in keys(case.scenario)
    }


def worst(found: list[Errors]) -> Errors:
    """Return the largest of several seeds; the bias keeps its sign."""
    biases = [one.bias for one in found]
    bias = math.nan if any(map(math.isnan, biases)) else max(biases, key=abs)
    return Errors(bias, max(one.weighted for one in found))


def misses(case: Case, found: Mapping[Key, Mapping[str, Errors]], method: str = OURS) -> list[str]:
    """Say what of a case's numbers is not reached; a number that cannot be told is not reached."""
    lines = []
    for (server, part), by_method in found.items():
        model = "" if server is None else f"{case.scenario.servers[server].model.split('/')[-1]}, "
        one = by_method[method]
        for value, wanted, what in (
            (abs(one.bias), case.wanted, "bias"),
            (one.weighted, case.wanted_weighted, "weighted error"),
        ):
            if part in wanted and not value <= wanted[part]:
                lines.append(f"{case.name}: {model}{part}: {what} {value:.1%}, wanted {wanted[part]:.0%}")
    return lines


def begun_at(scenario: Scenario, hour: float) -> Scenario:
    """Return the scenario with its days begun at that hour of theirs, for runs that last no day."""
    servers = []
    for server in scenario.servers:
        load = server.traffic.load
        later = replace(load, peak_hour=load.peak_hour - hour)
        servers.append(replace(server, traffic=replace(server.traffic, load=later)))
    return replace(scenario, servers=tuple(servers))
