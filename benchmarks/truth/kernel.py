"""The engine of `joulemeter.simulation.engine`, compiled: the same batching rules and the very same physics.

A sequence is not touched at every step. All sequences of an engine make the same tokens in a decode step, so one
count of tokens per engine and the count at which each sequence is done are enough; energy of single
requests comes from running sums in the same way. tests/test_truth.py holds it against the engine, step by step.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.truth.compiled import compiled
from joulemeter.simulation import engine, physics

SEEN: Final = (
    "steps",
    "generated",
    "prompt_computed",
    "prompt_cached",
    "requests",
    "finished_prompt",
    "finished_cached",
    "finished_generated",
    "running",
    "waiting",
    "context",
    "live_generated",
    "admitted_cached",
    "inter_token_seconds",
    "prefill_tokens",
    "first_tokens",
)
"""What can be seen of an engine at an instant; the meaning of each is in `run.Chunk`."""
(
    _STEPS,
    _GENERATED,
    _PROMPT_COMPUTED,
    _PROMPT_CACHED,
    _REQUESTS,
    _FINISHED_PROMPT,
    _FINISHED_CACHED,
    _FINISHED_GENERATED,
    _RUNNING,
    _WAITING,
    _CONTEXT,
    _LIVE_GENERATED,
    _ADMITTED_CACHED,
    _INTER_TOKEN_SECONDS,
    _PREFILLED,
    _FIRST_TOKENS,
) = range(len(SEEN))

TRUTH: Final = (
    "prefill_joules",
    "decode_joules",
    "busy_seconds",
    "reference_joules",
    "reference_seconds",
    "steps",
    "prefill_tokens",
    "generated_tokens",
    "read_tokens",
)
"""What an engine did in a window; the meaning of each is in `run.Chunk`."""
(
    _PREFILL_JOULES,
    _DECODE_JOULES,
    _BUSY_SECONDS,
    _REFERENCE_JOULES,
    _REFERENCE_SECONDS,
    _ALL_STEPS,
    _PREFILL_TOKENS,
    _GENERATED_TOKENS,
    _READ_TOKENS,
) = range(len(TRUTH))

# One engine's whole numbers, its sums, a sequence's whole numbers and numbers.
ENGINE_COLUMNS: Final = 10
(
    _N,
    _EMITTED,
    NEXT_DONE,
    _DECODE_STEPS,
    _CONTEXT_NOW,
    _PART,  # prompt tokens still to compute of the one prompt that is being computed in chunks
    _PART_PROMPT,
    _PART_CACHED,
    _PART_OUTPUT,
    SUBMITTED,
) = range(ENGINE_COLUMNS)
SUM_COLUMNS: Final = 6
(_SUM_SHARE, _SUM_READ, _SUM_READ_AT, _LAST_END, _PART_ARRIVED, _PART_JOULES) = range(SUM_COLUMNS)
SEQUENCE_WHOLE_COLUMNS: Final = 5
(_DONE_AT, _PROMPT, _CACHED, _OUTPUT, _CHUNK) = range(SEQUENCE_WHOLE_COLUMNS)
SEQUENCE_COLUMNS: Final = 6
(_ARRIVED, _FIRST_TOKEN, _PREFILLED_JOULES, _SHARE_0, _READ_0, _READ_AT_0) = range(SEQUENCE_COLUMNS)

REQUEST_WHOLE: Final = ("server", "prompt_tokens", "cached_tokens", "output_tokens")
REQUEST: Final = (
    "arrived_seconds",
    "first_token_seconds",
    "finished_seconds",
    "prefill_joules",
    "decode_joules",
)

PAD_SECONDS: Final = 20.0
"""A step begun before the end of a chunk may end so much later."""
FAR: Final = 2**62

_seconds_and_joules = compiled(physics.seconds_and_joules)
_shapley = compiled(physics.shapley)
_accepted_tokens = compiled(engine.accepted_tokens)


Floats = NDArray[np.float64]
Wholes = NDArray[np.int64]


class Plan(NamedTuple):
    """What does not change in a call. First axes: change of the scenario, server; `parts` as `run.parts` says."""

    bin_seconds: float
    observe_seconds: float
    first_bin: int
    bins_per_window: int
    first_seen: int
    coefficients: Floats
    parts: Floats
    change_at: Floats
    limits: Wholes
    """Sequences, tokens in a step, drafted tokens, seed of speculation."""
    acceptance: Floats
    arrived_at: Floats
    """All servers' arrivals, one server's after the other's."""
    sizes: Wholes
    """Of the same: prompt, output and cached tokens."""
    ends: Wholes
    """Where each server's arrivals end."""


