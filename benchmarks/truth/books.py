"""A simulated run as joulemeter would meet it: readings of energy counters, and pages of servers."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.truth.kernel import REQUEST, REQUEST_WHOLE, SEEN, Floats, Wholes
from benchmarks.truth.run import Chunk, simulate
from benchmarks.truth.scenario import Scenario, Server
from benchmarks.truth.sensor import TICK_SECONDS
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.model import (
    EnergyReading,
    EnergySource,
    Gpu,
    Length,
    LengthReading,
    Moves,
    Observation,
    PageReading,
    Phase,
    Role,
    RoleReading,
    User,
)
from joulemeter.simulation.vllm_families import length_buckets

BEGIN_SECONDS = 1000.0
"""When a run begins on the books' clock."""
_IS_GAUGE = np.array([column in ("running", "waiting", "context") for column in SEEN])


@dataclass(frozen=True, slots=True)
class Style:
    """Which of an engine's counters a server shows, and when they move; and which lengths of finished requests."""

    dialect: str
    shows: tuple[tuple[Role, str, Moves | None], ...]
    has_phases: bool = True
    lengths: tuple[Length, ...] = ()
    at_most_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        unknown = [column for _, column, _ in self.shows if column not in SEEN]
        if unknown:
            raise ValueError(f"{self.dialect}: {unknown} is not seen; there are {', '.join(SEEN)}")

    def without(self, role: Role) -> "Style":
        """Return a server that does not show that."""
        return replace(self, shows=tuple(shown for shown in self.shows if shown[0] is not role))


_GAUGES = ((Role.RUNNING, "running", None), (Role.WAITING, "waiting", None))
_REQUESTS = (Role.REQUESTS, "requests", Moves.FINISH)

