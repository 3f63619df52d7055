"""Law 1 under every fault at once: a state machine interleaves them with readings and checks after each step."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from nodes import Node, imbalance

from joulemeter.accounts import Terms

GPUS = st.integers(0, 2)
SERVERS = st.sampled_from(["a", "b", "c"])


class Faults(RuleBasedStateMachine):
    """Three GPUs, three servers of which two may share, and whatever happens to them."""

    def __init__(self) -> None:
        super().__init__()
        self.node = Node(3, Terms(give_up_seconds=15, zero_hold_seconds=3, series_ttl_seconds=60))
        self.node.serve("a", 0, 1)
        self.node.serve("b", 1)
        self.node.serve("c")

    @rule(seconds=st.floats(0.1, 25), prompt=st.integers(0, 5000), generation=st.integers(0, 5000))
    def time_passes(self, seconds: float, prompt: int, generation: int) -> None:
        self.node.run(seconds, prompt=prompt, generation=generation)

    @rule(gpu=GPUS, watts=st.sampled_from([0.0, 70.0, 699.0]))
    def draw_changes(self, gpu: int, watts: float) -> None:
        self.node.watts[gpu] = watts

    @rule(gpu=GPUS, lost=st.booleans())
    def gpu_is_lost_or_returns(self, gpu: int, lost: bool) -> None:
        (self.node.lost.add if lost else self.node.lost.discard)(gpu)

    @rule(gpu=GPUS, to=st.sampled_from([0.0, 12.5, 1e12]))
    def counter_is_reset_or_jumps(self, gpu: int, to: float) -> None:
        self.node.counted[gpu] = to

    @rule(server=SERVERS)
    def server_goes_or_its_name_is_taken(self, server: str) -> None:
        if server in self.node.servers:
            self.node.gone(server)
        elif self.node.books.is_free(server):
            self.node.serve(server)

    @rule(server=SERVERS, up=st.booleans())
    def server_is_silent_or_answers(self, server: str, up: bool) -> None:
        if server in self.node.servers:
            self.node.servers[server].up = up

    @rule(server=SERVERS)
    def server_restarts(self, server: str) -> None:
        if server in self.node.servers:
            self.node.servers[server].restart()

    @rule(server=SERVERS, model=st.sampled_from(["x", "y"]))
    def model_is_swapped(self, server: str, model: str) -> None:
        if server in self.node.servers:
            self.node.servers[server].model = model

    @rule(server=SERVERS, gpus=st.frozensets(GPUS))
    def ownership_changes(self, server: str, gpus: frozenset[int]) -> None:
        if server in self.node.servers:
            self.node.books.own(server, frozenset(f"GPU-{gpu}" for gpu in gpus), self.node.now_seconds)

    @rule(seconds=st.floats(1, 200))
    def the_daemon_is_stopped_for_a_while(self, seconds: float) -> None:
        for index, watts in self.node.watts.items():
            self.node.counted[index] += watts * seconds
        self.node.now_seconds += seconds

    @invariant()
    def every_joule_and_gram_is_in_exactly_one_place(self) -> None:
        assert imbalance(self.node.books) < 1e-9

    @invariant()
    def no_counter_is_negative_or_falls(self) -> None:
        ledger = self.node.books.ledger
        now = {
            **{("tokens", key): value for key, value in ledger.tokens.items()},
            **{("requests", key): value for key, value in ledger.requests.items()},
            **{("lost", key): value for key, value in ledger.lost_tokens.items()},
            **{("model", key): value.energy_joules for key, value in ledger.model.items()},
            **{("unattributed", key): value.energy_joules for key, value in ledger.unattributed.items()},
        }
        before = getattr(self, "before", {})
        for key, value in now.items():
            if key in before and not (value == 0 and before[key] > 0):  # a retired series starts again at 0
                assert value >= before[key] * (1 - 1e-12) - 1e-9, key
        self.before = now


Faults.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestFaults = Faults.TestCase
