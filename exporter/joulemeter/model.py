"""The nouns: frozen records of plain numbers with unit names, shared by every part.

Times called `at_seconds` are monotonic (CLOCK_MONOTONIC), never wall-clock: a clock that jumps moves no joule.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

# ---------------------------------------------------------------------------------------------- measure


class EnergySource(StrEnum):
    """Where a GPU's joules come from; the label `energy_source` of `joulemeter_gpu_info`."""

    COUNTER = "counter"
    POWER_INTEGRATION = "power_integration"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as first seen: `index` is its label for the daemon's life, `uuid` is what it comes back by."""

    index: int
    uuid: str
    product: str
    driver_version: str
    energy_source: EnergySource
    max_power_watts: float | None


@dataclass(frozen=True, slots=True)
class EnergyReading:
    """A GPU's energy counter at an instant (the midpoint of the call).

    `total_joules` is the hardware's own cumulative count; it may restart. `power_watts` is the board's draw
    when it was read in the same round, for the cross-check.
    """

    uuid: str
    total_joules: float
    at_seconds: float
    power_watts: float | None = None


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """The slow readings of one GPU; what cannot be read is None and absent from the page, never 0."""

    power_watts: float | None = None
    power_limit_watts: float | None = None
    utilization_ratio: float | None = None
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    temperature_celsius: float | None = None
    throttle_seconds: Mapping[str, float] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------- observe


class Role(StrEnum):
    """What a server's number means, whatever the server calls it. Tokens unless said otherwise."""

    PROMPT = "prompt"
    """Prompt tokens computed here: cache hits are not in it."""
    PROMPT_WITH_CACHED = "prompt_with_cached"
    """Prompt tokens, cache hits included, where the server has no counter of computed ones."""
    CACHED_PROMPT = "cached_prompt"
    """Prompt tokens that a prefix cache or a transfer saved."""
    GENERATION = "generation"
    """Generated tokens, exact, first token included."""
    LIVE_GENERATION = "live_generation"
    """Generated tokens as they are made, approximate, where GENERATION moves only at a request's end."""
    REQUESTS = "requests"
    """Finished requests."""
    STEPS = "steps"
    """Engine steps (forward passes)."""
    FIRST_TOKENS = "first_tokens"
    """Requests whose prefill is done."""
    INTER_TOKEN_SECONDS = "inter_token_seconds"  # noqa: S105 - a duration, not a secret
    """Seconds from each generated token but the first to the one before, summed over tokens."""
    PREFILL_SECONDS = "prefill_seconds"
    """Time of engine steps that computed prompts, as the engine measured it."""
    DECODE_SECONDS = "decode_seconds"
    """Time of engine steps that decoded, as the engine measured it."""
    RUNNING = "running"
    """Requests in the batch now (a gauge)."""
    WAITING = "waiting"
    """Requests queued now (a gauge)."""
    CONTEXT = "context"
    """Tokens that the running requests keep in the KV cache now (a gauge)."""


GAUGES = frozenset({Role.RUNNING, Role.WAITING, Role.CONTEXT})


class Moves(StrEnum):
    """When a counter moves, which decides how its increase may be laid over time."""

    STEP = "step"
    """With the work, every engine step."""
    FIRST_TOKEN = "first_token"  # noqa: S105 - a moment, not a secret
    """Once per request, when its prefill is complete."""
    FINISH = "finish"
    """Once per request, at its end: the work lies in the past."""
    ADMISSION = "admission"
    """Once per request, before its work begins."""


@dataclass(frozen=True, slots=True)
class RoleReading:
    """One series of a server's page at the instant it was asked.

    `series` identifies the series across pages (name and labels), so that increases are taken per series and
    summed afterwards; `value` is finite and >= 0. Gauges (`role in GAUGES`) have no `moves`.
    """

    role: Role
    model: str
    series: str
    value: float
    moves: Moves | None


class Length(StrEnum):
    """A length of finished requests that a server keeps a histogram of, in tokens."""

    PROMPT = "prompt"
    """The whole prompt, cache hits included."""
    COMPUTED_PROMPT = "computed_prompt"
    """What of it was computed."""
    GENERATION = "generation"
    """Generated tokens, first token included."""


