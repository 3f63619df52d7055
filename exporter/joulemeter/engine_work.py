"""What an engine did in a window, in the quantities that its energy goes by. Pure.

Energy of an engine step is a floor for the step, so much for each prompt token computed, for each sequence that
decodes, and for each token of context that is read (ML.ENERGY v3 leaderboard, vLLM 0.11.1: within 3 % on dense
models). Over a window it is therefore linear in the five sums here, whatever the batches were.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from joulemeter.work import Work

StepSource = Literal["counted", "timed", "guessed", "none"]


class Effort(Protocol):
    """Amounts that energy is proportional to."""

    @property
    def any(self) -> bool:
        """Whether an engine ran."""

    @property
    def guessed(self) -> bool:
        """Whether an amount is neither counted nor timed."""

    @property
    def amounts(self) -> tuple[float, ...]:
        """As many as there are coefficients."""

    @property
    def prefill_amounts(self) -> tuple[float, ...]:
        """The part of the amounts that is prefill's."""


@dataclass(frozen=True, slots=True)
class EngineWork:
    """Sums over the steps of a window.

    `prefill_steps` is the part of `steps` whose floor belongs to prefill: a step that only computes prompts counts
    one, one that decodes as well a half (two players of one game). `decoded_tokens` leaves out first
    tokens, which prefill makes. `context_reads` counts a token of context each time a step reads it.
    """

    steps: float = 0.0
    prefill_steps: float = 0.0
    prompt_tokens: float = 0.0
    decoded_tokens: float = 0.0
    context_reads: float = 0.0
    guessed: bool = False
    """Steps are neither counted nor timed: how many requests ran says how large batches were."""

    @property
    def any(self) -> bool:
        """Whether an engine ran."""
        return any((self.steps, self.prompt_tokens, self.decoded_tokens))

    @property
    def amounts(self) -> tuple[float, float, float, float]:
        """What energy is proportional to: steps, prompt tokens, decoded tokens, context reads."""
        return (self.steps, self.prompt_tokens, self.decoded_tokens, self.context_reads)

    @property
    def prefill_amounts(self) -> tuple[float, float, float, float]:
        """The part of the amounts that is prefill's."""
        return (self.prefill_steps, self.prompt_tokens, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class PhaseSeconds:
    """How long an engine's steps took in a window, by its own clock."""

    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    guessed: bool = False

    @property
    def any(self) -> bool:
        """Whether an engine ran."""
        return self.prefill_seconds + self.decode_seconds > 0

    @property
    def amounts(self) -> tuple[float, float]:
        """What energy is proportional to."""
        return (self.prefill_seconds, self.decode_seconds)

    @property
    def prefill_amounts(self) -> tuple[float, float]:
        """The part of the amounts that is prefill's."""
        return (self.prefill_seconds, 0.0)


def phase_seconds(work: Work) -> PhaseSeconds | None:
    """Return what the engine measured itself, None if it does not, or not in this window."""
    if work.prefill_seconds is None or work.decode_seconds is None:
        return None
    measured = PhaseSeconds(max(0.0, work.prefill_seconds), max(0.0, work.decode_seconds))
    return measured if measured.any else None


def engine_work(
    work: Work,
    duration_seconds: float,
    busy_seconds: float,
    *,
    context_tokens: float = 0.0,
    prefill_seconds: float = 0.0,
) -> EngineWork:
    """Work out what a model's engine did in a window.

    Steps are the server's own count where it has one; else what the time between tokens said from page to page; else
    tokens over the mean batch, which the running gauge tells (docs/adr/0017-amounts-that-no-page-says.md).

    Args:
        work: what the server counted, an increase; what it does not count is None.
        duration_seconds: of the window, > 0.
        busy_seconds: how much of it the GPU was busy, >= 0.
        context_tokens: what a decoded token read, in the mean (`context_length`).
        prefill_seconds: about how long its prompts took to compute, if nothing else ran.
    """
    prompt_tokens = max(0.0, work.prompt_tokens)
    started = started_requests(work)
    decoded = max(0.0, work.generation_tokens - started)
    busy_seconds = min(max(busy_seconds, 0.0), duration_seconds)
    mean_running = max(0.0, work.running_seconds) / duration_seconds
    others = mean_running * (1.0 - 1.0 / (started + mean_running)) if started > 0 else 0.0
    alone_ratio = math.exp(-max(0.0, others)) if decoded > 0 else 1.0
    busy_ratio = busy_seconds / duration_seconds
    if work.steps is None:
        decode_steps = _decode_steps(work, decoded, prefill_seconds, alone_ratio)
        prefill_steps = _prefill_steps(decode_steps + started, started, busy_ratio)
        steps = decode_steps + alone_ratio * prefill_steps
    else:
        steps = max(0.0, work.steps)
        prefill_steps = _prefill_steps(steps, started, busy_ratio) if decoded > 0 else steps
    return EngineWork(
        steps,
        prefill_steps * (1.0 + alone_ratio) / 2,
        prompt_tokens,
        decoded,
        decoded * context_tokens,
        guessed=step_source(work) == "guessed",
    )


def step_source(work: Work) -> StepSource:
    """Return where the number of an engine's steps comes from."""
    if work.steps is not None:
        return "counted"
    return "guessed" if work.inter_token_seconds is None else "timed"


def started_requests(work: Work) -> float:
    """Return how many requests had their first token, as far as the server tells."""
    started = work.first_tokens if work.first_tokens is not None else work.requests
    if work.generation_tokens > 0:
        started = min(started, work.generation_tokens)
    return max(0.0, started)


def _prefill_steps(steps: float, started: float, busy_ratio: float) -> float:
    """Steps that compute prompts: one a prompt, fewer where prompts that arrive during a step share the next."""
    if steps <= 0 or started <= 0:
        return 0.0
    arriving = busy_ratio * started / steps
    alike = -math.expm1(-arriving) / arriving if arriving > 0 else 1.0
    return min(steps, started * (1.0 - busy_ratio + busy_ratio * alike))


def _decode_steps(work: Work, decoded: float, prefill_seconds: float, alone_ratio: float) -> float:
    """Return in how many steps tokens were decoded, where the server does not count them.

    The running gauge counts requests whose prompt is being computed, too: so much comes off their time, and off the
    time in which any ran what they had to themselves. Both must come from the gauge: held against
    the GPU's busy time, which knows better, a request that the gauge saw for too long would look like two.
    """
    if work.timed_steps > 0:
        return work.timed_steps
    decoding_seconds = max(0.0, work.covered_seconds - alone_ratio * prefill_seconds)
    sequence_seconds = max(decoding_seconds, work.running_seconds - prefill_seconds)
    if sequence_seconds <= 0:
        return decoded
    return decoded * decoding_seconds / sequence_seconds
