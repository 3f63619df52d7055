"""A played exporter with its own truth, scraped into what Prometheus would hold: for tests of the report."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from joulemeter import catalog
from joulemeter.catalog import Metric
from joulemeter.report.sources import Series
from joulemeter.report.tally import CO2E, COST, ENERGY, Books

BOOKS = (ENERGY, CO2E, COST)
Amount = tuple[float, float, float]
"""Joules, grams, money."""
NOTHING: Amount = (0.0, 0.0, 0.0)
NO_TOKENS = (0.0, 0.0, 0.0, 0.0)
"""By kind, and last the requests."""
Labels = frozenset[tuple[str, str]]
Store = dict[tuple[str, Labels], dict[float, float]]
"""Samples by name and labels, as scraped."""


def plus(one: Amount, other: Amount, times: float = 1.0) -> Amount:
    return (one[0] + other[0] * times, one[1] + other[1] * times, one[2] + other[2] * times)


@dataclass
class Line:
    """A series on the page; `birth` tells it from one of the same labels before a restart or a retirement."""

    metric: Metric
    own: tuple[str, ...]
    value: float
    birth: int = 0


@dataclass
class Page:
    at: float
    life: int
    newborn: bool
    lines: list[Line]


@dataclass
class Exporter:
    """One node: two GPUs, models that come and go, and the books of a daemon that may restart."""

    target: Mapping[str, str]
    gpus: tuple[str, ...] = ("GPU-a", "GPU-b")
    currency: str = "EUR"
    about: Iterable[tuple[Metric, tuple[str, ...], float]] = ()
    life: int = 0
    births: int = 0
    pages: list[Page] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.measured: dict[str, Amount] = dict.fromkeys(self.gpus, NOTHING)
        self.pending: dict[str, Amount] = dict.fromkeys(self.gpus, NOTHING)
        self.unattributed: dict[str, Amount] = dict.fromkeys(self.gpus, NOTHING)
        self.models: dict[str, Amount] = {}
        self.born: dict[str, int] = {}
        self.tokens: dict[str, list[float]] = {}
        self.credit = 0.0
        self.retired = NOTHING

    def restart(self) -> None:
        self.life += 1
        self._begin()

    def load(self, model: str) -> None:
        self.births += 1
        self.models[model] = NOTHING
        self.born[model] = self.births
        self.tokens[model] = list(NO_TOKENS)

    def retire(self, model: str) -> None:
        self.retired = plus(self.retired, self.models.pop(model))
        del self.tokens[model]

    def use(self, gpu: str, joules: float, grams_per_kwh: float = 300.0, price: float = 0.2) -> None:
        kwh = joules / 3.6e6 * 1.2
        amount = (joules, kwh * grams_per_kwh, kwh * max(price, 0.0))
        self.credit += kwh * max(-price, 0.0)
        self.measured[gpu] = plus(self.measured[gpu], amount)
        self.pending[gpu] = plus(self.pending[gpu], amount)

    def settle(
        self, gpu: str, model: str | None, ratio: float = 1.0, tokens: Iterable[float] = NO_TOKENS
    ) -> None:
        part = tuple(one * ratio for one in self.pending[gpu])
        if ratio == 1.0:
            self.pending[gpu] = NOTHING
        else:
            self.pending[gpu] = plus(self.pending[gpu], part, -1.0)
        if model is None:
            self.unattributed[gpu] = plus(self.unattributed[gpu], part)
        else:
            self.models[model] = plus(self.models[model], part)
            self.tokens[model] = [a + b for a, b in zip(self.tokens[model], tokens, strict=True)]

    def lines(self) -> Iterator[Line]:
        for index, gpu in enumerate(self.gpus):
            labels = (str(index), gpu)
            yield from self._amounts("measured", labels, self.measured[gpu])
            yield from self._amounts("pending", labels, self.pending[gpu])
            yield from self._amounts("unattributed", (*labels, "no_server"), self.unattributed[gpu])
        for model, amount in self.models.items():
            served = ("chat", model, "", "")
            yield from self._amounts("model", (*served, "decode"), amount, self.born[model])
            for kind, count in zip(catalog.TOKEN_KINDS, self.tokens[model], strict=False):
                yield Line(catalog.MODEL_TOKENS, (*served, kind), count, self.born[model])
            yield Line(catalog.MODEL_REQUESTS, served, self.tokens[model][3], self.born[model])
        yield Line(catalog.ENERGY_CREDIT, (self.currency,), self.credit)
        yield Line(catalog.RETIRED_ENERGY, (), self.retired[0])
        for metric, own, value in self.about:
            yield Line(metric, own, value)

    def _amounts(self, place: str, labels: tuple[str, ...], amount: Amount, birth: int = 0) -> Iterator[Line]:
        for books, value in zip(BOOKS, amount, strict=True):
            own = (*labels, "electricity", self.currency) if books is COST else labels
            yield Line(_metric(books, place), own, value, birth)

    def scrape(self, at: float) -> None:
        lines = list(self.lines())
        settled = [
            line.value for line in lines if line.metric in (ENERGY.model, ENERGY.unattributed) and line.value
        ]
        self.pages.append(Page(at, self.life, not settled, lines))

    # ------------------------------------------------------------------------------------------ for Prometheus

    def store(self) -> Store:
        samples: Store = defaultdict(dict)
        for page in self.pages:
            for line in page.lines:
                own = {name: value for name, value in zip(line.metric.labels, line.own, strict=True) if value}
                samples[line.metric.name, frozenset({**self.target, **own}.items())][page.at] = line.value
        return samples

    # ------------------------------------------------------------------------------------------ the truth

    def truth(self, begin: float, end: float) -> dict[Metric, dict[tuple[str, ...], float]]:
        """What each series gained in (begin, end], by someone who saw each life and each birth."""
        first = self.pages[0]
        last: dict[tuple[int, Metric, tuple[str, ...], int], float] = {}
        base: dict[tuple[int, Metric, tuple[str, ...], int], float] = {}
        for page in self.pages:
            for line in page.lines:
                key = (page.life, line.metric, line.own, line.birth)
                if page.at <= begin or (page is first and not page.newborn):
                    base[key] = line.value
                if page.at <= end:
                    last[key] = line.value
        gained: dict[Metric, dict[tuple[str, ...], float]] = defaultdict(lambda: defaultdict(float))
        for key, value in last.items():
            gained[key[1]][key[2]] += value - base.get(key, 0.0)
        return gained

    def is_told(self) -> bool:
        """Say whether each restart and each return of a model can be seen on the pages."""
        shown: dict[tuple[str, ...], Line] = {}
        for before, page in pairwise([self.pages[0], *self.pages]):
            now = {line.own: line for line in page.lines if line.metric is ENERGY.model}
            if page.life != before.life:
                then = {line.own: line.value for line in before.lines if line.metric is ENERGY.measured}
                falls = [line.value < then[line.own] for line in page.lines if line.metric is ENERGY.measured]
                if any(then.values()) and not any(falls):
                    return False
                shown = {}
            for own, line in now.items():
                # It came back so soon, and used so much, that it looks as if it had been there.
                if own in shown and shown[own].birth != line.birth and line.value >= shown[own].value:
                    return False
            shown |= now
        return True


def _metric(books: Books, place: str) -> Metric:
    metric: Metric = getattr(books, place)
    return metric


def series(
    store: Store, metric: Metric, begin: float, end: float, *, left_open: bool = False
) -> list[Series]:
    """What a range query answers; both ends are included up to Prometheus 2, the later one alone since 3."""
    found = []
    for (name, labels), samples in store.items():
        times = [at for at in samples if begin < at <= end or (at == begin and not left_open)]
        if name == metric.name and times:
            found.append(Series(dict(labels), times, [samples[at] for at in times]))
    return found


def openmetrics(stores: Iterable[Store]) -> str:
    """Write samples down for promtool's back-filling."""
    families: dict[str, list[str]] = defaultdict(list)
    for store in stores:
        for (name, labels), samples in store.items():
            pairs = ",".join(f'{label}="{value}"' for label, value in sorted(labels))
            families[name] += [f"{name}{{{pairs}}} {value!r} {at:.3f}" for at, value in samples.items()]
    kinds = {metric.name: metric.kind for metric in catalog.ALL}
    text = []
    for name, lines in families.items():
        text += [f"# TYPE {name.removesuffix('_total')} {kinds[name]}", *lines]
    return "\n".join([*text, "# EOF\n"])
