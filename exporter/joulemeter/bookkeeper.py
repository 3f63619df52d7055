"""The books of one node: energy readings and observations in, settled windows out. Pure, and told the time.

A GPU has a timeline of what was measured and a cursor up to which it is settled; what lies between is pending.
A window is the stretch from the cursor to the next edge: the midpoint of an observation that every timeline
and every server of the owner group has passed. Cursors hold cumulative values, not times alone, so nothing
falls between two windows and nothing is in two (laws 1 and 2).
"""

from collections.abc import Iterable, Mapping

from joulemeter.accounts import NO_POD, WINDOW_SECONDS, GpuAccount, Price, ServerAccount, Terms
from joulemeter.attributor import Attributed, Attributor
from joulemeter.baselines import Baselines, SettledGpu
from joulemeter.history import ServerHistory
from joulemeter.ledger import Ledger
from joulemeter.model import NOTHING, Amount, EnergyReading, Gpu, Observation, Phase, Pod, User
from joulemeter.ownership import OwnerGroup, owner_groups
from joulemeter.request_books import RequestBooks
from joulemeter.request_energy import Weights
from joulemeter.windows import Measured, Used


class Bookkeeper:
    """Keeps the ledger of one node. Every method takes the time; none asks for it."""

    def __init__(
        self,
        terms: Terms,
        *,
        price: Price,
        attributor: Attributor,
        baselines: Baselines | None = None,
    ) -> None:
        self._terms = terms
        self._price = price
        self.attributor = attributor
        self.baselines = baselines
        self._loaded_at_seconds: dict[User, float] = {}
        self.gpus: dict[str, GpuAccount] = {}
        self.servers: dict[str, ServerAccount] = {}
        self.ledger = Ledger()
        self.requests = RequestBooks(self.ledger)

    # ------------------------------------------------------------------------------------------ taking in

    def expect_server(
        self,
        name: str,
        default_model: str,
        now_seconds: float,
        *,
        counts_tokens: bool,
        pod: Pod = NO_POD,
    ) -> None:
        """A server that is to be watched; GPUs without an owner are held pending until its GPUs are known.

        A name may be used again once `is_free`; the totals of its series go on.
        """
        history = ServerHistory(
            keep_seconds=self._terms.keep_seconds, forget_seconds=self._terms.series_ttl_seconds
        )
        self.servers[name] = ServerAccount(default_model, counts_tokens, now_seconds, history, pod)

    def release(self, name: str) -> None:
        """A server that is gone: what it did until it last answered will be its own, then its GPUs are free."""
        self.servers[name].leaving = True

    def is_free(self, name: str) -> bool:
        """Say whether nothing of a server of that name is left to be settled."""
        server = self.servers.get(name)
        return server is None or server.gone

    def meter(self, gpu: Gpu, readings: Iterable[EnergyReading]) -> None:
        """Take in one GPU's readings, oldest first; they are priced now, when they are measured."""
        for reading in readings:
            account = self.gpus.get(gpu.uuid)
            if account is None:
                account = self.gpus[gpu.uuid] = GpuAccount.opened(gpu, reading.at_seconds, self._terms)
                self.ledger.open_gpu(gpu.uuid, self._terms.reasons)
            unplaced = account.read(reading, self._price)
            if unplaced is not NOTHING:
                self.ledger.add_unattributed(gpu.uuid, "meter_gap", unplaced)

    def observe(
        self, observation: Observation, *, has_phases: bool, default_model: str | None = None
    ) -> None:
        """Take in a server's page."""
        server = self.servers[observation.server]
        server.has_phases = has_phases
        server.default_model = default_model or server.default_model
        server.history.observe(observation, default_model=server.default_model)
        if server.settled_until_seconds is None:
            server.settled_until_seconds = observation.at_seconds
        phases = (Phase.PREFILL, Phase.DECODE, Phase.IDLE) if has_phases else (Phase.UNSPLIT, Phase.IDLE)
        for model in server.history.loaded:
            user = User(observation.server, model)
            if user not in self._loaded_at_seconds:
                self.ledger.open_user(user, phases, tokens=server.counts_tokens)
                server.hold_until_seconds = observation.at_seconds + self._terms.zero_hold_seconds
            self._loaded_at_seconds[user] = observation.at_seconds
        if server.counts_tokens:
            self.requests.begin(observation.server, server.history)

    def own(self, name: str, uuids: frozenset[str], now_seconds: float) -> None:
        """Say which GPUs a server uses. While that cannot be told, what was said last stands.

        That it uses none is believed only once it is given up: before, it may be restarting, and its last
        window is its own.
        """
        server = self.servers[name]
        if uuids or now_seconds - server.heard_at_seconds > self._terms.give_up_seconds:
            server.uses = uuids

    # ------------------------------------------------------------------------------------------ settling

    def settle(self, now_seconds: float) -> None:
        """Close every window that can be closed now, and give up what has waited too long."""
        for server in self.servers.values():
            if now_seconds - server.heard_at_seconds > self._terms.series_ttl_seconds:
                server.uses = frozenset()
        known = {name: server.uses & self.gpus.keys() for name, server in self.servers.items()}
        groups = owner_groups(known)
        for group in groups:
            self._settle_group(group, known, now_seconds)
        owned = {uuid for group in groups for uuid in group.gpus}
        for name, server in self.servers.items():
            if not known[name] and now_seconds - server.wanted_since_seconds > self._terms.give_up_seconds:
                self._lose(name, now_seconds, "no_gpu")
        self._let_go(known, now_seconds)
        if any(
            not known[name] and now_seconds - server.wanted_since_seconds <= self._terms.give_up_seconds
            for name, server in self.servers.items()
            if not server.gone
        ):
            owned = set(self.gpus)  # whose they are may be known soon
        for uuid in self.gpus.keys() - owned:
            self._settle_unattributed(uuid, "no_server", now_seconds)
        self._retire(now_seconds)

    def _settle_group(
        self, group: OwnerGroup, known: Mapping[str, frozenset[str]], now_seconds: float
    ) -> None:
        silent = [
            name
            for name in group.servers
            if now_seconds - self.servers[name].heard_at_seconds > self._terms.give_up_seconds
        ]
        given_up = frozenset[str]().union(*(known[name] for name in silent))
        for uuid in given_up:
            self._settle_unattributed(uuid, "server_unreachable", now_seconds)
        for name in group.servers:
            if known[name] <= given_up:
                self._lose(name, now_seconds, "server_unreachable")
        heard = {name: known[name] - given_up for name in group.servers if not known[name] <= given_up}
        if not heard:
            return
        gpus = [self.gpus[uuid] for uuid in group.gpus if uuid not in given_up]
        holds = [self.servers[name].hold_until_seconds for name in heard] + [
            a.hold_until_seconds for a in gpus
        ]
        waiting_seconds = now_seconds - min(account.settled_until_seconds for account in gpus)
        if now_seconds < max(holds) and waiting_seconds < self._terms.hold_most_seconds:
            return
        limit = min(
            *(self.servers[name].heard_at_seconds for name in heard),
            *(self._covered_until(account, now_seconds) for account in gpus),
        )
        while (edge := self._next_edge(heard, gpus, limit)) is not None:
            self._close(heard, edge)

    def _next_edge(
        self, heard: Iterable[str], gpus: Iterable[GpuAccount], limit_seconds: float
    ) -> float | None:
        """The first observation midpoint that ends a window, or None while everything is too recent.

        The last one of a server that is gone ends its last window, however short.
        """
        start = max(account.settled_until_seconds for account in gpus)
        servers = [self.servers[name] for name in heard]
        midpoints = (
            midpoint
            for server in servers
            for midpoint in server.history.midpoints_between(start, limit_seconds)
            if midpoint - start >= WINDOW_SECONDS or (server.leaving and midpoint == server.heard_at_seconds)
        )
        return min(midpoints, default=None)

    def _let_go(self, known: Mapping[str, frozenset[str]], now_seconds: float) -> None:
        """Free the GPUs of servers that are gone and settled, or that cannot be settled in time."""
        for name, server in self.servers.items():
            if not server.leaving or server.gone:
                continue
            settled = all(
                self.gpus[uuid].settled_until_seconds >= server.heard_at_seconds for uuid in known[name]
            )
            silent = now_seconds - server.heard_at_seconds > self._terms.give_up_seconds
            if settled or silent or server.settled_until_seconds is None:
                self._lose(name, now_seconds, "server_unreachable" if known[name] else "no_gpu")
                server.uses, server.gone = frozenset(), True
                server.history.loaded = frozenset()

    def _close(self, heard: Mapping[str, frozenset[str]], edge_seconds: float) -> None:
        """Attribute every GPU's energy from its cursor to the edge, and publish the work done with it."""
        uses = self._take_work(heard, edge_seconds)
        used = frozenset[str]().union(*(use.gpus for use in uses.values()))
        measured: dict[str, Measured] = {}
        amounts: dict[str, Amount] = {}
        for uuid in frozenset[str]().union(*heard.values()):
            account = self.gpus[uuid]
            seconds = edge_seconds - account.settled_until_seconds
            ticks = account.timeline.ticks(account.settled_until_seconds, edge_seconds)
            amount = account.take(edge_seconds)
            if amount.energy_joules == 0 or uuid not in used:
                self.ledger.add_unattributed(uuid, "no_server", amount)
                continue
            amounts[uuid] = amount
            measured[uuid] = Measured(account.gpu, amount.energy_joules, seconds, tuple(ticks))
        attributed = self.attributor.attribute(measured, uses)
        for uuid, parts in attributed.parts.items():
            for (user, phase), joules in parts.items():
                part = amounts[uuid].scaled(joules / amounts[uuid].energy_joules)
                if phase is Phase.IDLE and self._terms.idle == "unattributed":
                    self.ledger.add_unattributed(uuid, "idle", part)
                else:
                    self.ledger.add_model(user, phase, part)
        for user in uses:
            self._settle_requests(user)
        self._compare(measured, attributed, uses, edge_seconds)

    def _settle_requests(self, user: User) -> None:
        """Count a model's requests of the window that was just attributed."""
        step, _, token, context_token = self.attributor.engine_joules(user)
        server = self.servers[user.server]
        self.requests.settle(user, server.history, server.taken_seconds, Weights(step, token, context_token))

    def _compare(
        self,
        measured: Mapping[str, Measured],
        attributed: Attributed,
        uses: Mapping[User, Used],
        edge_seconds: float,
    ) -> None:
        """Let the baselines see the window, where all its energy and all its work are known."""
        if self.baselines is None:
            return
        gpus = {
            uuid: SettledGpu(
                window.gpu.product,
                window.duration_seconds,
                attributed.busy_seconds[uuid],
                attributed.parts[uuid],
            )
            for uuid, window in measured.items()
            if edge_seconds - window.duration_seconds >= self.gpus[uuid].gap_until_seconds
        }
        counted = {
            user: self.servers[user.server].uses
            for user, use in uses.items()
            if use.loaded and self.servers[user.server].counts_tokens
        }
        self.baselines.settle(gpus, counted, attributed.works, edge_seconds)

    def _take_work(self, heard: Mapping[str, frozenset[str]], edge_seconds: float) -> dict[User, Used]:
        """Move the servers' cursors to the edge; what they passed is published with its energy."""
        uses: dict[User, Used] = {}
        for name, uuids in heard.items():
            server = self.servers[name]
            begun_seconds = min(self.gpus[uuid].settled_until_seconds for uuid in uuids)
            if server.settled_until_seconds is not None and server.settled_until_seconds < begun_seconds:
                self._lose(name, begun_seconds, "server_unreachable")  # its energy of that time was given up
            for model, work in server.take(edge_seconds).items():
                loaded = model in server.history.loaded
                if not loaded and not work.any:
                    continue
                user = User(name, model)
                if server.counts_tokens:
                    self.ledger.add_work(user, work)
                uses[user] = Used(
                    work,
                    uuids,
                    server.has_phases,
                    loaded,
                    server.opening(model),
                    server.page_seconds,
                    server.running(model),
                )
        return uses

    def _settle_unattributed(self, uuid: str, reason: str, now_seconds: float) -> None:
        account = self.gpus[uuid]
        if now_seconds < account.hold_until_seconds:
            return
        until_seconds = min(now_seconds, self._covered_until(account, now_seconds))
        if until_seconds > account.settled_until_seconds:
            self.ledger.add_unattributed(uuid, reason, account.take(until_seconds))

    def _lose(self, name: str, until_seconds: float, reason: str) -> None:
        server = self.servers[name]
        if server.settled_until_seconds is None:
            return
        for model, work in server.take(until_seconds).items():
            if server.counts_tokens and work.any:
                self.ledger.lose_work(User(name, model), work, reason)

    def _covered_until(self, account: GpuAccount, now_seconds: float) -> float:
        """Up to where a GPU's energy is known; a GPU lost for long keeps nobody waiting."""
        lost_seconds = now_seconds - account.timeline.read_at_seconds
        if lost_seconds > self._terms.give_up_seconds:
            return now_seconds
        return account.timeline.covered_until_seconds

    # ------------------------------------------------------------------------------------------ coming, going

    def _retire(self, now_seconds: float) -> None:
        """Drop the series of models that have not been seen for `series_ttl_seconds`."""
        for user, at_seconds in list(self._loaded_at_seconds.items()):
            if now_seconds - at_seconds > self._terms.series_ttl_seconds:
                self.ledger.retire(user)
                self.requests.retire(user)
                self.attributor.forget(user)
                if self.baselines is not None:
                    self.baselines.forget(user)
                del self._loaded_at_seconds[user]
                server = self.servers[user.server]
                server.history.forget(user.model)
                server.settled.pop(user.model, None)
        kept = {user.server for user in self._loaded_at_seconds}
        for name in [name for name, server in self.servers.items() if server.gone and name not in kept]:
            del self.servers[name]
        if self.baselines is not None:
            self.baselines.retire(now_seconds, self._terms.series_ttl_seconds)
