"""How a server's measured energy can be shared among the requests that ran on it. Pure; nothing that bills uses it yet.

`weighted_tick` conserves and is what a gateway in front of a server should use; `pool_ratio` is what providers that
price energy do, here to be compared with. `python -m benchmarks.truth.per_request` prints the errors of both.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

Key = TypeVar("Key")

NO_CAP: Final = 1.0


def pool_ratio(
    server_joules: float, request_tokens: float, pool_tokens: float, *, cap_ratio: float = NO_CAP
) -> float:
    """Return what one request is billed: the server's energy while it ran, times its part of the tokens.

    Args:
        server_joules: energy of the whole server from the request's arrival to its end, idle included, >= 0.
        request_tokens: tokens of this request, prompt and answer alike, >= 0.
        pool_tokens: what the server's counters of tokens rose by in that time, this request's included, >= 0.
        cap_ratio: no request pays a larger part than that, in (0, 1].

    Conserves:
        Nothing. Each request shares another stretch of energy, so that the parts of one joule add up to more or
        less than one; a prompt that is computed for others counts where its tokens land; and what a cap cuts
        off belongs to nobody.

    Raises:
        ValueError: a number is out of its range, or not finite.
    """
    _expect(server_joules, "server_joules")
    _expect(request_tokens, "request_tokens")
    _expect(pool_tokens, "pool_tokens")
    if not 0 < cap_ratio <= 1:
        raise ValueError(f"cap_ratio={cap_ratio}: expected a number above 0 and up to 1")
    if request_tokens > pool_tokens:
        raise ValueError(f"pool_tokens={pool_tokens}: less than the request's own {request_tokens}")
    ratio = request_tokens / pool_tokens if pool_tokens > 0 else 0.0
    return server_joules * min(ratio, cap_ratio)


@dataclass(frozen=True, slots=True)
class TickWork:
    """What one request did in a tick, as seen from outside the server.

    `generated_tokens` came in it; `running_requests` were running on the server on average while they came, >= 1;
    `context_tokens` is the context read for them, summed over them (so many tokens each time); `computed_tokens` of
    its prompt were computed in it, cache hits left out.
    """

    generated_tokens: float = 0.0
    running_requests: float = 1.0
    context_tokens: float = 0.0
    computed_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class TickWeights:
    """Joules of an engine step, a generated token, a token of context read and a computed prompt token.

    Only their ratios matter, for a tick's parts are scaled to what was measured.
    """

    step_joules: float
    generated_token_joules: float
    context_token_joules: float
    computed_token_joules: float

    def weight(self, work: TickWork) -> float:
        """Return estimated joules of a request's work; a step is shared by those who run."""
        return (
            self.step_joules * work.generated_tokens / max(1.0, work.running_requests)
            + self.generated_token_joules * work.generated_tokens
            + self.context_token_joules * work.context_tokens
            + self.computed_token_joules * work.computed_tokens
        )


@dataclass(frozen=True, slots=True)
class Shared(Generic[Key]):
    """A tick's energy by request, and what nobody's work explains yet, to be shared with the next tick's."""

    joules: Mapping[Key, float]
    carried_joules: float


def weighted_tick(
    active_joules: float,
    work: Mapping[Key, TickWork],
    weights: TickWeights,
    *,
    carried_joules: float = 0.0,
) -> Shared[Key]:
    """Share one tick's energy among the requests that ran in it, by estimated work.

    Args:
        active_joules: measured in the tick, the idle part taken out, >= 0. Ticks of a second or more:
            in shorter ones prompts burn before their first token is seen.
        work: what each request did. Traffic that was not seen goes in under a key of its own, as the server's
            counters less what was seen.
        weights: how work compares.
        carried_joules: of ticks before in which nobody did anything, >= 0.

    Conserves:
        sum(joules) + carried_joules out == active_joules + carried_joules in, to one part in 1e9; none is negative.

    Raises:
        ValueError: a number is negative or not finite. Never clamped silently.
    """
    _expect(active_joules, "active_joules")
    _expect(carried_joules, "carried_joules")
    total_joules = active_joules + carried_joules
    estimates = {key: weights.weight(one) for key, one in work.items()}
    for key, estimate in estimates.items():
        _expect(estimate, f"weight of {key!r}")
    whole = math.fsum(estimates.values())
    if whole == 0:
        return Shared(dict.fromkeys(work, 0.0), total_joules)
    return Shared({key: total_joules * (estimate / whole) for key, estimate in estimates.items()}, 0.0)


def _expect(value: float, name: str) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}={value}: expected a finite number >= 0")
