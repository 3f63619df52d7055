"""All that /metrics shows at one instant: an immutable table of samples, composed from the books. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from joulemeter import catalog
from joulemeter.accounts import ServerAccount
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.catalog import Metric
from joulemeter.grid_view import GridView
from joulemeter.histogram import HistogramValue
from joulemeter.model import Amount, Gpu, GpuStatus, User

Labels = tuple[str, ...]
Samples = dict[Labels, float]


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a server's watch knows beside its counters."""

    up: bool
    dialect: str
    version: str
    response_seconds: HistogramValue
    refused_pages: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Priced:
    """What has a price: its components (`catalog.COST_COMPONENTS`), the currency, and the price of a kWh now."""

    currency: str = ""
    components: tuple[str, ...] = ()
    price_per_kwh: float | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a snapshot shows beside the books."""

    at_timestamp_seconds: float
    version: str
    python_version: str
    simulated: bool
    meter: str
    meter_up: bool
    gpus_up: frozenset[str]
    statuses: Mapping[str, GpuStatus]
    throttle_seconds: Mapping[tuple[str, str], float]
    server_use: Mapping[tuple[str, str], float]
    servers: Mapping[str, ServerState]
    grid: GridView
    pue: float
    priced: Priced
    sample_intervals: HistogramValue
    kubernetes: Mapping[str, bool] = field(default_factory=dict)
    """Whether the API server and the kubelet answered when they were last asked, where pods are looked for."""
    process: Mapping[Metric, float] = field(default_factory=dict)
    """What the daemon's own process takes."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Samples by metric name and label values; published by one assignment, never changed."""

    samples: Mapping[str, Mapping[Labels, float]]
    histograms: Mapping[str, Mapping[Labels, HistogramValue]] = field(default_factory=dict)


def compose(books: Bookkeeper, around: Surroundings) -> Snapshot:
    """Write down the books and their surroundings; unknown values are absent (law 3)."""
    samples: dict[str, Samples] = {}
    for part in (
        _energy(books, around.priced),
        _credit(books, around.priced),
        _work(books),
        _estimates(books),
        _expectation(books),
        _hardware(books, around),
        _servers(books, around),
        _use(books, around),
        around.grid.rows(),
        _own(around),
    ):
        for metric, labels, value in part:
            samples.setdefault(metric.name, {})[labels] = value
    answered: dict[Labels, HistogramValue] = {
        (name,): state.response_seconds for name, state in around.servers.items() if state.dialect
    }
    return Snapshot(
        samples,
        {
            catalog.SAMPLE_INTERVAL.name: {(): around.sample_intervals},
            catalog.OBSERVATION_DURATION.name: answered,
            catalog.MODEL_REQUEST_ENERGY.name: {
                _served(books, user): energy.value() for user, energy in books.requests.histograms.items()
            },
        },
    )


EXCLUSIVE, SHARED = catalog.METHODS
UNSPLIT = catalog.SPLITS[-1]
Row = tuple[Metric, Labels, float]


def _gpu(gpu: Gpu) -> Labels:
    return (str(gpu.index), gpu.uuid)


def _served(books: Bookkeeper, user: User) -> Labels:
    pod = books.servers[user.server].pod
    return (user.server, user.model, pod.namespace, pod.name)


@dataclass(frozen=True, slots=True)
class Books:
    """The series of one place that amounts are in."""

    joules: Metric
    grams: Metric
    cost: Metric

    def rows(self, labels: Labels, amount: Amount, priced: Priced) -> Iterator[Row]:
        """Yield an amount's energy, CO2e and, of what has a price, the cost."""
        yield self.joules, labels, amount.energy_joules
        yield self.grams, labels, amount.co2e_grams
        costs = dict(
            zip(catalog.COST_COMPONENTS, (amount.electricity_cost, amount.compute_cost), strict=True)
        )
        for component in priced.components:
            yield self.cost, (*labels, component, priced.currency), costs[component]


MEASURED = Books(catalog.GPU_ENERGY, catalog.GPU_CO2E, catalog.GPU_COST)
ATTRIBUTED = Books(catalog.MODEL_ENERGY, catalog.MODEL_CO2E, catalog.MODEL_COST)
UNATTRIBUTED = Books(catalog.UNATTRIBUTED_ENERGY, catalog.UNATTRIBUTED_CO2E, catalog.UNATTRIBUTED_COST)
PENDING = Books(catalog.PENDING_ENERGY, catalog.PENDING_CO2E, catalog.PENDING_COST)
RETIRED = Books(catalog.RETIRED_ENERGY, catalog.RETIRED_CO2E, catalog.RETIRED_COST)


def _energy(books: Bookkeeper, priced: Priced) -> Iterator[Row]:
    ledger = books.ledger
    for account in books.gpus.values():
        labels = _gpu(account.gpu)
        yield from MEASURED.rows(labels, account.measured, priced)
        yield from PENDING.rows(labels, account.pending, priced)
        yield catalog.METER_RESETS, labels, account.resets
        if account.crosscheck.ratio is not None:
            yield catalog.CROSSCHECK, labels, account.crosscheck.ratio
    for (uuid, reason), amount in ledger.unattributed.items():
        yield from UNATTRIBUTED.rows((*_gpu(books.gpus[uuid].gpu), reason), amount, priced)
    for (user, phase), amount in ledger.model.items():
        yield from ATTRIBUTED.rows((*_served(books, user), phase), amount, priced)
    if books.gpus:
        yield from RETIRED.rows((), ledger.retired, priced)


def _credit(books: Bookkeeper, priced: Priced) -> Iterator[Row]:
    if priced.price_per_kwh is not None:
        credit = sum(account.measured.energy_credit for account in books.gpus.values())
        yield catalog.ENERGY_CREDIT, (priced.currency,), credit
        yield catalog.PRICE, (priced.currency,), priced.price_per_kwh


