"""A day of 25 hours, priced as it is measured, against a calculation that shares no code with the daemon.

Berlin, 2026-10-25: clocks go back at 03:00. A provider on the loopback interface is asked by the daemon's own keeper.
Its intensity changes every hour, and it is out of order from 06:20Z to 14:40Z: the last value turns stale at 08:00Z,
gives way to the annual factor at 12:00Z, and the next one is asked for at 15:33Z. Electricity is cheap at night and
has a negative price after noon. One GPU serves a model and one nobody; that one is lost for an hour around noon, over a
change of intensity and of price.
"""

import asyncio
import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from joulemeter.accounting import Pricer, Tariff
from joulemeter.accounts import Terms
from joulemeter.attributor import Attributor
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.grid_book import GridBook
from joulemeter.grids import Place
from joulemeter.grids.electricitymaps import ElectricityMaps
from joulemeter.grids.static import Static
from joulemeter.model import (
    Amount,
    EnergyReading,
    EnergySource,
    Gpu,
    Moves,
    Observation,
    PageReading,
    Role,
    RoleReading,
)
from joulemeter.runtime.grid_client import GridClient
from joulemeter.runtime.grid_keeper import GridKeeper
from joulemeter.schedule import Schedule, Span
from joulemeter.settings import Secret
from tests.grid_provider import Answer, Clocks, Played, provider

HOUR = 3600.0
PUE = 1.2
GPU_HOUR = 2.5
OFFSET = 1_700_000_000.3
"""Unix time less monotonic time."""


def utc(hour: int, minute: int = 0, day: int = 25) -> float:
    return datetime(2026, 10, day, hour, minute, tzinfo=UTC).timestamp()


BEGIN, END = utc(22, day=24), utc(23)
OUTAGE = utc(6, 20), utc(14, 40)
LOST = utc(11, 30), utc(12, 30)
NIGHT, DAY, NOON = 0.1, 0.3, -0.05
PRICES = [  # by hand: 25 hours of local time, in UTC
    (BEGIN, NIGHT),
    (utc(5), DAY),  # 06:00 CET: the night was nine hours long
    (utc(12), NOON),  # 13:00
    (utc(14), DAY),  # 15:00
    (utc(21), NIGHT),  # 22:00
    (END, math.nan),
]
ALWAYS = (frozenset(range(7)), frozenset(range(1, 13)))
TARIFF = Tariff(
    "EUR",
    Schedule(
        DAY,
        (Span(22 * 60, 6 * 60, *ALWAYS, NIGHT), Span(13 * 60, 15 * 60, *ALWAYS, NOON)),
        ZoneInfo("Europe/Berlin"),
    ),
    GPU_HOUR,
)
ANNUAL = Static("DE").at(0.0).intensity_grams_per_kwh
GPUS = [Gpu(n, f"GPU-{n}", "NVIDIA H100 80GB HBM3", "580", EnergySource.COUNTER, 700.0) for n in range(2)]


def intensity_of(hour_begin: float) -> float:
    return 250.0 + 37.5 * ((hour_begin / HOUR) % 7)


def watts(gpu: int, second: int) -> float:
    return 120.0 + 60.0 * gpu + (second * 7919 % 241) + 150.0 * (1 + math.sin(second / 3000))


@dataclass
class Told:
    """When the provider told which hour's intensity: all that the calculation has of the asking."""

    at: float
    hour_begin: float


@dataclass
class Tick:
    """Energy between two edges of a counter, as the hardware counted it, and when it was read."""

    begin: float
    end: float
    read: float
    joules: float


# ------------------------------------------------------------------------------------------ the other calculation


def in_force(told: list[Told], tick: Tick, instant: float) -> float:
    """The intensity of an instant, by what was known when the tick was read."""
    known = [one.hour_begin for one in told if one.at <= tick.read and one.hour_begin <= instant]
    if known and instant - max(known) <= 6 * HOUR:
        return intensity_of(max(known))
    return ANNUAL


def calculated(told: list[Told], ticks: list[Tick]) -> Amount:
    """Cut every tick at each instant at which anything can change, and add up with exact sums."""
    borders = sorted({at for at, _ in PRICES} | {BEGIN + n * HOUR for n in range(27)})
    grams, cost, compute, credit = [], [], [], []
    for tick in ticks:
        cuts = [tick.begin, *(at for at in borders if tick.begin < at < tick.end), tick.end]
        for begin, end in pairwise(cuts):
            middle = (begin + end) / 2
            kwh = tick.joules * (end - begin) / (tick.end - tick.begin) / 3.6e6 * PUE
            price = next(price for (at, price), (after, _) in pairwise(PRICES) if at <= middle < after)
            grams.append(kwh * in_force(told, tick, middle))
            cost.append(kwh * price if price > 0 else 0.0)
            credit.append(-kwh * price if price < 0 else 0.0)
        compute.append((tick.end - tick.begin) / HOUR * GPU_HOUR)
    joules = math.fsum(tick.joules for tick in ticks)
    return Amount(joules, math.fsum(grams), math.fsum(cost), math.fsum(compute), math.fsum(credit))


# ------------------------------------------------------------------------------------------ the day


@dataclass
class Day:
    books: Bookkeeper
    told: list[Told]
    ticks: dict[str, list[Tick]]
    qualities: dict[str, float]


