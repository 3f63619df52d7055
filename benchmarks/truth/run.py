"""The offline run: a scenario in, chunks of an hour out, a few thousand to a million times faster than real time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.truth import kernel
from benchmarks.truth.kernel import Floats, Wholes
from benchmarks.truth.scenario import Change, Scenario
from benchmarks.truth.sensor import TICK_SECONDS, Counter
from benchmarks.truth.traffic import HOUR_SECONDS, Source
from joulemeter.simulation.engine import Limits
from joulemeter.simulation.physics import Coefficients


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a run. Arrays are by time, then by server in the scenario's order.

    Attributes:
        start_seconds: of this stretch, since the run began.
        counter_joules: the GPUs' energy counters together, as read after each tick of 100 ms.
        tick_joules: the truth of the same ticks.
        idle_joules: truth per window: energy while no engine step ran.
        truth: (windows, servers, columns of `kernel.TRUTH`). prefill_joules and decode_joules: Shapley parts, all
            energy of steps, busy floor included; busy_seconds: in steps. A step on the border of two windows
            is in both by time; what follows is in the window in which it ends. reference_*: what the
            same steps would have cost without the scenario's changes. steps: engine steps, all;
            prefill_tokens: computed prompt tokens, of unfinished prompts too; read_tokens: context read.
        seen_at_seconds: the instants of observation.
        seen: (instants, servers, columns of `kernel.SEEN`): what a server could show, since the run began.
            steps: those that made a token; generated: moves each step; prompt_*, first_tokens: at the first token;
            requests, finished_*: at the end; running, waiting, context (tokens of running requests): now;
            live_generated: one per running request and step; admitted_cached: hits, at admission;
            inter_token_seconds: summed over decode steps and their sequences; prefill_tokens: computed, moves
            each step.
        requests_whole, requests: requests that finished, columns of `kernel.REQUEST_WHOLE` and `kernel.REQUEST`,
            in order of finishing; joules: in each step the floor shared equally, the rest by what each
            adds. Empty unless asked for.
    """

    start_seconds: float
    window_seconds: float
    counter_joules: Floats
    tick_joules: Floats
    idle_joules: Floats
    truth: Floats
    seen_at_seconds: Floats
    seen: Floats
    requests_whole: Wholes
    requests: Floats

    def true(self, column: str) -> Floats:
        """Return a column of the truth: (windows, servers)."""
        picked: Floats = self.truth[:, :, kernel.TRUTH.index(column)]
        return picked

    def showed(self, column: str) -> Floats:
        """Return a column of what was seen: (instants, servers)."""
        picked: Floats = self.seen[:, :, kernel.SEEN.index(column)]
        return picked


def simulate(scenario: Scenario, *, requests: bool = False, chunk_hours: int = 1) -> Iterator[Chunk]:
    """Run a scenario and yield it in chunks; memory is bounded by a chunk, whatever the run's length.

    Args:
        scenario: what to run. The same scenario gives the same numbers, in chunks of any length.
        requests: whether to note every finished request with its energy.
        chunk_hours: length of a chunk.

    Conserves:
        In every window, idle + prefill + decode joules of all servers == the joules of its ticks, to 1e-9.
    """
    machine = Machine(scenario, keep_requests=requests)
    hour = 0
    while hour * HOUR_SECONDS < scenario.seconds:
        until = min(float((hour + chunk_hours) * HOUR_SECONDS), float(scenario.seconds))
        yield machine.run(hour, until)
        hour += chunk_hours


def run(scenario: Scenario, *, requests: bool = False) -> Chunk:
    """Run a scenario and return all of it as one chunk.

    Four weeks take 1.1 GB at ten-second observations, 2.4 GB with nine million requests.
    """
    chunks = list(simulate(scenario, requests=requests))
    joined = {
        name: np.concatenate([getattr(chunk, name) for chunk in chunks])
        for name in Chunk.__dataclass_fields__
        if name not in ("start_seconds", "window_seconds")
    }
    return Chunk(0.0, scenario.window_seconds, **joined)


