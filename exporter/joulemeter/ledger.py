"""Running totals of what is settled: each joule in exactly one place. Pure; mutated by the bookkeeper alone."""

from dataclasses import dataclass, field

from joulemeter.catalog import LOST_TOKEN_REASONS
from joulemeter.model import NOTHING, Amount, Phase, User
from joulemeter.work import Work

ModelPhase = tuple[User, Phase]
GpuReason = tuple[str, str]
UserKind = tuple[User, str]


def token_kinds(work: Work) -> dict[str, float]:
    """A window's tokens by the label `kind`."""
    return {
        "prompt": work.prompt_tokens,
        "cached_prompt": work.cached_prompt_tokens,
        "generation": work.generation_tokens,
    }


@dataclass(slots=True)
class Ledger:
    """Where the settled energy went. `unattributed` is by (uuid, reason), `lost_tokens` by kind and reason."""

    model: dict[ModelPhase, Amount] = field(default_factory=dict)
    unattributed: dict[GpuReason, Amount] = field(default_factory=dict)
    retired: Amount = field(default_factory=Amount)
    tokens: dict[UserKind, float] = field(default_factory=dict)
    requests: dict[User, float] = field(default_factory=dict)
    lost_tokens: dict[tuple[User, str, str], float] = field(default_factory=dict)

    def open_gpu(self, uuid: str, reasons: tuple[str, ...]) -> None:
        """Publish a GPU's label sets at 0, so that `increase()` sees their birth."""
        for reason in reasons:
            self.unattributed.setdefault((uuid, reason), NOTHING)

    def open_user(self, user: User, phases: tuple[Phase, ...], *, tokens: bool) -> None:
        """Publish a model's label sets at 0, so that `increase()` sees their birth."""
        for phase in phases:
            self.model.setdefault((user, phase), NOTHING)
        if tokens:
            self.requests.setdefault(user, 0.0)
            for kind in token_kinds(Work()):
                self.tokens.setdefault((user, kind), 0.0)
                for reason in LOST_TOKEN_REASONS:
                    self.lost_tokens.setdefault((user, kind, reason), 0.0)

    def add_model(self, user: User, phase: Phase, amount: Amount) -> None:
        """Attribute."""
        self.model[user, phase] = self.model.get((user, phase), NOTHING) + amount

    def add_unattributed(self, uuid: str, reason: str, amount: Amount) -> None:
        """Book energy whose user will never be known."""
        self.unattributed[uuid, reason] = self.unattributed.get((uuid, reason), NOTHING) + amount

    def add_work(self, user: User, work: Work) -> None:
        """Advance a model's tokens and requests, together with the energy of their window."""
        self.requests[user] = self.requests.get(user, 0.0) + work.requests
        for kind, count in token_kinds(work).items():
            self.tokens[user, kind] = self.tokens.get((user, kind), 0.0) + count

    def lose_work(self, user: User, work: Work, reason: str) -> None:
        """Book the tokens of a window whose energy was given up; requests are counted all the same."""
        self.requests[user] = self.requests.get(user, 0.0) + work.requests
        for kind, count in token_kinds(work).items():
            key = (user, kind, reason)
            self.lost_tokens[key] = self.lost_tokens.get(key, 0.0) + count

    def retire(self, user: User) -> None:
        """Drop a long-gone model's series; their totals stay in the sum. It starts at 0 should it return."""
        for key in [key for key in self.model if key[0] == user]:
            self.retired += self.model.pop(key)
        self.requests.pop(user, None)
        self.tokens = {key: count for key, count in self.tokens.items() if key[0] != user}
        self.lost_tokens = {key: count for key, count in self.lost_tokens.items() if key[0] != user}

    def users(self) -> frozenset[User]:
        """Every model with series on the page."""
        return frozenset(user for user, _ in self.model)
