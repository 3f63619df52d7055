"""What an engine step costs: time and energy, from the work it does. Pure, and the only physics there is.

    seconds = step_seconds + sequence_seconds n + context_token_seconds C
              + prefill_token_seconds max(0, p - free_prefill_tokens)
    joules  = busy_watts seconds + decode_token_joules n + context_token_joules C + prefill_token_joules p

for n decoding sequences that read C tokens of context, and p prompt tokens computed. A pair whose power is no
such function of n brings a table instead. Above the power limit clocks fall: power goes with their third power, so
the step takes (P / limit)^(1/3) as long at the limit.

`seconds_and_joules` takes its numbers as a flat sequence and uses nothing but arithmetic, so that the offline
run (benchmarks/truth) compiles this very function. The pairs it is used with are in `pairs.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

_ROWS_AT: Final = 11
_TABLE_AT: Final = 12
"""Where in a flat sequence the number of a table's rows is, and where they begin: sequences, seconds, watts."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A decode step as measured: so many sequences, so long, so much power, reading the context included."""

    sequences: int
    seconds: float
    watts: float


@dataclass(frozen=True, slots=True)
class Coefficients:
    """One model on its GPUs (all of a tensor-parallel group together)."""

    step_seconds: float
    sequence_seconds: float
    context_token_seconds: float
    prefill_token_seconds: float
    busy_watts: float
    """Draw while any step runs, the GPUs' idle power included."""
    decode_token_joules: float
    """Of a sequence in a decode step; one token, unless the engine speculates."""
    context_token_joules: float
    prefill_token_joules: float
    limit_watts: float
    free_prefill_tokens: float = 0.0
    """Prompt tokens that a step computes in the time it takes anyway."""
    decode_joules_factor: float = 1.0
    """For a regression: what decoding costs, compared with what it should."""
    table: tuple[TableRow, ...] = ()
    """Instead of step and sequence seconds and decode joules, in rising order of sequences; linear between."""

    def flat(self) -> tuple[float, ...]:
        """Return what `seconds_and_joules` takes."""
        numbers = (
            *(self.step_seconds, self.sequence_seconds, self.context_token_seconds),
            *(self.prefill_token_seconds, self.free_prefill_tokens, self.busy_watts),
            *(self.decode_token_joules, self.context_token_joules, self.prefill_token_joules),
            *(self.limit_watts, self.decode_joules_factor, float(len(self.table))),
        )
        rows = [(float(row.sequences), row.seconds, row.watts) for row in self.table]
        return (*numbers, *(number for row in rows for number in row))

    def regressed(self, *, decode_power: float = 0.0, step_time: float = 0.0) -> "Coefficients":
        """Return an engine that got worse (0.15 is 15 %).

        Args:
            decode_power: decoding costs so much more energy in the same time.
            step_time: decode steps take so much longer at the same power.
        """
        longer = 1.0 + step_time
        return replace(
            self,
            step_seconds=self.step_seconds * longer,
            sequence_seconds=self.sequence_seconds * longer,
            context_token_seconds=self.context_token_seconds * longer,
            decode_token_joules=self.decode_token_joules * longer,
            context_token_joules=self.context_token_joules * longer,
            decode_joules_factor=self.decode_joules_factor * (1.0 + decode_power),
            table=tuple(replace(row, seconds=row.seconds * longer) for row in self.table),
        )

    def speculating(self, draft_tokens: int) -> "Coefficients":
        """Return the same pair with so many drafted tokens verified per sequence and step.

        Assumed: a verified token costs what a prompt token costs, drafting itself nothing.
        """
        return replace(
            self,
            sequence_seconds=self.sequence_seconds + draft_tokens * self.prefill_token_seconds,
            decode_token_joules=self.decode_token_joules + draft_tokens * self.prefill_token_joules,
            table=tuple(
                replace(row, seconds=row.seconds + draft_tokens * row.sequences * self.prefill_token_seconds)
                for row in self.table
            ),
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """A step's time and its energy by phase, the busy floor included."""

    seconds: float
    prefill_joules: float
    decode_joules: float


def seconds_and_joules(
    flat: Sequence[float], sequences: int, context_tokens: int, prefill_tokens: int
) -> tuple[float, float]:
    """Return a step's time and energy; `flat` is `Coefficients.flat()`."""
    step_seconds, sequence_seconds, context_token_seconds = flat[0], flat[1], flat[2]
    prefill_token_seconds, free_prefill_tokens, busy_watts = flat[3], flat[4], flat[5]
    decode_token_joules, context_token_joules, prefill_token_joules = flat[6], flat[7], flat[8]
    limit_watts, decode_joules_factor, rows = flat[9], flat[10], int(flat[_ROWS_AT])
    if rows == 0:
        base_seconds = step_seconds + sequence_seconds * sequences
        base_joules = busy_watts * base_seconds + decode_token_joules * sequences
    else:
        row = 1
        while row < rows - 1 and flat[_TABLE_AT + 3 * row] < sequences:
            row += 1
        low, high = _TABLE_AT + 3 * (row - 1), _TABLE_AT + 3 * row
        ratio = max(0.0, (sequences - flat[low]) / (flat[high] - flat[low]))
        base_seconds = flat[low + 1] + ratio * (flat[high + 1] - flat[low + 1])
        base_joules = base_seconds * (flat[low + 2] + ratio * (flat[high + 2] - flat[low + 2]))
    context_seconds = context_token_seconds * context_tokens
    decode_joules = base_joules + busy_watts * context_seconds + context_token_joules * context_tokens
    if sequences > 0:
        decode_joules *= decode_joules_factor
    prefill_seconds = prefill_token_seconds * max(0.0, prefill_tokens - free_prefill_tokens)
    seconds = base_seconds + context_seconds + prefill_seconds
    joules = decode_joules + busy_watts * prefill_seconds + prefill_token_joules * prefill_tokens
    limit_joules = limit_watts * seconds
    if joules > limit_joules:
        seconds *= (joules / limit_joules) ** (1.0 / 3.0)
        joules = limit_watts * seconds
    return seconds, joules


def shapley(alone_joules: float, other_joules: float, both_joules: float) -> float:
    """Return the first of two players' part: what it adds on average over both orders of joining."""
    return 0.5 * (alone_joules + both_joules - other_joules)


def step_cost(
    coefficients: Coefficients, *, decoding_sequences: int, prefill_tokens: int, context_tokens: int = 0
) -> Cost:
    """Return what one step costs.

    The players are the prompt tokens and the decoding sequences: what does not depend on the work, such as
    the busy floor, belongs to the phase that runs, or in equal parts to both.
    """
    flat = coefficients.flat()
    seconds, joules = seconds_and_joules(flat, decoding_sequences, context_tokens, prefill_tokens)
    if not prefill_tokens:
        return Cost(seconds, 0.0, joules)
    if not decoding_sequences:
        return Cost(seconds, joules, 0.0)
    _, prefill_alone = seconds_and_joules(flat, 0, 0, prefill_tokens)
    _, decode_alone = seconds_and_joules(flat, decoding_sequences, context_tokens, 0)
    prefill_joules = shapley(prefill_alone, decode_alone, joules)
    return Cost(seconds, prefill_joules, joules - prefill_joules)
