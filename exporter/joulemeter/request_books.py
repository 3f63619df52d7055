"""Every model's joules per finished request, window by window. Pure; kept beside the ledger, never part of its sums."""

from dataclasses import dataclass, field

from joulemeter.catalog import MODEL_REQUEST_ENERGY
from joulemeter.history import ServerHistory
from joulemeter.ledger import Ledger
from joulemeter.model import Phase, User
from joulemeter.request_energy import RequestEnergy, Settled, Weights, stretches


@dataclass(slots=True)
class _Account:
    """One model's histogram, and what the ledger had attributed to it when it was last settled."""

    energy: RequestEnergy
    prefill_joules: float
    decode_joules: float


@dataclass(slots=True)
class RequestBooks:
    """A histogram for each model whose server tells the lengths of finished requests; none for the others."""

    ledger: Ledger
    _accounts: dict[User, _Account] = field(default_factory=dict)

    @property
    def histograms(self) -> dict[User, RequestEnergy]:
        """What there is to publish."""
        return {user: account.energy for user, account in self._accounts.items()}

    def begin(self, server: str, history: ServerHistory) -> None:
        """Publish a model's empty histogram once its server tells lengths, so that `increase()` sees its birth.

        A model that only the lengths name has no energy and no other series, and is not published.
        """
        for model in history.finished.models & history.loaded:
            user = User(server, model)
            if user not in self._accounts:
                energy = RequestEnergy(MODEL_REQUEST_ENERGY.buckets)
                self._accounts[user] = _Account(energy, *self._attributed_joules(user))

    def settle(
        self,
        user: User,
        history: ServerHistory,
        taken_seconds: tuple[float, float],
        weights: Weights,
    ) -> None:
        """Count the requests of a window whose energy the ledger has just been given; of each window once.

        `taken_seconds`: beginning, which is left out, and end of it on the server's side.
        """
        after_seconds, until_seconds = taken_seconds
        account = self._accounts.get(user)
        if account is None:
            return
        prefill_joules, decode_joules = self._attributed_joules(user)
        settled = Settled(
            max(0.0, prefill_joules - account.prefill_joules),
            max(0.0, decode_joules - account.decode_joules),
            stretches(history, user.model, after_seconds, until_seconds),
        )
        account.prefill_joules, account.decode_joules = prefill_joules, decode_joules
        account.energy.settle(
            settled,
            [
                one
                for one in history.finished.between(after_seconds, until_seconds)
                if one.model == user.model
            ],
            weights,
            limit_joules=prefill_joules + decode_joules,
        )

    def retire(self, user: User) -> None:
        """Drop a long-gone model's histogram; it starts at 0 should it return."""
        self._accounts.pop(user, None)

    def _attributed_joules(self, user: User) -> tuple[float, float]:
        prefill, decode = (self.ledger.model.get((user, phase)) for phase in (Phase.PREFILL, Phase.DECODE))
        return (prefill.energy_joules if prefill else 0.0, decode.energy_joules if decode else 0.0)
