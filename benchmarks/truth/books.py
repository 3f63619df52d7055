"""A simulated run as joulemeter would meet it: readings of energy counters, and pages of servers."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.truth.kernel import SEEN, Floats
from benchmarks.truth.run import Chunk, simulate
from benchmarks.truth.scenario import Scenario
from benchmarks.truth.sensor import TICK_SECONDS
from joulemeter.attribution import Phase, User
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.model import (
    EnergyReading,
    EnergySource,
    Gpu,
    Moves,
    Observation,
    PageReading,
    Role,
    RoleReading,
)

BEGIN_SECONDS = 1000.0
"""When a run begins on the books' clock."""
_IS_GAUGE = np.array([column in ("running", "waiting", "context") for column in SEEN])
_READ_LATE_SECONDS = 0.05  # a poll every 50 to 100 ms sees a tick half a gap late; the books know that


@dataclass(frozen=True, slots=True)
class Style:
    """Which of an engine's counters a server shows, and when they move."""

    dialect: str
    shows: tuple[tuple[Role, str, Moves | None], ...]
    has_phases: bool = True

    def __post_init__(self) -> None:
        unknown = [column for _, column, _ in self.shows if column not in SEEN]
        if unknown:
            raise ValueError(f"{self.dialect}: {unknown} is not seen; there are {', '.join(SEEN)}")

    def without(self, role: Role) -> "Style":
        """Return a server that does not show that."""
        kept = tuple(shown for shown in self.shows if shown[0] is not role)
        return Style(self.dialect, kept, self.has_phases)


_GAUGES = ((Role.RUNNING, "running", None), (Role.WAITING, "waiting", None))
_REQUESTS = (Role.REQUESTS, "requests", Moves.FINISH)

VLLM = Style(
    "vllm",
    (
        (Role.GENERATION, "generated", Moves.STEP),
        (Role.STEPS, "steps", Moves.STEP),
        (Role.PROMPT, "prompt_computed", Moves.FIRST_TOKEN),
        (Role.CACHED_PROMPT, "prompt_cached", Moves.FIRST_TOKEN),
        _REQUESTS,
        *_GAUGES,
    ),
)
LLAMACPP = Style(
    "llamacpp",
    (
        (Role.PROMPT, "prompt_computed", Moves.FIRST_TOKEN),
        (Role.CACHED_PROMPT, "admitted_cached", Moves.ADMISSION),
        (Role.GENERATION, "finished_generated", Moves.FINISH),
        (Role.LIVE_GENERATION, "live_generated", Moves.STEP),
        (Role.STEPS, "steps", Moves.STEP),
        *_GAUGES,
    ),
)
SGLANG = Style(
    "sglang",
    (
        (Role.PROMPT, "prefill_tokens", Moves.STEP),
        (Role.CACHED_PROMPT, "admitted_cached", Moves.STEP),
        (Role.GENERATION, "finished_generated", Moves.FINISH),
        (Role.LIVE_GENERATION, "generated", Moves.STEP),
        _REQUESTS,
        *_GAUGES,
    ),
)
AT_FINISH = Style(
    "generic",
    (
        (Role.PROMPT, "finished_prompt", Moves.FINISH),
        (Role.CACHED_PROMPT, "finished_cached", Moves.FINISH),
        (Role.GENERATION, "finished_generated", Moves.FINISH),
        _REQUESTS,
        *_GAUGES,
    ),
)
"""Tells nothing before a request ends."""


def gpus(scenario: Scenario) -> tuple[Gpu, ...]:
    """Return the scenario's GPUs; they share its energy equally."""
    return tuple(
        Gpu(index, f"GPU-{index}", "NVIDIA H100 80GB HBM3", "580.95.05", EnergySource.COUNTER, 700.0)
        for index in range(scenario.gpus)
    )


def server_name(index: int) -> str:
    """Return what the books call a scenario's server."""
    return f"server-{index}"


