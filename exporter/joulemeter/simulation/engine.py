"""The engine of a virtual server: continuous batching with chunked prefill, step by step. Pure: no clock.

The seam to the physics is `physics.step_cost`, to the server `Engine.step`.
"""

from collections import deque
from dataclasses import dataclass

from joulemeter.simulation.physics import Coefficients, step_cost


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for; `cached_tokens` of the prompt are in the prefix cache and are not computed.

    Raises:
        ValueError: no output is wanted, or not at least one prompt token is left to compute (vLLM needs one).
    """

    id: int
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0

    def __post_init__(self) -> None:
        if self.output_tokens < 1 or not 0 <= self.cached_tokens < self.prompt_tokens:
            raise ValueError(f"{self}: needs output_tokens >= 1 and 0 <= cached_tokens < prompt_tokens")


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one batch; the names and sizes are vLLM's `max_num_seqs` and `max_num_batched_tokens`."""

    max_sequences: int = 256
    max_step_tokens: int = 2048

    def __post_init__(self) -> None:
        if not 1 <= self.max_sequences <= self.max_step_tokens:
            raise ValueError(f"{self}: needs 1 <= max_sequences <= max_step_tokens, or decoding would starve")


@dataclass(frozen=True, slots=True)
class Speculation:
    """Speculative decoding: tokens drafted per sequence and step, and how likely the next of them is right."""

    draft_tokens: int = 0
    acceptance_ratio: float = 0.7
    seed: int = 0


def accepted_tokens(step: int, seed: int, draft_tokens: int, acceptance_ratio: float) -> int:
    """Return how many drafted tokens this decode step accepts: drawn per step, alike for all sequences.

    Nothing but arithmetic on whole numbers below 2^63, so that it can be compiled (benchmarks/truth).
    """
    accepted = 0
    state = (step * 2654435761 + seed * 40503 + 1) & 0x7FFFFFFF
    while accepted < draft_tokens:
        for _ in range(3):
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        if state / 2147483648.0 >= acceptance_ratio:
            break
        accepted += 1
    return accepted


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step: what it cost (on GPUs of its own), what it did, and what is left when it ends.

    `prefill_tokens` counts prompt tokens computed in this step, of prompts that may not be complete yet;
    `prefilled` are the requests whose prompt it completes (their first token is in `generated_tokens`);
    `read_tokens` is the context that the decoding sequences read.
    """

    seconds: float
    prefill_joules: float
    decode_joules: float
    prefill_tokens: int
    generated_tokens: int
    decoding_sequences: int
    read_tokens: int
    started: tuple[Request, ...]
    prefilled: tuple[Request, ...]
    finished: tuple[Request, ...]
    running: int
    waiting: int
    context_tokens: int

    @property
    def joules(self) -> float:
        """All the energy of the step, the GPUs' idle power included."""
        return self.prefill_joules + self.decode_joules


@dataclass(slots=True)
class _Sequence:
    request: Request
    computed_tokens: int
    generated_tokens: int = 0

    @property
    def missing_tokens(self) -> int:
        """Prompt tokens still to compute."""
        return self.request.prompt_tokens - self.computed_tokens


class Engine:
    """Requests in, steps out. Decoding goes first, then prompts in the order in which they came."""

    def __init__(
        self,
        coefficients: Coefficients,
        limits: Limits | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        self.coefficients = coefficients
        self._limits = limits or Limits()
        self._speculation = speculation or Speculation()
        self._decode_steps = 0
        self._waiting: deque[Request] = deque()
        self._running: list[_Sequence] = []

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.append(request)

    def step(self) -> StepResult | None:
        """Run one step; None if there is nothing to do."""
        if not self._running and not self._waiting:
            return None
        decoding = [sequence for sequence in self._running if not sequence.missing_tokens]
        read_tokens = sum(s.computed_tokens + s.generated_tokens for s in decoding)
        prefilling = [sequence for sequence in self._running if sequence.missing_tokens]
        budget = self._limits.max_step_tokens - len(decoding) * (1 + self._speculation.draft_tokens)
        started = self._admit(prefilling, budget)
        prefill_tokens, prefilled = _compute(prefilling, budget)
        cost = step_cost(
            self.coefficients,
            decoding_sequences=len(decoding),
            prefill_tokens=prefill_tokens,
            context_tokens=read_tokens,
        )
        generated_tokens = self._generate(decoding) + len(prefilled)
        for sequence in prefilled:
            sequence.generated_tokens = 1
        advanced = decoding + prefilled
        done = [s for s in advanced if s.generated_tokens == s.request.output_tokens]
        if done:
            self._running = [s for s in self._running if s.generated_tokens < s.request.output_tokens]
        return StepResult(
            seconds=cost.seconds,
            prefill_joules=cost.prefill_joules,
            decode_joules=cost.decode_joules,
            prefill_tokens=prefill_tokens,
            generated_tokens=generated_tokens,
            decoding_sequences=len(decoding),
            read_tokens=read_tokens,
            started=started,
            prefilled=tuple(s.request for s in prefilled),
            finished=tuple(s.request for s in done),
            running=len(self._running),
            waiting=len(self._waiting),
            context_tokens=sum(s.computed_tokens + s.generated_tokens for s in self._running),
        )

    def _generate(self, decoding: list[_Sequence]) -> int:
        """Give every decoding sequence its next tokens and return how many they were."""
        if not decoding:
            return 0
        self._decode_steps += 1
        drafts = self._speculation
        accepted = 1 + accepted_tokens(
            self._decode_steps, drafts.seed, drafts.draft_tokens, drafts.acceptance_ratio
        )
        generated = 0
        for sequence in decoding:
            tokens = min(accepted, sequence.request.output_tokens - sequence.generated_tokens)
            sequence.generated_tokens += tokens
            generated += tokens
        return generated

    def _admit(self, prefilling: list[_Sequence], budget: int) -> tuple[Request, ...]:
        """Take from the queue whoever gets at least one token computed in this step."""
        started = []
        budget -= sum(sequence.missing_tokens for sequence in prefilling)
        while self._waiting and budget > 0 and len(self._running) < self._limits.max_sequences:
            request = self._waiting.popleft()
            sequence = _Sequence(request, request.cached_tokens)
            budget -= sequence.missing_tokens
            prefilling.append(sequence)
            self._running.append(sequence)
            started.append(request)
        return tuple(started)


def _compute(prefilling: list[_Sequence], budget: int) -> tuple[int, list[_Sequence]]:
    """Compute prompts in order until the budget is spent; return the tokens and the completed prompts."""
    left = budget
    for sequence in prefilling:
        chunk = min(sequence.missing_tokens, left)
        sequence.computed_tokens += chunk
        left -= chunk
    return budget - left, [sequence for sequence in prefilling if not sequence.missing_tokens]
