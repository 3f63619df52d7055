"""`joulemeter report`: asks a Prometheus for raw samples, piece by piece, and for what they rest on."""

import logging
import math
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from joulemeter import catalog
from joulemeter.catalog import Metric
from joulemeter.errors import ConfigError, PrometheusError, TooMuchError
from joulemeter.http_config import HttpConfig, read_http_config
from joulemeter.report.basis import basis, queries
from joulemeter.report.notes import notes
from joulemeter.report.offer import Rates
from joulemeter.report.range import Range, chosen
from joulemeter.report.rows import report
from joulemeter.report.selector import selector
from joulemeter.report.sources import (
    Series,
    Sighting,
    Sources,
    Target,
    by_source,
    key_of,
    sources,
    suspects,
    target_of,
)
from joulemeter.report.tally import METRICS, Tally
from joulemeter.report.text import Document, as_csv, as_json
from joulemeter.runtime.prometheus import Prometheus, base_url

log = logging.getLogger(__name__)

LOOKBACK_SECONDS: Final = 6 * 3600.0
"""How far before the range the last page is looked for that it begins with: an outage over midnight of the first
is bridged by the counters, as one within the month is."""
CHUNK_SAMPLES: Final = 1_000_000
"""Prometheus holds at most 50 million at a time (`--query.max-samples`); this many are 30 MB of JSON."""
MIN_CHUNK_SECONDS: Final = 60.0
NO_RATES: Final = Rates()
MANY_SAMPLES: Final = 5_000_000
"""Reading them takes more than some ten seconds."""


@dataclass(frozen=True, slots=True)
class Question:
    """The command's options as they were given; `report.range.chosen` says which of the range go together."""

    prometheus: str
    selectors: Sequence[str] = ()
    http_config_file: Path | None = None
    time_zone: str = "UTC"
    month: str | None = None
    begin: str | None = None
    end: str | None = None
    since: str | None = None
    rates: Rates = NO_RATES
    form: str = "table"


async def reported(question: Question, *, now_seconds: float | None = None) -> tuple[str, list[str]]:
    """Return a report's text, and notes to it where the text has no room for them.

    Args:
        question: what to report.
        now_seconds: Unix time, if it is not now.

    Raises:
        ConfigError: an option cannot be used.
        PrometheusError: there is no answer to report on.
    """
    when = chosen(
        time.time() if now_seconds is None else now_seconds,
        question.time_zone,
        month=question.month,
        begin=question.begin,
        end=question.end,
        since=question.since,
    )
    render = _renderer(question.form)
    where, how = base_url(question.prometheus), http_config(question.http_config_file)
    async with Prometheus(where, how) as prometheus:
        document = await find(prometheus, selector(question.selectors), when, question.rates)
    return render(document), notes(document) if question.form == "csv" else []


def _renderer(form: str) -> Callable[[Document], str]:
    """Choose the form before anything is asked, for asking may take minutes."""
    if form != "table":
        return {"csv": as_csv, "json": as_json}[form]
    try:
        from joulemeter.runtime.report_table import as_table  # noqa: PLC0415 - `rich` is an extra
    except ImportError as error:
        raise ConfigError(
            [f"--format table: {error}; pip install 'joulemeter[report]', or give --format csv or json"]
        ) from None
    return partial(as_table, width=shutil.get_terminal_size().columns if sys.stdout.isatty() else None)


def http_config(file: Path | None) -> HttpConfig:
    """Read a file of HTTP settings; none: nothing to set.

    Raises:
        ConfigError: it cannot be read, or has problems.
    """
    if file is None:
        return HttpConfig()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"--http-config: {file}: cannot be read: {error}"]) from error
    return read_http_config(text, str(file), file.parent)


async def find(prometheus: Prometheus, which: str, when: Range, rates: Rates) -> Document:
    """Ask for everything that a report is made of.

    Args:
        prometheus: entered.
        which: exporters, as `{...}` or "".
        when: the range.
        rates: at which traffic is priced.

    Raises:
        PrometheusError: an answer is missing, or there is nothing in the range.
    """
    reader = Reader(prometheus, which, when)
    found = await _sources(reader)
    tally = Tally(found, when.begin_seconds)
    for metric in METRICS:
        async for chunk in reader.raw(metric):
            tally.take(metric, chunk)
    counted = report(tally.gained(), found, when.begin_seconds, when.end_seconds)
    asked = queries(which, when.seconds)
    try:
        answers = {name: await prometheus.query(query, when.end_seconds) for name, query in asked.items()}
    except TooMuchError as error:
        raise PrometheusError(f"{error}; report on a shorter range, or narrow --selector") from None
    warnings = (*counted.warnings, *prometheus.warnings)
    return Document(counted, basis(answers), when, rates, which, reader.samples, warnings)


