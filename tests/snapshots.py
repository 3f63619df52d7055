"""Two nodes as snapshots: one without a GPU, and one on which everything has happened that a page can show.

Their books are kept by hand, through the bookkeeper's doors but without its split of energy, so that the golden
pages change with the page alone and not with the physics.
"""

from joulemeter import catalog
from joulemeter.accounts import NO_POD, Terms
from joulemeter.attributor import Attributor, Insight
from joulemeter.baseline import (
    BATCHES,
    RATES_TOKENS_PER_SECOND,
    Baseline,
    BaselineKey,
    BaselineWindow,
    Basis,
)
from joulemeter.baselines import Baselines
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.catalog import COST_COMPONENTS, OBSERVATION_DURATION, SAMPLE_INTERVAL
from joulemeter.engine_work import EngineWork
from joulemeter.errors import GridError
from joulemeter.grid_book import GridBook
from joulemeter.grid_polls import Polls
from joulemeter.grid_view import GridView, view
from joulemeter.grids import Place
from joulemeter.histogram import Histogram, HistogramValue
from joulemeter.model import (
    Amount,
    EnergyReading,
    EnergySource,
    Gpu,
    GpuStatus,
    GridInterval,
    GridOrigin,
    GridQuality,
    Length,
    LengthReading,
    Moves,
    Observation,
    PageReading,
    Phase,
    Pod,
    Role,
    RoleReading,
    User,
)
from joulemeter.request_energy import Weights
from joulemeter.snapshot import Priced, ServerState, Snapshot, Surroundings, compose
from joulemeter.work import Work

GRAMS_PER_JOULE = 2**-14  # about 220 g/kWh; a power of two, so that golden numbers are exact
STRANGE = 'a "quoted" \\ name\nof two lines, é 模型 \U0001f50b'
"""What a label value must survive: quotes, a backslash, a line feed, letters beyond ASCII and beyond 16 bits."""

BIG = Gpu(0, "GPU-a0", "NVIDIA H100 80GB HBM3", "580.95.05", EnergySource.COUNTER, 700.0)
SHARED = Gpu(1, "GPU-b1", "NVIDIA H100 80GB HBM3", "580.95.05", EnergySource.COUNTER, 700.0)
LOST = Gpu(2, "GPU-c2", "Tesla P4", "580.95.05", EnergySource.POWER_INTEGRATION, None)

EXACT = User("chat", "meta-llama/Llama-3.1-8B-Instruct")
STRANGER = User("twins-a", STRANGE)
UNSPLIT = User("twins-b", "embedder")
EARLY = User("early", "just-started")
GONE = User("chat", "an-older-model")


class Known(Attributor):
    """Has learned of one model, in round numbers."""

    def insight(self, user: User) -> Insight:
        if user == STRANGER:
            return Insight("measured", steps="timed")
        if user == UNSPLIT:
            return Insight("prior", steps="guessed")
        if user != EXACT:
            return super().insight(user)
        return Insight(
            "estimated",
            {Phase.PREFILL: 0.03125, Phase.DECODE: 0.078125},
            {Phase.PREFILL: 0.125, Phase.DECODE: 0.0625},
            "counted",
        )


def price(joules: float, begin_seconds: float, end_seconds: float) -> Amount:
    """Powers of two, so that golden numbers are exact."""
    hours = (end_seconds - begin_seconds) * 2**-12
    return Amount(joules, joules * GRAMS_PER_JOULE, joules * 2**-24, 2.5 * hours, joules * 2**-26)


def no_books(terms: Terms | None = None) -> Bookkeeper:
    return Bookkeeper(
        terms or Terms(),
        price=price,
        attributor=Known(),
        baselines=Baselines(604_800.0, lambda: 1767225600.25),
    )


def observed(metric_buckets: tuple[float, ...], *values_seconds: float) -> HistogramValue:
    histogram = Histogram(metric_buckets)
    for seconds in values_seconds:
        histogram.observe(seconds)
    return histogram.value()