@dataclass(frozen=True, slots=True)
class LengthReading:
    """One histogram of finished requests' lengths at the instant the server was asked.

    `series` identifies the engine across pages and is the same for each of its lengths. `counts` are cumulative:
    requests of at most so many tokens, then all of them; they never fall along the histogram.
    """

    length: Length
    model: str
    series: str
    at_most_tokens: tuple[int, ...]
    counts: tuple[int, ...]
    sum_tokens: int


@dataclass(frozen=True, slots=True)
class PageReading:
    """A server's page, understood.

    `model` is "" in readings of a server that does not name its model. `start_time_seconds` is the server
    process's own start (Unix time) where it tells; a change of it is a restart.
    """

    dialect: str
    readings: tuple[RoleReading, ...]
    start_time_seconds: float | None = None
    lengths: tuple[LengthReading, ...] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """A page with the midpoint of its request, and the name of the server that was asked."""

    server: str
    at_seconds: float
    page: PageReading


# ---------------------------------------------------------------------------------------------- attribute


class User(NamedTuple):
    """A model loaded by a server: who can have used a GPU."""

    server: str
    model: str


class Pod(NamedTuple):
    """Where a server runs in Kubernetes; `uid` tells a pod from one of the same name before it."""

    namespace: str
    name: str
    uid: str = ""


class Phase(StrEnum):
    """What the energy went into; UNSPLIT where prefill and decode cannot be told apart."""

    PREFILL = "prefill"
    DECODE = "decode"
    IDLE = "idle"
    UNSPLIT = "unsplit"


# ---------------------------------------------------------------------------------------------- account


@dataclass(frozen=True, slots=True)
class Amount:
    """Energy with what was priced on it when it was measured; travels as one through the ledger.

    Costs are in the daemon's one currency. `electricity_cost` is never negative: what a negative price gave back
    is `energy_credit`. `compute_cost` is the price of the GPU's time that this energy took.
    """

    energy_joules: float = 0.0
    co2e_grams: float = 0.0
    electricity_cost: float = 0.0
    compute_cost: float = 0.0
    energy_credit: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            self.energy_joules + other.energy_joules,
            self.co2e_grams + other.co2e_grams,
            self.electricity_cost + other.electricity_cost,
            self.compute_cost + other.compute_cost,
            self.energy_credit + other.energy_credit,
        )

    def __sub__(self, other: "Amount") -> "Amount":
        return self + other.scaled(-1.0)

    def scaled(self, ratio: float) -> "Amount":
        """Return `ratio` of it."""
        return Amount(
            self.energy_joules * ratio,
            self.co2e_grams * ratio,
            self.electricity_cost * ratio,
            self.compute_cost * ratio,
            self.energy_credit * ratio,
        )


NOTHING: Final = Amount()


# ---------------------------------------------------------------------------------------------- the grid


class GridQuality(StrEnum):
    """How well an intensity is known; the label `quality` of `joulemeter_grid_quality`."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    """The source has made it up from other hours or zones; it may still revise it."""
    FORECAST = "forecast"
    """It was said before the time it is for."""
    STALE = "stale"
    """Of an earlier time, for nothing newer is known."""
    STATIC = "static"
    """It does not follow the grid: an annual average, or the operator's own number."""


class Signal(StrEnum):
    """What an intensity is of; the label `signal`."""

    AVERAGE = "average"
    """All power of the zone: what emissions are accounted with."""
    MARGINAL = "marginal"
    """The next kWh: shown, never accounted."""


@dataclass(frozen=True, slots=True)
class GridOrigin:
    """Where an intensity comes from and what it means; the labels of `joulemeter_grid_info`.

    `factor` is lifecycle or direct, `boundary` production or consumption (imports included), or what the source says.
    """

    source: str
    factor: str
    boundary: str
    granularity: str
    dataset: str


@dataclass(frozen=True, slots=True)
class GridInterval:
    """How dirty the power is from `begin_timestamp_seconds` (Unix time) on, for `duration_seconds`."""

    begin_timestamp_seconds: float
    duration_seconds: float
    intensity_grams_per_kwh: float
    quality: GridQuality
    origin: GridOrigin


@dataclass(frozen=True, slots=True)
class GridAnswer:
    """What a source answered: intervals oldest first, without overlap, past and to come; shares of the power of now."""

    intervals: tuple[GridInterval, ...]
    renewable_ratio: float | None = None
    carbon_free_ratio: float | None = None
