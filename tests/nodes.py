"""A node in a test's hand: GPUs that draw, servers that count, and the books kept over them."""

import math
from dataclasses import dataclass, field

from joulemeter.accounts import Terms
from joulemeter.attributor import Attributor
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.model import (
    Amount,
    EnergyReading,
    EnergySource,
    Gpu,
    Length,
    LengthReading,
    Moves,
    Observation,
    PageReading,
    Role,
    RoleReading,
)

GRAMS_PER_JOULE = 1e-4


def gpu(index: int) -> Gpu:
    return Gpu(index, f"GPU-{index}", "H100", "580.1", EnergySource.COUNTER, 700.0)


@dataclass
class Server:
    """Counters of a vLLM-like server."""

    prompt: float = 0.0
    generation: float = 0.0
    running: float = 0.0
    model: str = "m"
    start_time_seconds: float = 1.0
    up: bool = True
    answers: tuple[int, ...] | None = None
    """Lengths of the answers that were finished, where the server has a histogram of them."""

    def page(self) -> PageReading:
        return PageReading(
            "vllm",
            (
                RoleReading(Role.PROMPT, self.model, f"p/{self.model}", self.prompt, Moves.FIRST_TOKEN),
                RoleReading(Role.GENERATION, self.model, f"g/{self.model}", self.generation, Moves.STEP),
                RoleReading(Role.RUNNING, self.model, f"r/{self.model}", self.running, None),
            ),
            self.start_time_seconds,
            self._lengths(),
        )

    def _lengths(self) -> tuple[LengthReading, ...]:
        if self.answers is None:
            return ()
        counts = (sum(one <= 100 for one in self.answers), len(self.answers))
        return (LengthReading(Length.GENERATION, self.model, "", (100,), counts, sum(self.answers)),)

    def restart(self) -> None:
        self.prompt = self.generation = 0.0
        self.answers = None if self.answers is None else ()
        self.start_time_seconds += 1.0


@dataclass
class Node:
    """Time passes in `run`: GPUs draw their watts, are read every 0.1 s, and servers are asked every second."""

    gpus: int = 1
    terms: Terms = field(default_factory=lambda: Terms(zero_hold_seconds=0))
    now_seconds: float = 1000.0

    def __post_init__(self) -> None:
        self.watts = dict.fromkeys(range(self.gpus), 200.0)
        self.counted = dict.fromkeys(range(self.gpus), 5e6)
        self.lost: set[int] = set()
        self.servers: dict[str, Server] = {}
        self.books = Bookkeeper(
            self.terms,
            price=lambda joules, _begin, _end: Amount(joules, joules * GRAMS_PER_JOULE),
            attributor=Attributor(),
        )

    def serve(self, name: str, *indexes: int, tokens: bool = True) -> Server:
        self.servers[name] = server = Server(model=f"model-{name}")
        self.books.expect_server(name, name, self.now_seconds, counts_tokens=tokens)
        if indexes:
            self.books.own(name, frozenset(f"GPU-{index}" for index in indexes), self.now_seconds)
        return server

    def gone(self, name: str) -> Server:
        """The server's pod is deleted."""
        self.books.release(name)
        return self.servers.pop(name)

    def run(self, seconds: float, *, prompt: float = 0.0, generation: float = 0.0) -> None:
        """Let time pass; every server does so many tokens a second."""
        for tick in range(round(seconds * 10)):
            self.now_seconds = round(self.now_seconds + 0.1, 6)
            for index in range(self.gpus):
                self.counted[index] += self.watts[index] * 0.1
                if index not in self.lost:
                    self.books.meter(
                        gpu(index), [EnergyReading(f"GPU-{index}", self.counted[index], self.now_seconds)]
                    )
            if tick % 10 == 9:
                self.observe(prompt=prompt, generation=generation)
                self.books.settle(self.now_seconds)

    def observe(self, *, prompt: float = 0.0, generation: float = 0.0) -> None:
        for name, server in self.servers.items():
            server.prompt += prompt
            server.generation += generation
            server.running = 1.0 if generation else 0.0
            if server.up:
                self.books.observe(Observation(name, self.now_seconds - 0.02, server.page()), has_phases=True)

    def attributed_joules(self, name: str) -> float:
        model = self.books.ledger.model
        return math.fsum(amount.energy_joules for (user, _), amount in model.items() if user.server == name)

    def unattributed_joules(self, reason: str) -> float:
        entries = self.books.ledger.unattributed
        return math.fsum(amount.energy_joules for (_, why), amount in entries.items() if why == reason)

    def tokens(self, name: str, kind: str) -> float:
        return sum(
            n for (user, k), n in self.books.ledger.tokens.items() if user.server == name and k == kind
        )

    def lost_tokens(self, name: str, kind: str) -> float:
        lost = self.books.ledger.lost_tokens
        return sum(n for (user, k, _), n in lost.items() if user.server == name and k == kind)


def imbalance(books: Bookkeeper) -> float:
    """How far law 1 is from holding, relative: for joules and for grams, whichever is worse."""
    worst = 0.0
    for unit in ("energy_joules", "co2e_grams"):
        measured = math.fsum(getattr(account.measured, unit) for account in books.gpus.values())
        parts = [
            *(getattr(amount, unit) for amount in books.ledger.model.values()),
            *(getattr(amount, unit) for amount in books.ledger.unattributed.values()),
            *(getattr(account.pending, unit) for account in books.gpus.values()),
            getattr(books.ledger.retired, unit),
        ]
        assert all(math.isfinite(part) and part >= -1e-9 for part in parts), parts
        worst = max(worst, abs(math.fsum(parts) - measured) / max(measured, 1.0))
    return worst