def around(**changes: object) -> Surroundings:
    parts: dict[str, object] = {
        "at_timestamp_seconds": 1767225600.25,
        "version": "0.1.0",
        "python_version": "3.11.7",
        "simulated": False,
        "meter": "nvml",
        "meter_up": False,
        "gpus_up": frozenset(),
        "statuses": {},
        "throttle_seconds": {},
        "server_use": {},
        "servers": {},
        "grid": view(GridBook(Place("FR"), ()), {}, 0.0, 1767225600.25),
        "pue": 1.0,
        "priced": Priced(),
        "sample_intervals": observed(SAMPLE_INTERVAL.buckets),
        "process": {
            catalog.PROCESS_CPU: 12.5,
            catalog.PROCESS_MEMORY: 55e6,
            catalog.PROCESS_VIRTUAL_MEMORY: 420e6,
            catalog.PROCESS_START: 1767139200.25,
            catalog.PROCESS_OPEN_FDS: 24.0,
            catalog.PROCESS_MAX_FDS: 1024.0,
        },
    }
    return Surroundings(**parts | changes)  # type: ignore[arg-type]


def empty() -> Snapshot:
    """A node without a driver: the exporter runs, says what is missing, and shows no joule that nobody measured."""
    return compose(no_books(), around())


def full() -> Snapshot:
    """A GPU of one server's own, one shared by two, one lost under its server, and a model that is long gone."""
    return compose(
        _full_books(),
        around(
            simulated=True,
            meter_up=True,
            gpus_up=frozenset({BIG.uuid, SHARED.uuid}),
            statuses={
                BIG.uuid: GpuStatus(512.5, 700.0, 0.97, 64e9, 85.5e9, 61.0),
                SHARED.uuid: GpuStatus(power_watts=300.0),
                LOST.uuid: GpuStatus(power_watts=20.0),  # the last answer before it was lost: not shown
            },
            server_use={
                ("twins-a", SHARED.uuid): 0.625,
                ("twins-b", SHARED.uuid): 0.0,
                ("twins-b", LOST.uuid): 0.5,  # a lost GPU has no gauges
                ("gone", SHARED.uuid): 0.25,  # nor has a server that nobody watches
            },
            throttle_seconds={(BIG.uuid, "power_cap"): 12.5, (BIG.uuid, "thermal"): 0.0},
            servers={
                "chat": ServerState(True, "vllm", "0.32.0", _answers(0.002, 0.004, 3.0), {}),
                "twins-a": ServerState(True, "sglang", "0.5.23", _answers(0.03), {}),
                "early": ServerState(True, "vllm", "0.32.0", _answers(0.004), {}),
                "twins-b": ServerState(
                    False, "generic", "", _answers(0.5), {"bad_value": 2, "http_status": 1}
                ),
            },
            pue=1.25,
            priced=Priced("EUR", COST_COMPONENTS, 0.1875),
            grid=_live_grid(),
            sample_intervals=observed(SAMPLE_INTERVAL.buckets, 0.05, 0.05, 0.0501, 0.3),
            kubernetes={"api_server": True, "kubelet": False},
        ),
    )


def _live_grid() -> GridView:
    """A source that answered half an hour ago and has failed since, one that was not asked yet, a marginal signal."""
    failing, silent, marginal = Polls(900.0), Polls(900.0), Polls(300.0)
    failing.succeeded(0.0, 1767223800.0, 0.0)
    failing.failed(GridError("rate_limited", "slow down"), 900.0, 0.0)
    marginal.succeeded(0.0, 1767225500.0, 0.0)
    origin = GridOrigin("electricitymaps", "lifecycle", "consumption", "hourly", "FR")
    pushed = GridOrigin("watttime", "direct", "marginal", "5min", "FR 2025-12-01")
    return GridView(
        zone="FR",
        interval=GridInterval(1767222000.0, 3600.0, 42.5, GridQuality.MEASURED, origin),
        quality=GridQuality.STALE,
        constant="static",
        polls={"electricitymaps": failing, "energy_charts": silent, "watttime": marginal},
        marginal=GridInterval(1767225300.0, 300.0, 512.25, GridQuality.ESTIMATED, pushed),
        forecasts_grams_per_kwh={"1h": 40.5, "24h": 61.0},
        renewable_ratio=0.25,
        carbon_free_ratio=0.9375,
    )


def _answers(*values_seconds: float) -> HistogramValue:
    return observed(OBSERVATION_DURATION.buckets, *values_seconds)