class Reader:
    """Reads a metric's raw samples over the range, and before it as far as its begin may lie."""

    def __init__(self, prometheus: Prometheus, selector: str, when: Range) -> None:
        self._prometheus = prometheus
        self._selector = selector
        self.when = when
        self.first_seconds = when.begin_seconds - LOOKBACK_SECONDS
        self.samples = 0

    async def counts(self, metric: Metric) -> list[Series]:
        """Ask how many samples each series has, which also tells what series there are; once, or for each piece."""
        return await self._counts(metric, self.first_seconds, self.when.end_seconds)

    async def _counts(self, metric: Metric, begin_seconds: float, end_seconds: float) -> list[Series]:
        query = f"count_over_time({self._vector(metric, end_seconds - begin_seconds)})"
        try:
            return await self._prometheus.query(query, end_seconds)
        except TooMuchError as error:
            middle = begin_seconds + _half(metric, end_seconds - begin_seconds, error)
            early = await self._counts(metric, begin_seconds, middle)
            return [*early, *await self._counts(metric, middle, end_seconds)]

    async def raw(self, metric: Metric) -> AsyncIterator[list[Series]]:
        """Yield the samples of all series of a metric, a piece of time after the other.

        Up to Prometheus 2 a range holds both its ends, since 3 the later one alone: what comes twice has to be known
        by its time.

        Raises:
            PrometheusError: not even a minute of them is answered.
        """
        samples = sum(int(one.values[-1]) for one in await self.counts(metric))
        if samples == 0:
            return
        if samples > MANY_SAMPLES:
            log.info("reading %s samples of %s", f"{samples:,}", metric.name)
        begin, end = self.first_seconds, self.when.end_seconds
        piece_seconds = max(math.ceil((end - begin) * CHUNK_SAMPLES / samples), MIN_CHUNK_SECONDS)
        while begin < end:
            until = min(begin + piece_seconds, end)
            if begin < self.when.begin_seconds:
                until = min(until, self.when.begin_seconds)
            try:
                chunk = await self._prometheus.query(self._vector(metric, until - begin), until)
            except TooMuchError as error:
                piece_seconds = _half(metric, until - begin, error)
                continue
            self.samples += sum(len(one.values) for one in chunk)
            yield chunk
            begin = until

    def _vector(self, metric: Metric, seconds: float) -> str:
        return f"{metric.name}{self._selector}[{max(1, round(seconds * 1000))}ms]"


def _half(metric: Metric, seconds: float, error: TooMuchError) -> float:
    """Return for how long to ask instead, in whole seconds."""
    if seconds < 2 * MIN_CHUNK_SECONDS:
        raise PrometheusError(
            f"{error}; even {seconds:.0f} s of {metric.name} are too much for one answer: narrow --selector, or raise"
            " the server's limits (--query.max-samples, --query.timeout)"
        ) from None
    return math.floor(seconds / 2)


async def _sources(reader: Reader) -> Sources:
    """Find the exporters and their lives, from the energy of their GPUs."""
    uuids: dict[Target, set[str]] = {}
    for one in await reader.counts(catalog.GPU_ENERGY):
        uuids.setdefault(target_of(one.labels), set()).add(key_of(catalog.GPU_ENERGY, one.labels)[1])
    shared = suspects({target: frozenset(some) for target, some in uuids.items()})
    sightings = {target: Sighting() for target in uuids}
    async for chunk in reader.raw(catalog.GPU_ENERGY):
        pages: dict[Target, dict[tuple[str, ...], Series]] = {}
        for (target, key), one in by_source(catalog.GPU_ENERGY, chunk).items():
            pages.setdefault(target, {})[key] = one
        for target, some in pages.items():
            sightings.setdefault(target, Sighting()).take(some, keep=target in shared)
    when = reader.when
    if not any(sighting.seen_after(when.begin_seconds) for sighting in sightings.values()):
        raise PrometheusError(
            f"no {catalog.GPU_ENERGY.name} from {when.local(when.begin_seconds)} to {when.local(when.end_seconds)}:"
            " does this Prometheus scrape joulemeter, keep data for that long (--storage.tsdb.retention.time), and does"
            " --selector fit? Try --since 1h"
        )
    return sources(sightings)
