"""What is simulated: servers on one set of GPUs, their traffic, what changes on the way, and the sensor."""

import math
from dataclasses import dataclass, field

from benchmarks.truth.sensor import Sensor
from benchmarks.truth.traffic import Traffic
from joulemeter.simulation.engine import Limits, Speculation
from joulemeter.simulation.pairs import MODELS
from joulemeter.simulation.physics import Coefficients


@dataclass(frozen=True, slots=True)
class Server:
    """One engine. `coefficients` replaces the pair's own, for a pair that is in no table.

    It answers, and has its model loaded, from `starts_seconds` to `stops_seconds`; keep its traffic within.
    """

    model: str
    traffic: Traffic
    limits: Limits = field(default_factory=Limits)
    speculation: Speculation = field(default_factory=Speculation)
    coefficients: Coefficients | None = None
    starts_seconds: float = 0.0
    stops_seconds: float = math.inf

    def __post_init__(self) -> None:
        if self.coefficients is None and self.model not in MODELS:
            raise ValueError(f"model {self.model!r}: give coefficients, or one of {', '.join(MODELS)}")
        most = self.limits.max_sequences * (1 + self.speculation.draft_tokens)
        if most > self.limits.max_step_tokens:
            raise ValueError(
                f"{self.model}: {most} drafted tokens in a step of {self.limits.max_step_tokens};"
                " raise max_step_tokens"
            )

    def loaded(self, at_seconds: float) -> bool:
        """Whether it is there at an instant."""
        return self.starts_seconds <= at_seconds < self.stops_seconds

    @property
    def physics(self) -> Coefficients:
        """Coefficients as long as nothing changes."""
        own = MODELS[self.model].coefficients if self.coefficients is None else self.coefficients
        drafts = self.speculation.draft_tokens
        return own.speculating(drafts) if drafts else own


@dataclass(frozen=True, slots=True)
class Change:
    """From then on one server's engine is worse (see `Coefficients.regressed`), or a limit another.

    It replaces what an earlier change of the same server did.
    """

    at_seconds: float
    server: int = 0
    decode_power: float = 0.0
    step_time: float = 0.0
    limit_watts: float | None = None
    """Of all the GPUs together; holds for all servers."""
    max_sequences: int | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """Servers that share one set of GPUs, step by step in turn.

    `idle_watts` is what the GPUs draw together while no step runs, all the models' contexts loaded.
    """

    servers: tuple[Server, ...]
    seconds: float
    seed: int = 0
    gpus: int = 1
    idle_watts: float = 120.0
    changes: tuple[Change, ...] = ()
    sensor: Sensor = field(default_factory=Sensor)
    window_seconds: float = 10.0
    observe_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name in ("window_seconds", "observe_seconds"):
            value = getattr(self, name)
            if value <= 0 or 3600 % value:
                raise ValueError(f"{name}={value}: must divide an hour")
            if self.seconds <= 0 or self.seconds % value:
                raise ValueError(f"seconds={self.seconds}: must be a multiple of {name}={value}, and > 0")
        if not self.servers:
            raise ValueError("servers: a scenario needs one")
        if any(not 0 <= change.server < len(self.servers) for change in self.changes):
            raise ValueError(f"changes: server must be one of 0 to {len(self.servers) - 1}")


def served(model: str, traffic: Traffic, seconds: float, *, seed: int = 0) -> Scenario:
    """Return the usual scenario: one server of a known pair on its own GPUs."""
    pair = MODELS[model]
    return Scenario((Server(model, traffic),), seconds, seed, pair.gpus, pair.idle_watts)