def _full_books() -> Bookkeeper:
    books = no_books(Terms(idle="unattributed"))
    owned = {"chat": BIG, "twins-a": SHARED, "twins-b": SHARED, "early": LOST}
    for name, gpu in owned.items():
        pod = Pod("team-b", "twins-a-0", "uid") if name == "twins-a" else NO_POD
        books.expect_server(name, name, 1000.0, counts_tokens=True, pod=pod)
        books.own(name, frozenset({gpu.uuid}), 1000.0)
    for user, has_phases in ((EXACT, True), (STRANGER, True), (UNSPLIT, False), (EARLY, True)):
        running = RoleReading(Role.RUNNING, user.model, "running", 3.0, None)
        generated = RoleReading(Role.GENERATION, user.model, "generated", 7.0, Moves.STEP)
        none = LengthReading(Length.GENERATION, user.model, "", (500,), (0, 0), 0)
        page = PageReading("vllm", (generated, running), lengths=(none,) if user == EXACT else ())
        books.observe(Observation(user.server, 1001.0, page), has_phases=has_phases)
    _measure(books)
    _settle(books)
    _finish(books)
    _compare(books)
    return books


def _finish(books: Bookkeeper) -> None:
    """One request of 600 prompt tokens and 5 generated ones finishes on the server with a GPU of its own."""
    history = books.servers[EXACT.server].history
    page = PageReading(
        "vllm",
        (
            RoleReading(Role.GENERATION, EXACT.model, "generated", 31.0, Moves.STEP),
            RoleReading(Role.RUNNING, EXACT.model, "running", 3.0, None),
        ),
        lengths=(
            LengthReading(Length.PROMPT, EXACT.model, "", (500,), (0, 1), 600),
            LengthReading(Length.GENERATION, EXACT.model, "", (500,), (1, 1), 5),
        ),
    )
    books.observe(Observation(EXACT.server, 1003.0, page), has_phases=True)
    books.requests.settle(EXACT, history, (1001.0, 1003.0), Weights(2.0, 1.0))


def _compare(books: Bookkeeper) -> None:
    """One model with a baseline that another node froze, one whose baseline has just begun."""
    assert books.baselines is not None
    frozen = Baseline.begun(BaselineKey(EXACT.model, BIG.product, 1), 1766620800.0)
    frozen.learning = None
    frozen.coefficients = {
        Basis.ENGINE: (128.0, 2.5, 0.015625, 0.03125, 0.0, *(0.0 for _ in BATCHES)),
        Basis.LOAD: (128.0, 0.015625, 0.125, *(0.0 for _ in RATES_TOKENS_PER_SECOND)),
    }
    books.baselines.adopt([frozen], replace=True)
    window = BaselineWindow(32.0, 32.0, 1, 16384.0, EngineWork(4096.0, 8.0, 3200.0, 2400.0, 1e6))
    for until_seconds in (1032.0, 1128.0):
        books.baselines.settle_window(EXACT, frozen.key, window, until_seconds)
        begun = BaselineKey(STRANGER.model, SHARED.product, 1)
        books.baselines.settle_window(STRANGER, begun, window, until_seconds)


def _measure(books: Bookkeeper) -> None:
    """512 W, 256 W and 64 W for 64 seconds; then a counter restarts, and a GPU is away for a while."""
    for second in range(65):
        for gpu, watts in ((BIG, 512.0), (SHARED, 256.0), (LOST, 64.0)):
            books.meter(gpu, [EnergyReading(gpu.uuid, 4096.0 + second * watts, 1000.0 + second, watts)])
    books.meter(SHARED, [EnergyReading(SHARED.uuid, 16.0, 1065.0)])
    books.meter(LOST, [EnergyReading(LOST.uuid, 16384.0, 1096.0)])


def _settle(books: Bookkeeper) -> None:
    """Move most of what was measured, by hand, to where it can go."""
    ledger = books.ledger
    shares = (
        (
            BIG,
            {
                (EXACT, Phase.PREFILL): 0.25,
                (EXACT, Phase.DECODE): 0.5,
                "idle": 0.125,
                (GONE, Phase.DECODE): 0.125,
            },
        ),
        (SHARED, {(STRANGER, Phase.DECODE): 0.5, (UNSPLIT, Phase.UNSPLIT): 0.25, "server_unreachable": 0.25}),
        (LOST, {"no_server": 1.0}),
    )
    for gpu, parts in shares:
        amount = books.gpus[gpu.uuid].take(1060.0)
        for whose, share in parts.items():
            if isinstance(whose, str):
                ledger.add_unattributed(gpu.uuid, whose, amount.scaled(share))
            else:
                ledger.add_model(*whose, amount.scaled(share))
    ledger.retire(GONE)
    ledger.add_work(EXACT, Work(3200.0, 1600.0, 2400.0, 8.0))
    ledger.add_work(STRANGER, Work(generation_tokens=1e15 + 0.5))
    ledger.lose_work(UNSPLIT, Work(generation_tokens=10.0, requests=1.0), "server_unreachable")