def to_books(
    scenario: Scenario,
    chunks: Iterable[Chunk],
    style: Style = VLLM,
    *,
    skew_seconds: float = 0.0,
    restarts: Sequence[tuple[float, int]] = (),
) -> Iterator[EnergyReading | Observation]:
    """Yield what the books of the scenario's node would be given, in the order of time.

    Args:
        scenario: what was run.
        chunks: what `simulate` yields for it.
        style: what the servers show.
        skew_seconds: observations come up to so much earlier or later than they say.
        restarts: (seconds, server): its counters begin at 0 again, under another start time. What runs goes on.
    """
    boards = [gpu.uuid for gpu in gpus(scenario)]
    yield from (EnergyReading(uuid, 0.0, BEGIN_SECONDS) for uuid in boards)
    ticks: deque[tuple[float, float]] = deque()
    counters = [
        _Restarting(sorted(at for at, which in restarts if which == i)) for i in range(len(scenario.servers))
    ]
    for chunk in chunks:
        first = chunk.start_seconds
        ticks.extend(
            (first + TICK_SECONDS * (tick + 1) + _READ_LATE_SECONDS, joules / scenario.gpus)
            for tick, joules in enumerate(chunk.counter_joules.tolist())
        )
        skews = np.random.default_rng([scenario.seed, 5, int(first)]).uniform(
            -skew_seconds, skew_seconds, len(chunk.seen_at_seconds)
        )
        for at, skew, rows in zip(chunk.seen_at_seconds.tolist(), skews.tolist(), chunk.seen, strict=True):
            while ticks and ticks[0][0] <= at:
                tick_at, joules = ticks.popleft()
                yield from (EnergyReading(uuid, joules, BEGIN_SECONDS + tick_at) for uuid in boards)
            for index, row in enumerate(rows):
                counted, life = counters[index].since_start(at, row)
                yield Observation(
                    server_name(index),
                    BEGIN_SECONDS + at + skew,
                    _page(style, scenario.servers[index].model, counted.tolist(), life),
                )
    for tick_at, joules in ticks:
        yield from (EnergyReading(uuid, joules, BEGIN_SECONDS + tick_at) for uuid in boards)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was booked, and what was so, in the same windows: joules by server and phase."""

    booked_joules: dict[tuple[str, Phase], float]
    true_joules: dict[tuple[str, Phase], float]

    def bias(self, phase: Phase) -> float:
        """Return booked over true less one, all servers together; NaN where nothing was."""
        booked, true = (
            math.fsum(joules for (_, which), joules in part.items() if which is phase)
            for part in (self.booked_joules, self.true_joules)
        )
        return booked / true - 1.0 if true else math.nan

    def model_bias(self, index: int) -> float:
        """Return the same for what a server did itself, idle left out."""
        booked, true = (
            math.fsum(part[server_name(index), phase] for phase in (Phase.PREFILL, Phase.DECODE))
            for part in (self.booked_joules, self.true_joules)
        )
        return booked / true - 1.0 if true else math.nan


def keep_books(
    scenario: Scenario, books: Bookkeeper, style: Style = VLLM, *, skew_seconds: float = 0.0
) -> Comparison:
    """Drive the books through a whole run, and compare what they have settled with the truth of that time.

    True idle energy is shared by the servers in equal parts, as the books do it.
    """
    boards = {gpu.uuid: gpu for gpu in gpus(scenario)}
    for index, server in enumerate(scenario.servers):
        books.expect_server(server_name(index), server.model, BEGIN_SECONDS, counts_tokens=True)
        books.own(server_name(index), frozenset(boards), BEGIN_SECONDS)
    kept: list[Chunk] = []

    def noted() -> Iterator[Chunk]:
        for chunk in simulate(scenario):
            kept.append(chunk)
            yield chunk

    for event in to_books(scenario, noted(), style, skew_seconds=skew_seconds):
        if isinstance(event, EnergyReading):
            books.meter(boards[event.uuid], [event])
            continue
        books.observe(event, has_phases=style.has_phases)
        if event.server == server_name(len(scenario.servers) - 1):
            books.settle(event.at_seconds)
    books.settle(BEGIN_SECONDS + scenario.seconds)
    settled_until = min(account.settled_until_seconds for account in books.gpus.values()) - BEGIN_SECONDS
    return _compare(scenario, books, kept, round(settled_until / scenario.window_seconds))


def _compare(scenario: Scenario, books: Bookkeeper, chunks: list[Chunk], windows: int) -> Comparison:
    booked, true = {}, {}
    idle_joules = float(np.concatenate([chunk.idle_joules for chunk in chunks])[:windows].sum())
    for index, server in enumerate(scenario.servers):
        name = server_name(index)
        for phase, column in ((Phase.PREFILL, "prefill_joules"), (Phase.DECODE, "decode_joules")):
            joules = np.concatenate([chunk.true(column)[:, index] for chunk in chunks])
            true[name, phase] = float(joules[:windows].sum())
        true[name, Phase.IDLE] = idle_joules / len(scenario.servers)
        for phase in (Phase.PREFILL, Phase.DECODE, Phase.IDLE):
            amount = books.ledger.model.get((User(name, server.model), phase))
            booked[name, phase] = amount.energy_joules if amount else 0.0
    return Comparison(booked, true)


@dataclass(slots=True)
class _Restarting:
    """A server's counters since it last started."""

    due_seconds: list[float]
    lives: int = 1
    before: Floats | None = None

    def since_start(self, at_seconds: float, row: Floats) -> tuple[Floats, int]:
        """Return what it shows at an instant, and which of its lives it is in."""
        while self.due_seconds and self.due_seconds[0] <= at_seconds:
            self.due_seconds.pop(0)
            self.lives += 1
            self.before = np.where(_IS_GAUGE, 0.0, row)
        return row if self.before is None else row - self.before, self.lives


def _page(style: Style, model: str, row: list[float], life: int) -> PageReading:
    readings = tuple(
        RoleReading(role, model, f"{role}/{model}", row[SEEN.index(column)], moves)
        for role, column, moves in style.shows
    )
    return PageReading(style.dialect, readings, float(life))