async def live(tmp_path: Path) -> Day:
    """Let the day pass for the daemon's parts: readings every second, a page every ten, a look at the grid every 30."""
    clocks = Clocks(mono=BEGIN - OFFSET, unix=BEGIN)
    told: list[Told] = []
    ticks: dict[str, list[Tick]] = {gpu.uuid: [] for gpu in GPUS}
    counted = dict.fromkeys(ticks, 7e6)
    last_edge: dict[str, float] = {}
    last_read: dict[str, float] = {}
    qualities: dict[str, float] = {}

    def answer(_request: object) -> Answer:
        if OUTAGE[0] <= clocks.unix < OUTAGE[1]:
            return Answer("<html>out of order</html>", 503)
        begin = clocks.unix // HOUR * HOUR
        told.append(Told(clocks.unix, begin))
        when = datetime.fromtimestamp(begin, UTC).isoformat()
        return Answer({"zone": "DE", "carbonIntensity": intensity_of(begin), "datetime": when})

    async with provider(clocks) as played, GridClient(environment={"TOKEN": "x"}) as client:
        played.answer = answer
        place = Place("DE")
        source = Played(ElectricityMaps(place, Secret(variable="TOKEN"), power_breakdown=False), played.url)
        book = GridBook(place, [source, Static("DE")])
        keeper = GridKeeper(
            book,
            client,
            state_dir=tmp_path,
            clock=clocks.monotonic,
            wall_clock=clocks.wall,
            random_ratio=lambda: 0.0,
        )

        def intensity(at_seconds: float) -> tuple[float, float]:
            used = book.at(at_seconds, keeper.offset_seconds())
            return used.interval.intensity_grams_per_kwh, used.until_seconds

        price = Pricer(intensity, pue=PUE, tariff=TARIFF, unix_offset_seconds=keeper.offset_seconds)
        books = Bookkeeper(Terms(), price=price, attributor=Attributor())
        books.expect_server("chat", "m", clocks.mono, counts_tokens=True)
        books.own("chat", frozenset({GPUS[0].uuid}), clocks.mono)
        await keeper.look()
        for second in range(round(END - BEGIN)):
            unix = BEGIN + second
            clocks.mono, clocks.unix = unix - OFFSET, unix
            if second % 30 == 0:
                await keeper.look()
            for n, gpu in enumerate(GPUS):
                counted[gpu.uuid] += round(watts(n, second), 3)
                if n == 1 and LOST[0] <= unix < LOST[1]:
                    continue
                gap = unix - last_read.get(gpu.uuid, unix)
                edge = unix - (gap / 2 if gap <= 10 else 0.0)
                if gpu.uuid in last_edge:
                    ticks[gpu.uuid].append(Tick(last_edge[gpu.uuid], edge, unix, 0.0))
                last_edge[gpu.uuid], last_read[gpu.uuid] = edge, unix
                books.meter(gpu, [EnergyReading(gpu.uuid, counted[gpu.uuid], clocks.mono)])
            if second % 10 == 0:
                page = PageReading("vllm", tuple(page_of(second)))
                books.observe(Observation("chat", clocks.mono, page), has_phases=True)
                books.settle(clocks.mono)
                quality = keeper.view().quality
                qualities[quality] = qualities.get(quality, 0.0) + 10 / HOUR
    weigh(ticks)
    return Day(books, told, ticks, qualities)


def page_of(second: int) -> Iterator[RoleReading]:
    for role, value in (
        (Role.PROMPT, second * 40.0),
        (Role.GENERATION, second * 25.0),
        (Role.STEPS, second * 12.0),
    ):
        yield RoleReading(role, "m", role, value, Moves.STEP)


def weigh(ticks: dict[str, list[Tick]]) -> None:
    """Give every tick the joules that the hardware counted from one reading to the next."""
    for n, gpu in enumerate(GPUS):
        read = BEGIN
        for tick in ticks[gpu.uuid]:
            seconds = range(round(read - BEGIN) + 1, round(tick.read - BEGIN) + 1)
            tick.joules = math.fsum(round(watts(n, second), 3) for second in seconds)
            read = tick.read


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    return asyncio.run(live(tmp_path_factory.mktemp("state")))


def test_grams_and_money_are_those_of_an_independent_calculation(day: Day):
    for gpu in GPUS:
        got = astuple(day.books.gpus[gpu.uuid].measured)
        wanted = astuple(calculated(day.told, day.ticks[gpu.uuid]))
        assert got == pytest.approx(wanted, rel=1e-9)
        assert min(wanted) > 0, "the day has everything in it"


def test_all_of_it_is_in_exactly_one_place(day: Day):
    books = day.books
    for part in range(5):
        measured = math.fsum(astuple(one.measured)[part] for one in books.gpus.values())
        parts = [
            *books.ledger.model.values(),
            *books.ledger.unattributed.values(),
            *(one.pending for one in books.gpus.values()),
            books.ledger.retired,
        ]
        assert math.fsum(astuple(one)[part] for one in parts) == pytest.approx(measured, rel=1e-9)
    assert books.ledger.unattributed[GPUS[1].uuid, "meter_gap"].energy_credit > 0, (
        "lost while prices were negative"
    )


def test_the_day_was_what_it_says(day: Day):
    """Else the calculation above would prove less than it claims."""
    assert END - BEGIN == 25 * HOUR
    assert day.qualities == pytest.approx({"estimated": 17.45, "stale": 4.0, "static": 3.55}, abs=0.1)
    assert sum(tick.end - tick.begin > HOUR / 2 for tick in day.ticks[GPUS[1].uuid]) == 1
    assert 60 < len(day.told) < 80