def _work(books: Bookkeeper) -> Iterator[Row]:
    ledger = books.ledger
    for (user, kind), count in ledger.tokens.items():
        yield catalog.MODEL_TOKENS, (*_served(books, user), kind), count
    for user, count in ledger.requests.items():
        yield catalog.MODEL_REQUESTS, _served(books, user), count
    for (user, kind, reason), count in ledger.lost_tokens.items():
        yield catalog.UNATTRIBUTED_TOKENS, (*_served(books, user), kind, reason), count


def _estimates(books: Bookkeeper) -> Iterator[Row]:
    for name, account in books.servers.items():
        for model in account.history.loaded if account.has_phases else ():
            insight = books.attributor.insight(User(name, model))
            for phase, ratio in insight.uncertainty_ratio.items():
                yield catalog.PHASE_UNCERTAINTY, (*_served(books, User(name, model)), phase), ratio
            for phase, joules in insight.joules_per_token.items():
                yield catalog.JOULES_PER_TOKEN, (*_served(books, User(name, model)), phase), joules


def _expectation(books: Bookkeeper) -> Iterator[Row]:
    if books.baselines is None:
        return
    for (user, baseline), comparison in books.baselines.comparisons.items():
        for basis, expected_joules in comparison.expected_joules.items():
            labels = (*_served(books, user), basis, baseline)
            yield catalog.MODEL_COMPARED_ENERGY, labels, comparison.compared_joules
            yield catalog.MODEL_EXPECTED_ENERGY, labels, expected_joules
    for user, followed, in_range in books.baselines.followed():
        yield catalog.MODEL_BASELINE_INFO, (*_served(books, user), followed.id, followed.state), 1
        if in_range is not None:
            yield catalog.MODEL_BASELINE_IN_RANGE, _served(books, user), in_range


def _hardware(books: Bookkeeper, around: Surroundings) -> Iterator[Row]:
    for uuid, account in books.gpus.items():
        labels, status = _gpu(account.gpu), around.statuses.get(uuid, GpuStatus())
        gpu = account.gpu
        yield catalog.GPU_INFO, (*labels, gpu.product, gpu.driver_version, gpu.energy_source), 1
        yield catalog.SOURCE_UP, ("gpu", uuid), uuid in around.gpus_up
        if uuid not in around.gpus_up:
            continue  # a lost GPU's gauges disappear
        for metric, value in (
            (catalog.GPU_POWER, status.power_watts),
            (catalog.GPU_POWER_LIMIT, status.power_limit_watts),
            (catalog.GPU_UTILIZATION, status.utilization_ratio),
            (catalog.GPU_MEMORY_USED, status.memory_used_bytes),
            (catalog.GPU_MEMORY_TOTAL, status.memory_total_bytes),
            (catalog.GPU_TEMPERATURE, status.temperature_celsius),
        ):
            if value is not None:
                yield metric, labels, value
    for (uuid, reason), seconds in around.throttle_seconds.items():
        if uuid in books.gpus:
            yield catalog.GPU_THROTTLE, (*_gpu(books.gpus[uuid].gpu), reason), seconds


def _servers(books: Bookkeeper, around: Surroundings) -> Iterator[Row]:
    for name, state in around.servers.items():
        yield catalog.SOURCE_UP, ("server", name), state.up
        for reason in catalog.REFUSAL_REASONS:
            yield catalog.REFUSED_PAGES, (name, reason), state.refused_pages.get(reason, 0)
        account = books.servers[name]
        for model in sorted(account.history.loaded):
            served = _served(books, User(name, model))
            gpus = [books.gpus[uuid].gpu for uuid in sorted(account.uses & books.gpus.keys())]
            product = ", ".join(sorted({gpu.product for gpu in gpus}))
            insight = books.attributor.insight(User(name, model))
            split = (insight.split if account.has_phases else UNSPLIT) if gpus else ""
            method = _method(books, name, account) if gpus else ""
            how = (state.dialect, state.version, method, split, insight.steps, product)
            yield catalog.SERVER_INFO, (*served, *how), 1
            for gpu in gpus:
                yield catalog.SERVER_GPU_INFO, (*served, *_gpu(gpu)), 1
            running = account.history.running(model)
            if state.up and running is not None:
                yield catalog.MODEL_REQUESTS_RUNNING, served, running


def _use(books: Bookkeeper, around: Surroundings) -> Iterator[Row]:
    for (name, uuid), ratio in around.server_use.items():
        account = books.servers.get(name)
        if account is not None and uuid in account.uses and uuid in around.gpus_up & books.gpus.keys():
            yield catalog.SERVER_GPU_UTILIZATION, (name, *_gpu(books.gpus[uuid].gpu)), ratio


def _method(books: Bookkeeper, name: str, account: ServerAccount) -> str:
    """Whether a model has its GPUs to itself."""
    alone = len(account.history.loaded) == 1 and not any(
        account.uses & other.uses for other_name, other in books.servers.items() if other_name != name
    )
    return EXCLUSIVE if alone else SHARED


def _own(around: Surroundings) -> Iterator[Row]:
    yield catalog.PUE, (), around.pue
    yield catalog.SOURCE_UP, ("meter", around.meter), around.meter_up
    for source, up in around.kubernetes.items():
        yield catalog.SOURCE_UP, ("kubernetes", source), up
    yield catalog.LAST_TICK, (), around.at_timestamp_seconds
    yield catalog.SIMULATED, (), around.simulated
    yield catalog.BUILD_INFO, (around.version, around.python_version), 1
    for metric, value in around.process.items():
        yield metric, (), value