class State(NamedTuple):
    """What goes from call to call."""

    clock: Floats
    indices: Wholes
    """Whose turn it is, which change holds, which instant is seen next."""
    position: Wholes
    """Each server's next arrival to admit."""
    counts: Wholes
    sums: Floats
    whole: Wholes
    """(server, slot, column) of the sequences; `numbers` too."""
    numbers: Floats
    counters: Floats


class Out(NamedTuple):
    """What a call fills in; bins, windows and instants have room for `PAD_SECONDS` beyond the end."""

    bins: Floats
    busy: Floats
    windows: Floats
    seen: Floats
    requests_whole: Wholes
    requests: Floats


def _finish(state: State, e: int, slot: int, last: int) -> None:
    """Count a finished request and put the last sequence in its slot."""
    whole, numbers, counters = state.whole, state.numbers, state.counters
    prompt, cached, output = whole[e, slot, _PROMPT], whole[e, slot, _CACHED], whole[e, slot, _OUTPUT]
    counters[e, _REQUESTS] += 1
    counters[e, _FINISHED_PROMPT] += prompt - cached
    counters[e, _FINISHED_CACHED] += cached
    counters[e, _FINISHED_GENERATED] += output
    state.counts[e, _CONTEXT_NOW] -= prompt + output
    for column in range(whole.shape[2]):
        whole[e, slot, column] = whole[e, last, column]
    for column in range(numbers.shape[2]):
        numbers[e, slot, column] = numbers[e, last, column]


_finish_compiled = compiled(_finish)