VLLM = Style(
    "vllm",
    (
        (Role.GENERATION, "generated", Moves.STEP),
        (Role.STEPS, "steps", Moves.STEP),
        (Role.PROMPT, "prompt_computed", Moves.FIRST_TOKEN),
        (Role.CACHED_PROMPT, "prompt_cached", Moves.FIRST_TOKEN),
        (Role.FIRST_TOKENS, "first_tokens", Moves.FIRST_TOKEN),
        (Role.CONTEXT, "context", None),
        _REQUESTS,
        *_GAUGES,
    ),
    lengths=tuple(Length),
    at_most_tokens=tuple(int(tokens) for tokens in length_buckets(131_072)),
)
LLAMACPP = Style(
    "llamacpp",
    (
        (Role.PROMPT, "prompt_computed", Moves.FIRST_TOKEN),
        (Role.CACHED_PROMPT, "admitted_cached", Moves.ADMISSION),
        (Role.GENERATION, "finished_generated", Moves.FINISH),
        (Role.LIVE_GENERATION, "live_generated", Moves.STEP),
        (Role.STEPS, "steps", Moves.STEP),
        (Role.CONTEXT, "context", None),
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
        (Role.FIRST_TOKENS, "first_tokens", Moves.FIRST_TOKEN),
        (Role.INTER_TOKEN_SECONDS, "inter_token_seconds", Moves.STEP),
        (Role.CONTEXT, "context", None),
        _REQUESTS,
        *_GAUGES,
    ),
    lengths=tuple(Length),
    at_most_tokens=(
        *(100, 300, 500, 700, 1000, 1500, *range(2000, 10_000, 1000), *range(10_000, 30_000, 2500)),
        *(30_000, 35_000, 40_000, 60_000, 80_000, 100_000, 200_000, 300_000, 400_000, 600_000, 800_000),
        *(1_000_000, 1_100_000),
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
    limit_watts = scenario.servers[0].physics.limit_watts / scenario.gpus
    max_power_watts = limit_watts if math.isfinite(limit_watts) else None
    return tuple(
        Gpu(index, f"GPU-{index}", "simulated", "580.95.05", EnergySource.COUNTER, max_power_watts)
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
    read_seconds: float = TICK_SECONDS,
    skew_seconds: float = 0.0,
    restarts: Sequence[tuple[float, int]] = (),
    requests: bool = False,
) -> Iterator[EnergyReading | Observation]:
    """Yield what the books of the scenario's node would be given, in the order of time.

    Args:
        scenario: what was run.
        chunks: what `simulate` yields for it.
        style: what the servers show.
        read_seconds: how often the counters are read, whole ticks; a reading comes half of that late, as the
            books take it. Long runs are faster with a second or two.
        skew_seconds: observations come up to so much earlier or later than they say.
        requests: whether pages have the style's histograms of finished requests, which the chunks must then hold.
        restarts: (seconds, server): its counters begin at 0 again, under another start time. What runs goes on.
    """
    boards = [gpu.uuid for gpu in gpus(scenario)]
    yield from (EnergyReading(uuid, 0.0, BEGIN_SECONDS) for uuid in boards)
    stride, late_seconds = round(read_seconds / TICK_SECONDS), read_seconds / 2
    ticks: deque[tuple[float, float]] = deque()
    counters = [
        _Restarting(sorted(at for at, which in restarts if which == i)) for i in range(len(scenario.servers))
    ]
    bounds = style.at_most_tokens if requests else ()
    finished = [_Histograms(i, style.lengths if requests else (), bounds) for i in range(len(counters))]
    for chunk in chunks:
        for histograms in finished:
            histograms.add(chunk)
        first = chunk.start_seconds
        ticks.extend(
            (first + read_seconds * (number + 1) + late_seconds, joules / scenario.gpus)
            for number, joules in enumerate(chunk.counter_joules[stride - 1 :: stride].tolist())
        )
        skews = np.random.default_rng([scenario.seed, 5, int(first)]).uniform(
            -skew_seconds, skew_seconds, len(chunk.seen_at_seconds)
        )
        for at, skew, rows in zip(chunk.seen_at_seconds.tolist(), skews.tolist(), chunk.seen, strict=True):
            while ticks and ticks[0][0] <= at:
                tick_at, joules = ticks.popleft()
                yield from (EnergyReading(uuid, joules, BEGIN_SECONDS + tick_at) for uuid in boards)
            for index, row in enumerate(rows):
                if not scenario.servers[index].loaded(at):
                    continue
                lives = counters[index].lives
                counted, life = counters[index].since_start(at, row)
                model = scenario.servers[index].model
                lengths = finished[index].shown(model, at, begins=life > lives)
                yield Observation(
                    server_name(index),
                    BEGIN_SECONDS + at + skew,
                    _page(style, model, counted.tolist(), life, lengths),
                )
    for tick_at, joules in ticks:
        yield from (EnergyReading(uuid, joules, BEGIN_SECONDS + tick_at) for uuid in boards)


PHASES = (Phase.PREFILL, Phase.DECODE, Phase.IDLE)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was booked, and what was so, up to the same instants: (instants, servers, `PHASES`), running totals.

    True idle energy is shared in equal parts by the servers that are there, as the books do it.
    """

    at_seconds: Floats
    booked_joules: Floats
    true_joules: Floats

    def bias(self, *phases: Phase, server: int | None = None, since_seconds: float = 0.0) -> float:
        """Return booked over true less one, of these phases together; NaN where there was nothing."""
        booked, true = (part.sum() for part in self._parts(phases, server, since_seconds))
        return float(booked / true - 1.0) if true else math.nan

    def weighted_error(self, *phases: Phase, server: int | None = None, since_seconds: float = 0.0) -> float:
        """Return the sum of what is wrong from instant to instant over the sum of what is true."""
        booked, true = self._parts(phases, server, since_seconds)
        return float(np.abs(booked - true).sum() / true.sum()) if true.sum() else math.nan

    def _parts(
        self, phases: tuple[Phase, ...], server: int | None, since_seconds: float
    ) -> tuple[Floats, Floats]:
        """Return booked and true joules between the instants."""
        columns = [PHASES.index(phase) for phase in phases]
        servers = slice(None) if server is None else slice(server, server + 1)
        begin = int(np.searchsorted(self.at_seconds, since_seconds))
        booked, true = (
            np.diff(part[begin:, servers][:, :, columns].sum(axis=(1, 2)))
            for part in (self.booked_joules, self.true_joules)
        )
        return booked, true


def keep_books(
    scenario: Scenario,
    books: Bookkeeper,
    style: Style = VLLM,
    *,
    compare_seconds: float = 60.0,
    read_seconds: float = TICK_SECONDS,
    skew_seconds: float = 0.0,
    requests: bool = False,
) -> Comparison:
    """Drive fresh books through a whole run, and compare what they settle with the truth of the same time."""
    boards = {gpu.uuid: gpu for gpu in gpus(scenario)}
    servers = {server_name(index): server for index, server in enumerate(scenario.servers)}
    for name, server in servers.items():
        if server.loaded(0.0):
            _expect(books, name, server, boards, BEGIN_SECONDS)
    truth: list[Floats] = []

    def noted() -> Iterator[Chunk]:
        for chunk in simulate(scenario, requests=requests):
            truth.append(_true_joules(scenario, chunk))
            yield chunk

    at_seconds, booked = [0.0], [_booked_joules(scenario, books)]
    events = to_books(
        scenario,
        noted(),
        style,
        read_seconds=read_seconds,
        skew_seconds=skew_seconds,
        requests=requests,
    )
    for event in events:
        if isinstance(event, EnergyReading):
            books.meter(boards[event.uuid], [event])
            continue
        _come_and_go(books, event, servers, boards)
        books.observe(event, has_phases=style.has_phases)
        later = list(servers)[list(servers).index(event.server) + 1 :]
        if not any(servers[name].loaded(event.at_seconds - BEGIN_SECONDS) for name in later):
            books.settle(event.at_seconds)
            settled = min(a.settled_until_seconds for a in books.gpus.values()) - BEGIN_SECONDS
            if settled >= at_seconds[-1] + compare_seconds:
                at_seconds.append(settled)
                booked.append(_booked_joules(scenario, books))
    totals = np.concatenate([np.zeros((1, *truth[0].shape[1:])), np.cumsum(np.concatenate(truth), axis=0)])
    edges = scenario.window_seconds * np.arange(len(totals))
    at = np.array(at_seconds)
    true = np.stack(
        [
            np.stack([np.interp(at, edges, totals[:, server, phase]) for phase in range(len(PHASES))], axis=1)
            for server in range(totals.shape[1])
        ],
        axis=1,
    )
    return Comparison(at, np.stack(booked), true)


def _expect(books: Bookkeeper, name: str, server: Server, boards: Iterable[str], now_seconds: float) -> None:
    books.expect_server(name, server.model, now_seconds, counts_tokens=True)
    books.own(name, frozenset(boards), now_seconds)


def _come_and_go(
    books: Bookkeeper, event: Observation, servers: Mapping[str, Server], boards: Iterable[str]
) -> None:
    """Tell the books of a server's first page, and that those which have gone use no GPU."""
    if event.server not in books.servers:
        _expect(books, event.server, servers[event.server], boards, event.at_seconds)
    for name in books.servers:
        if event.at_seconds - BEGIN_SECONDS >= servers[name].stops_seconds:
            books.own(name, frozenset(), event.at_seconds)


def _true_joules(scenario: Scenario, chunk: Chunk) -> Floats:
    at = chunk.start_seconds + chunk.window_seconds * (np.arange(len(chunk.idle_joules)) + 0.5)
    here = np.array([[server.loaded(one) for server in scenario.servers] for one in at.tolist()], float)
    idle = chunk.idle_joules[:, None] * here / np.maximum(1.0, here.sum(axis=1, keepdims=True))
    return np.stack([chunk.true("prefill_joules"), chunk.true("decode_joules"), idle], axis=2)


def _booked_joules(scenario: Scenario, books: Bookkeeper) -> Floats:
    users = [User(server_name(index), server.model) for index, server in enumerate(scenario.servers)]
    amounts = [[books.ledger.model.get((user, phase)) for phase in PHASES] for user in users]
    return np.array([[amount.energy_joules if amount else 0.0 for amount in row] for row in amounts])


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


_SIZES = [REQUEST_WHOLE.index(f"{name}_tokens") for name in ("prompt", "cached", "output")]


@dataclass(slots=True)
class _Histograms:
    """Lengths of one server's requests that finished since it last started."""

    server: int
    lengths: tuple[Length, ...]
    at_most_tokens: tuple[int, ...]
    _at_seconds: Floats = field(default_factory=lambda: np.empty(0))
    _sizes: Wholes = field(default_factory=lambda: np.empty((0, len(Length)), np.int64))
    _next: int = 0
    _counts: Wholes | None = None
    _tokens: Wholes | None = None

    def add(self, chunk: Chunk) -> None:
        """Take in what finished in a chunk, part of which may be seen in the next one only."""
        mine = chunk.requests_whole[:, REQUEST_WHOLE.index("server")] == self.server
        prompt, cached, output = chunk.requests_whole[mine][:, _SIZES].T
        columns = {Length.PROMPT: prompt, Length.COMPUTED_PROMPT: prompt - cached, Length.GENERATION: output}
        sizes = np.stack([columns[length] for length in Length], axis=1)
        at_seconds = chunk.requests[mine, REQUEST.index("finished_seconds")]
        self._at_seconds = np.concatenate([self._at_seconds[self._next :], at_seconds])
        self._sizes = np.concatenate([self._sizes[self._next :], sizes])
        self._next = 0

    def shown(self, model: str, at_seconds: float, *, begins: bool) -> tuple[LengthReading, ...]:
        """Return the histograms at an instant; `begins`: the server has just started again."""
        if not self.lengths:
            return ()
        if self._counts is None or self._tokens is None or begins:
            self._counts = np.zeros((len(Length), len(self.at_most_tokens) + 1), np.int64)
            self._tokens = np.zeros(len(Length), np.int64)
        until = int(np.searchsorted(self._at_seconds, at_seconds, side="right"))
        new, self._next = self._sizes[self._next : until], until
        if len(new) and not begins:  # what had finished before a start is not counted after it
            self._tokens += new.sum(axis=0)
            for row, sizes in enumerate(new.T):
                first = np.searchsorted(self.at_most_tokens, sizes)
                self._counts[row] += np.bincount(first, minlength=self._counts.shape[1])
        return tuple(
            LengthReading(length, model, "", self.at_most_tokens, tuple(counts), tokens)
            for length, counts, tokens in zip(
                Length, np.cumsum(self._counts, axis=1).tolist(), self._tokens.tolist(), strict=True
            )
            if length in self.lengths
        )


def _page(
    style: Style, model: str, row: list[float], life: int, lengths: tuple[LengthReading, ...]
) -> PageReading:
    readings = tuple(
        RoleReading(role, model, f"{role}/{model}", row[SEEN.index(column)], moves)
        for role, column, moves in style.shows
    )
    return PageReading(style.dialect, readings, float(life), lengths)