class Machine:
    """The state of a run between two chunks, in the arrays that the kernel works on."""

    def __init__(self, scenario: Scenario, *, keep_requests: bool) -> None:
        self._scenario = scenario
        self._keep_requests = keep_requests
        self._sources = [
            Source(server.traffic, scenario.seed * 1000 + index)
            for index, server in enumerate(scenario.servers)
        ]
        engines = len(scenario.servers)
        self._change_at, groups = _groups(scenario)
        slots = max(limits.max_sequences for group in groups for _, limits in group) + 1
        flats = [[one.flat() for one, _ in group] for group in groups]
        width = max(len(flat) for group in flats for flat in group)
        self._coefficients = np.array(
            [[(*flat, *([0.0] * (width - len(flat)))) for flat in group] for group in flats]
        )
        self._parts = np.array([[parts(one) for one, _ in group] for group in groups])
        self._limits = np.array(
            [
                [
                    (
                        limits.max_sequences,
                        limits.max_step_tokens,
                        server.speculation.draft_tokens,
                        server.speculation.seed,
                    )
                    for server, (_, limits) in zip(scenario.servers, group, strict=True)
                ]
                for group in groups
            ],
            np.int64,
        )
        self._acceptance = np.array([s.speculation.acceptance_ratio for s in scenario.servers])
        counts = np.zeros((engines, kernel.ENGINE_COLUMNS), np.int64)
        counts[:, kernel.NEXT_DONE] = kernel.FAR
        self._state = kernel.State(
            clock=np.zeros(1),
            indices=np.zeros(3, np.int64),
            position=np.zeros(engines, np.int64),
            counts=counts,
            sums=np.zeros((engines, kernel.SUM_COLUMNS)),
            whole=np.zeros((engines, slots, kernel.SEQUENCE_WHOLE_COLUMNS), np.int64),
            numbers=np.zeros((engines, slots, kernel.SEQUENCE_COLUMNS)),
            counters=np.zeros((engines, len(kernel.SEEN))),
        )
        self._queues: list[tuple[Floats, Wholes]] = [
            (np.empty(0), np.empty((0, 3), np.int64)) for _ in range(engines)
        ]
        self._bin_seconds = TICK_SECONDS / scenario.sensor.bins_per_tick
        self._bins_per_window = round(scenario.window_seconds / self._bin_seconds)
        self._over: tuple[Floats, Floats, Floats, Floats] | None = None
        self._counter = Counter(scenario.sensor)

    def run(self, hour: int, until: float) -> Chunk:
        """Run from the end of the last chunk, which is the beginning of this hour, until then."""
        start = float(hour * HOUR_SECONDS)
        scenario = self._scenario
        windows = math.ceil((until - start) / scenario.window_seconds)
        bins = windows * self._bins_per_window
        instants = math.ceil((until - start) / scenario.observe_seconds)
        plan = self._plan(hour, until)
        active, busy, truth, seen = (
            np.concatenate([over, np.zeros((length, *over.shape[1:]))])
            for over, length in zip(self._over or self._empty(), (bins, bins, windows, instants), strict=True)
        )
        slots = self._state.whole.shape[0] * self._state.whole.shape[1]
        room = len(plan.arrived_at) + slots if self._keep_requests else 0
        requests_whole = np.empty((room, len(kernel.REQUEST_WHOLE)), np.int64)
        requests = np.empty((room, len(kernel.REQUEST)))
        finished = kernel.advance(
            until, plan, self._state, kernel.Out(active, busy, truth, seen, requests_whole, requests)
        )
        if finished < 0:
            raise ValueError(
                f"an engine step takes longer than {kernel.PAD_SECONDS:g} s; check the coefficients"
            )
        self._queues = [
            (plan.arrived_at[begin:end], plan.sizes[begin:end])
            for begin, end in zip(self._state.position, plan.ends, strict=True)
        ]
        self._over = (active[bins:], busy[bins:], truth[windows:], seen[instants:])
        idle = scenario.idle_watts * np.maximum(0.0, self._bin_seconds - busy[:bins])
        joules = active[:bins] + idle
        finished = finished if self._keep_requests else 0
        first_tick = round(start / TICK_SECONDS)
        return Chunk(
            start_seconds=start,
            window_seconds=scenario.window_seconds,
            counter_joules=self._counter.count(joules, first_tick),
            tick_joules=joules.reshape(-1, scenario.sensor.bins_per_tick).sum(axis=1),
            idle_joules=idle.reshape(windows, -1).sum(axis=1),
            truth=truth[:windows],
            seen_at_seconds=start + scenario.observe_seconds * np.arange(instants, dtype=np.float64),
            seen=seen[:instants],
            requests_whole=requests_whole[:finished],
            requests=requests[:finished],
        )

    def _empty(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return room for what a step that begins in a chunk does beyond its end."""
        engines, pad = len(self._scenario.servers), kernel.PAD_SECONDS
        windows = int(pad / self._scenario.window_seconds) + 2
        bins = windows * self._bins_per_window
        instants = int(pad / self._scenario.observe_seconds) + 2
        return (
            np.zeros(bins),
            np.zeros(bins),
            np.zeros((windows, engines, len(kernel.TRUTH))),
            np.zeros((instants, engines, len(kernel.SEEN))),
        )

    def _plan(self, hour: int, until: float) -> kernel.Plan:
        """Lay out the next stretch: what is still queued, and the arrivals of its hours."""
        hours = range(hour, math.ceil(until / HOUR_SECONDS))
        at: list[Floats] = []
        sizes: list[Wholes] = []
        ends = [0]
        for source, queue in zip(self._sources, self._queues, strict=True):
            drawn = [queue, *(source.hour(one) for one in hours)]
            at += [times for times, _ in drawn]
            sizes += [rows for _, rows in drawn]
            ends.append(ends[-1] + sum(len(times) for times, _ in drawn))
        self._state.position[:] = ends[:-1]
        self._state.counts[:, kernel.SUBMITTED] = ends[:-1]
        start = hour * HOUR_SECONDS
        return kernel.Plan(
            bin_seconds=self._bin_seconds,
            observe_seconds=self._scenario.observe_seconds,
            first_bin=round(start / self._bin_seconds),
            bins_per_window=self._bins_per_window,
            first_seen=round(start / self._scenario.observe_seconds),
            coefficients=self._coefficients,
            parts=self._parts,
            change_at=self._change_at,
            limits=self._limits,
            acceptance=self._acceptance,
            arrived_at=np.concatenate(at),
            sizes=np.concatenate(sizes),
            ends=np.array(ends[1:], np.int64),
        )


def _groups(scenario: Scenario) -> tuple[Floats, list[list[tuple[Coefficients, Limits]]]]:
    """Return the times of the changes and, from each time on, every server's coefficients and limits."""
    times = sorted({0.0, *(change.at_seconds for change in scenario.changes)})
    ordered = sorted(scenario.changes, key=lambda change: change.at_seconds)
    groups = []
    for time in times:
        past = [change for change in ordered if change.at_seconds <= time]
        watts = next((c.limit_watts for c in reversed(past) if c.limit_watts is not None), None)
        group = []
        for index, before in enumerate(scenario.servers):
            server = before
            own = next((c for c in reversed(past) if c.server == index), Change(0.0))
            worse = server.physics.regressed(decode_power=own.decode_power, step_time=own.step_time)
            if own.max_sequences is not None:  # a server checks its limits
                server = replace(server, limits=replace(server.limits, max_sequences=own.max_sequences))
            group.append((worse if watts is None else replace(worse, limit_watts=watts), server.limits))
        groups.append(group)
    return np.array(times), groups


def parts(one: Coefficients) -> tuple[float, float, float, float, float]:
    """Return joules of a step's floor, per sequence, context token and prompt token, and of the floor alone."""
    factor = one.decode_joules_factor
    floor = one.busy_watts * one.step_seconds
    return (
        floor * factor,
        (one.busy_watts * one.sequence_seconds + one.decode_token_joules) * factor,
        (one.busy_watts * one.context_token_seconds + one.context_token_joules) * factor,
        one.busy_watts * one.prefill_token_seconds + one.prefill_token_joules,
        floor,
    )