def _advance(  # noqa: C901, PLR0912, PLR0915 - one loop, cut no smaller than its sequence in time
    until: float, plan: Plan, state: State, out: Out
) -> int:
    """Run all engines of one set of GPUs, one step after the other, until that time.

    Returns:
        How many requests finished, or -1 if a step takes longer than `PAD_SECONDS`.
    """
    bin_seconds, observe_seconds = plan.bin_seconds, plan.observe_seconds
    first_bin, bins_per_window, first_seen = plan.first_bin, plan.bins_per_window, plan.first_seen
    coefficients, parts, change_at = plan.coefficients, plan.parts, plan.change_at
    limits, arrived_at, sizes, ends = plan.limits, plan.arrived_at, plan.sizes, plan.ends
    position, counts, sums = state.position, state.counts, state.sums
    whole, numbers, counters = state.whole, state.numbers, state.counters
    bins, busy, windows, seen = out.bins, out.busy, out.windows, out.seen
    engines = counts.shape[0]
    now, turn, group, next_seen = state.clock[0], state.indices[0], state.indices[1], state.indices[2]
    finished = 0
    bin_index = int(now / bin_seconds) - first_bin
    while now < until:
        chosen = -1
        for offset in range(engines):
            e = (turn + offset) % engines
            waiting = position[e] < ends[e] and arrived_at[position[e]] <= now
            if counts[e, _N] > 0 or counts[e, _PART] > 0 or waiting:
                chosen = e
                break
        if chosen < 0:
            due = until
            for e in range(engines):
                if position[e] < ends[e]:
                    due = min(due, arrived_at[position[e]])
            while next_seen * observe_seconds < due:
                seen[next_seen - first_seen] = counters
                next_seen += 1
            now = due
            bin_index = int(now / bin_seconds) - first_bin
            continue
        e = chosen
        turn = (e + 1) % engines
        while group + 1 < change_at.shape[0] and now >= change_at[group + 1]:
            group += 1

        # ------------------------------------------------------------ what this step does
        decoding, read_tokens = counts[e, _N], counts[e, _CONTEXT_NOW]
        drafts = limits[group, e, 2]
        left = limits[group, e, 1] - decoding * (1 + drafts)
        room = left - counts[e, _PART]
        running = decoding
        total = decoding  # with the prompts that this step completes, behind the decoding ones
        prefill_tokens = 0
        part_chunk = 0
        if counts[e, _PART] > 0:
            running += 1
            part_chunk = min(counts[e, _PART], left)
            counts[e, _PART] -= part_chunk
            left -= part_chunk
            prefill_tokens += part_chunk
        continues = part_chunk > 0
        if continues and counts[e, _PART] == 0:
            whole[e, total, _PROMPT] = counts[e, _PART_PROMPT]
            whole[e, total, _CACHED] = counts[e, _PART_CACHED]
            whole[e, total, _OUTPUT] = counts[e, _PART_OUTPUT]
            whole[e, total, _CHUNK] = part_chunk
            numbers[e, total, _ARRIVED] = sums[e, _PART_ARRIVED]
            numbers[e, total, _PREFILLED_JOULES] = sums[e, _PART_JOULES]
            part_chunk = 0
            total += 1
        admitted_cached = 0
        while (
            room > 0
            and running < limits[group, e, 0]
            and position[e] < ends[e]
            and arrived_at[position[e]] <= now
        ):
            index = position[e]
            position[e] += 1
            running += 1
            prompt, output, cached = sizes[index, 0], sizes[index, 1], sizes[index, 2]
            admitted_cached += cached
            missing = prompt - cached
            room -= missing
            chunk = min(missing, left)
            left -= chunk
            prefill_tokens += chunk
            if chunk == missing:
                whole[e, total, _PROMPT] = prompt
                whole[e, total, _CACHED] = cached
                whole[e, total, _OUTPUT] = output
                whole[e, total, _CHUNK] = chunk
                numbers[e, total, _ARRIVED] = arrived_at[index]
                numbers[e, total, _PREFILLED_JOULES] = 0.0
                total += 1
            else:
                counts[e, _PART] = missing - chunk
                counts[e, _PART_PROMPT] = prompt
                counts[e, _PART_CACHED] = cached
                counts[e, _PART_OUTPUT] = output
                sums[e, _PART_ARRIVED] = arrived_at[index]
                sums[e, _PART_JOULES] = 0.0
                part_chunk = chunk
        accepted = 0
        if decoding > 0:
            counts[e, _DECODE_STEPS] += 1
            accepted = 1
            if drafts > 0:
                accepted += _accepted_tokens(
                    counts[e, _DECODE_STEPS], limits[group, e, 3], drafts, plan.acceptance[e]
                )

        # ------------------------------------------------------------ what it costs
        flat = coefficients[group, e]
        seconds, joules = _seconds_and_joules(flat, decoding, read_tokens, prefill_tokens)
        if prefill_tokens == 0:
            prefill_joules = 0.0
        elif decoding == 0:
            prefill_joules = joules
        else:
            _, alone = _seconds_and_joules(flat, 0, 0, prefill_tokens)
            _, other = _seconds_and_joules(flat, decoding, read_tokens, 0)
            prefill_joules = _shapley(alone, other, joules)
        reference_seconds, reference_joules = seconds, joules
        if group > 0:
            reference_seconds, reference_joules = _seconds_and_joules(
                coefficients[0, e], decoding, read_tokens, prefill_tokens
            )
        if seconds > PAD_SECONDS:
            return -1
        end = now + seconds

        # ------------------------------------------------------------ where its energy lies
        t = now
        rest = 1.0
        edge = (first_bin + bin_index + 1) * bin_seconds
        while edge <= now:
            bin_index += 1
            edge = (first_bin + bin_index + 1) * bin_seconds
        while True:
            share = rest
            piece = end - t
            if end > edge:
                piece = edge - t
                share = piece / seconds
            bins[bin_index] += share * joules
            busy[bin_index] += piece
            window = bin_index // bins_per_window
            windows[window, e, _PREFILL_JOULES] += share * prefill_joules
            windows[window, e, _DECODE_JOULES] += share * (joules - prefill_joules)
            windows[window, e, _BUSY_SECONDS] += piece
            windows[window, e, _REFERENCE_JOULES] += share * reference_joules
            windows[window, e, _REFERENCE_SECONDS] += share * reference_seconds
            if end <= edge:
                break
            rest -= share
            t = edge
            bin_index += 1
            edge = (first_bin + bin_index + 1) * bin_seconds

        # ------------------------------------------------------------ what is seen, before and after
        while next_seen * observe_seconds < end:
            seen[next_seen - first_seen] = counters
            next_seen += 1
        players = total + (1 if part_chunk > 0 else 0)
        floor = parts[group, e, 0] if decoding > 0 else parts[group, e, 4]
        each, read, token = parts[group, e, 1], parts[group, e, 2], parts[group, e, 3]
        if flat[11] > 0:  # a table has no parts: all but prompts and context is shared equally
            floor = joules - read * read_tokens - token * prefill_tokens
        linear = floor + each * decoding + read * read_tokens + token * prefill_tokens
        scale = joules / linear
        share = scale * floor / players
        sums[e, _SUM_SHARE] += share + scale * each
        sums[e, _SUM_READ] += scale * read
        sums[e, _SUM_READ_AT] += scale * read * counts[e, _EMITTED]
        if part_chunk > 0:
            sums[e, _PART_JOULES] += share + scale * token * part_chunk
        counts[e, _EMITTED] += accepted
        emitted = counts[e, _EMITTED]
        generated = decoding * accepted
        counts[e, _CONTEXT_NOW] += generated
        counters[e, _INTER_TOKEN_SECONDS] += decoding * (end - sums[e, _LAST_END])
        for slot in range(decoding, total):
            prompt = whole[e, slot, _PROMPT]
            generated += 1
            counts[e, _CONTEXT_NOW] += prompt + 1
            counters[e, _FIRST_TOKENS] += 1
            counters[e, _PROMPT_COMPUTED] += prompt - whole[e, slot, _CACHED]
            counters[e, _PROMPT_CACHED] += whole[e, slot, _CACHED]
            whole[e, slot, _DONE_AT] = emitted + whole[e, slot, _OUTPUT] - 1
            counts[e, NEXT_DONE] = min(counts[e, NEXT_DONE], whole[e, slot, _DONE_AT])
            numbers[e, slot, _FIRST_TOKEN] = end
            numbers[e, slot, _PREFILLED_JOULES] += share + scale * token * whole[e, slot, _CHUNK]
            numbers[e, slot, _SHARE_0] = sums[e, _SUM_SHARE]
            numbers[e, slot, _READ_0] = sums[e, _SUM_READ]
            numbers[e, slot, _READ_AT_0] = sums[e, _SUM_READ_AT]
        if emitted >= counts[e, NEXT_DONE]:
            slot = 0
            next_done = FAR
            while slot < total:
                if whole[e, slot, _DONE_AT] > emitted:
                    next_done = min(next_done, whole[e, slot, _DONE_AT])
                    slot += 1
                    continue
                over = emitted - whole[e, slot, _DONE_AT]
                generated -= over
                counts[e, _CONTEXT_NOW] -= over
                if out.requests.shape[0] > 0:
                    base = whole[e, slot, _PROMPT] + whole[e, slot, _OUTPUT] - whole[e, slot, _DONE_AT]
                    out.requests_whole[finished, 0] = e
                    out.requests_whole[finished, 1] = whole[e, slot, _PROMPT]
                    out.requests_whole[finished, 2] = whole[e, slot, _CACHED]
                    out.requests_whole[finished, 3] = whole[e, slot, _OUTPUT]
                    out.requests[finished, 0] = numbers[e, slot, _ARRIVED]
                    out.requests[finished, 1] = numbers[e, slot, _FIRST_TOKEN]
                    out.requests[finished, 2] = end
                    out.requests[finished, 3] = numbers[e, slot, _PREFILLED_JOULES]
                    out.requests[finished, 4] = (
                        (sums[e, _SUM_SHARE] - numbers[e, slot, _SHARE_0])
                        + base * (sums[e, _SUM_READ] - numbers[e, slot, _READ_0])
                        + (sums[e, _SUM_READ_AT] - numbers[e, slot, _READ_AT_0])
                    )
                finished += 1
                total -= 1
                _finish_compiled(state, e, slot, total)
            counts[e, NEXT_DONE] = next_done
        counts[e, _N] = total
        sums[e, _LAST_END] = end
        counters[e, _STEPS] += 1 if generated > 0 else 0
        counters[e, _GENERATED] += generated
        counters[e, _LIVE_GENERATED] += players
        counters[e, _ADMITTED_CACHED] += admitted_cached
        counters[e, _PREFILLED] += prefill_tokens
        counters[e, _RUNNING] = total + (1 if counts[e, _PART] > 0 else 0)
        counters[e, _CONTEXT] = counts[e, _CONTEXT_NOW]
        if counts[e, _PART] > 0:
            counters[e, _CONTEXT] += counts[e, _PART_PROMPT] - counts[e, _PART]
        while counts[e, SUBMITTED] < ends[e] and arrived_at[counts[e, SUBMITTED]] <= now:
            counts[e, SUBMITTED] += 1
        counters[e, _WAITING] = counts[e, SUBMITTED] - position[e]
        windows[window, e, _ALL_STEPS] += 1
        windows[window, e, _PREFILL_TOKENS] += prefill_tokens
        windows[window, e, _GENERATED_TOKENS] += generated
        windows[window, e, _READ_TOKENS] += read_tokens
        if total == 0 and counts[e, _PART] == 0:  # start the sums anew, so that they stay exact
            counts[e, _EMITTED] = 0
            sums[e, _SUM_SHARE] = 0.0
            sums[e, _SUM_READ] = 0.0
            sums[e, _SUM_READ_AT] = 0.0
        now = end
    state.clock[0] = now
    state.indices[0], state.indices[1], state.indices[2] = turn, group, next_seen
    return finished


advance = compiled(_advance)
