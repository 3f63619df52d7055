"""Asking grid sources, against a real HTTP server that fails in every way that providers do (table by table row)."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

from joulemeter.grid_book import MAX_AGE_SECONDS, GridBook
from joulemeter.grids import LiveSource, Place
from joulemeter.grids.electricitymaps import ElectricityMaps
from joulemeter.grids.relay import Relay
from joulemeter.grids.static import Static
from joulemeter.grids.watttime import WattTime
from joulemeter.model import GridQuality
from joulemeter.runtime.grid_client import MAX_BODY_BYTES, GridClient
from joulemeter.runtime.grid_keeper import FILE, GridKeeper
from joulemeter.settings import Secret
from tests.grid_provider import Answer, Clocks, Played, Provider, provider

HOUR = 3600.0
SECRET = "s3cret-token"
PLACE = Place("DE")
ANNUAL = Static("DE").at(0.0).intensity_grams_per_kwh


def hour(clocks: Clocks, grams: object = 300.0, *, ago: int = 0, **more: object) -> dict[str, object]:
    """An answer of Electricity Maps: the value of the hour that began `ago` hours before this one."""
    begin = clocks.unix // HOUR * HOUR - ago * HOUR
    return {
        "zone": "DE",
        "carbonIntensity": grams,
        "datetime": datetime.fromtimestamp(begin, UTC).isoformat(),
        "emissionFactorType": "lifecycle",
        "isEstimated": False,
    } | more


class Desk:
    """A keeper with clocks that the test moves, one played provider, and what it logged."""

    def __init__(self, played: Provider, client: GridClient, tmp_path: Path) -> None:
        self.provider = played
        self.client = client
        self.clocks = played.clocks
        self.state_dir = tmp_path
        self.keeper = self.begin()

    def maps(self, **settings: object) -> LiveSource:
        source = ElectricityMaps(PLACE, Secret(variable="TOKEN"), power_breakdown=False, **settings)  # type: ignore[arg-type]
        return Played(source, self.provider.url)

    def begin(self, *sources: LiveSource) -> GridKeeper:
        """Start a daemon's keeper, with an empty memory but for the state directory."""
        self.keeper = GridKeeper(
            GridBook(PLACE, [*(sources or (self.maps(),)), Static("DE")]),
            self.client,
            state_dir=self.state_dir,
            clock=self.clocks.monotonic,
            wall_clock=self.clocks.wall,
            random_ratio=lambda: 0.0,
        )
        return self.keeper

    async def look(self, after_seconds: float = 0.0) -> None:
        self.clocks.pass_seconds(after_seconds)
        await self.keeper.look()

    @property
    def used(self) -> tuple[float, str]:
        seen = self.keeper.view()
        return seen.interval.intensity_grams_per_kwh, seen.quality

    @property
    def outcomes(self) -> dict[str, int]:
        return dict(self.keeper.polls["electricitymaps"].outcomes)

    async def asked_after(self, longest_seconds: float) -> float:
        """Let time pass until the provider is asked again, and return how long that took."""
        before, waited = len(self.provider.asked), 0.0
        while len(self.provider.asked) == before:
            assert waited <= longest_seconds, f"not asked for {waited} s"
            await self.look(30.0)
            waited += 30.0
        return waited


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with (
        provider(Clocks()) as played,
        GridClient(timeout_seconds=0.3, environment={"TOKEN": SECRET}) as client,
    ):
        yield Desk(played, client, tmp_path)


# ------------------------------------------------------------------------------------------ while it answers


async def test_an_answer_is_in_use_at_once_and_asked_for_every_quarter_of_an_hour(desk: Desk):
    assert desk.used == (ANNUAL, "static"), "before the first answer"
    desk.provider.says(hour(desk.clocks))
    await desk.look()
    assert desk.used == (300.0, "measured")
    assert desk.provider.headers[0]["auth-token"] == SECRET
    assert await desk.asked_after(1000) == 900
    seen = desk.keeper.view()
    assert seen.polls["electricitymaps"].last_success_timestamp_seconds == desk.clocks.unix
    assert desk.outcomes == {"ok": 2}


async def test_estimates_and_forecasts_are_named_for_what_they_are(desk: Desk):
    desk.provider.says(hour(desk.clocks, isEstimated=True))
    await desk.look()
    assert desk.used == (300.0, "estimated")
    desk.provider.says(hour(desk.clocks, 250.0, ago=-1))
    await desk.look(900)
    assert desk.used == (300.0, "estimated"), "the hour to come is not this one"
    desk.provider.says("", 500)
    await desk.look(HOUR)
    assert desk.used[0] == 300.0, "what was told is fresh for two hours, and better than a forecast"
    await desk.look(HOUR)
    assert desk.used[1] == "stale"


async def test_only_while_no_source_before_it_is_fresh_is_the_next_one_asked(desk: Desk):
    async with provider(desk.clocks) as head:
        relay = Relay(PLACE, f"{head.url}/grid.json")
        desk.begin(desk.maps(), relay)
        desk.provider.says(hour(desk.clocks))
        head.says("", 500)
        await desk.look()
        assert (len(desk.provider.asked), len(head.asked)) == (1, 0)
        assert desk.keeper.view().polls["relay"].outcome is None
        desk.provider.says("", 500)
        for _ in range(3):
            await desk.look(HOUR)
        assert desk.used == (300.0, "stale")
        assert len(head.asked) >= 1


# ------------------------------------------------------------------------------------------ each row of failures

UNUSABLE: dict[str, tuple[Callable[[Clocks], object], str]] = {
    "null": (lambda clocks: hour(clocks, None), "no_data"),
    "missing": (lambda clocks: {"zone": "DE"}, "no_data"),
    "negative": (lambda clocks: hour(clocks, -5), "invalid"),
    "not a number": (lambda clocks: json.dumps(hour(clocks, float("nan"))), "invalid"),
    "kilograms": (lambda clocks: hour(clocks, 300_000), "invalid"),
    "wrong zone": (lambda clocks: hour(clocks, zone="US-NV"), "invalid"),
    "HTML": (lambda clocks: "<!DOCTYPE html><title>Welcome</title>", "invalid"),
    "too large": (lambda clocks: " " * (MAX_BODY_BYTES + 1), "invalid"),
    "nothing": (lambda clocks: "", "invalid"),
}


@pytest.mark.parametrize("what", UNUSABLE)
async def test_an_answer_of_no_use_keeps_the_last_value(
    desk: Desk, what: str, caplog: pytest.LogCaptureFixture
):
    desk.provider.says(hour(desk.clocks))
    await desk.look()
    body, outcome = UNUSABLE[what]
    desk.provider.answer = lambda _request: Answer(body(desk.clocks))
    caplog.clear()
    await desk.look(900)
    assert desk.outcomes == {"ok": 1, outcome: 1}
    assert desk.used == (300.0, "measured")
    assert not desk.keeper.view().polls["electricitymaps"].up
    (line,) = caplog.messages
    assert line.startswith("grid.electricitymaps: ")


@pytest.mark.parametrize(
    "failure",
    [
        Answer(status=500),
        Answer(status=503, body="<html>"),
        Answer(delay_seconds=1.0),
        Answer("{", cut=True),
        Answer(status=302, headers={"Location": "http://127.0.0.1:1/"}),
    ],
    ids=["500", "503", "slow", "cut", "redirect"],
)
async def test_a_failing_provider_is_left_alone_longer_and_longer(
    desk: Desk, failure: Answer, caplog: pytest.LogCaptureFixture
):
    desk.provider.says(hour(desk.clocks))
    await desk.look()
    desk.provider.answer = lambda _request: failure
    caplog.clear()
    await desk.look(900)
    assert desk.used == (300.0, "measured")
    waits = [await desk.asked_after(2 * HOUR) for _ in range(8)]
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert len(caplog.messages) == 1, "one line for the change, however often it fails"
    desk.provider.answer = lambda _request: Answer(hour(desk.clocks, 310.0))
    await desk.asked_after(2 * HOUR)
    assert desk.used == (310.0, "measured")
    assert await desk.asked_after(1000) == 900
    assert len(caplog.messages) == 1


async def test_a_provider_that_is_gone_is_an_error_that_says_where(
    desk: Desk, caplog: pytest.LogCaptureFixture
):
    gone = Relay(PLACE, "http://127.0.0.1:1/grid.json")
    await desk.begin(gone).look()
    assert desk.used == (ANNUAL, "static")
    assert dict(desk.keeper.polls["relay"].outcomes) == {"error": 1}
    assert "grid.relay: http://127.0.0.1:1/grid.json: " in caplog.text
    assert "what was known is used on" in caplog.text


async def test_401_may_be_a_rate_limit_so_it_goes_on_slowly(desk: Desk):
    desk.provider.says({"message": "Invalid auth-token"}, 401)
    await desk.look()
    assert desk.outcomes == {"auth": 1}
    assert await desk.asked_after(2 * HOUR) == HOUR
    assert await desk.asked_after(2 * HOUR) == HOUR
    desk.provider.answer = lambda _request: Answer(hour(desk.clocks))
    await desk.asked_after(2 * HOUR)
    assert desk.used == (300.0, "measured")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"message": "Token unauthorized for zoneKey DE"}, 401),
        ({"message": "Endpoint not available"}, 404),
        ({"error": "no"}, 403),
    ],
)
async def test_a_refusal_for_good_ends_the_asking_and_the_next_source_serves(
    desk: Desk, body: object, status: int, caplog: pytest.LogCaptureFixture
):
    async with provider(desk.clocks) as head:
        desk.begin(desk.maps(), Relay(PLACE, f"{head.url}/grid.json"))
        desk.provider.says(body, status)
        head.says(await relayed(desk.clocks))
        await desk.look()
        assert desk.used == (280.0, "measured")
        before = len(desk.provider.asked)
        for _ in range(20):
            await desk.look(HOUR)
        assert len(desk.provider.asked) == before
        assert "it is not asked again before a restart" in caplog.text
        await desk.begin().look()
        assert len(desk.provider.asked) > before, "a restart asks again"


async def test_429_is_left_alone_for_as_long_as_it_says(desk: Desk):
    desk.provider.says("slow down", 429, headers={"Retry-After": "2400"})
    await desk.look()
    assert desk.outcomes == {"rate_limited": 1}
    assert await desk.asked_after(2 * HOUR) == 2400
    when = datetime.fromtimestamp(desk.clocks.unix + 2400 + 7200, UTC)
    desk.provider.says("slow down", 429, headers={"Retry-After": format_datetime(when, usegmt=True)})
    assert await desk.asked_after(2 * HOUR) == 2400
    assert await desk.asked_after(3 * HOUR) == 7200


async def test_429_without_a_word_doubles_the_interval(desk: Desk):
    desk.provider.says("slow down", 429)
    await desk.look()
    assert [await desk.asked_after(2 * HOUR) for _ in range(3)] == [1800, 3600, 3600]


async def test_no_secret_reaches_a_log(desk: Desk, caplog: pytest.LogCaptureFixture):
    """Some providers repeat what they were sent."""
    caplog.set_level(logging.DEBUG)
    desk.provider.says({"message": f"bad token {SECRET}"}, 400)
    await desk.look()
    assert "bad token <secret>" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in (desk.keeper.polls["electricitymaps"].problem or "")


async def test_a_missing_secret_says_which_and_asks_nobody(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    blank = tmp_path / "blank"
    blank.write_text("\n")
    for where, says in (
        (Secret(variable="NO_TOKEN"), "environment variable NO_TOKEN is not set"),
        (Secret(file=tmp_path / "none"), "none cannot be read as text: FileNotFoundError"),
        (Secret(file=blank), "blank must hold one line of text"),
    ):
        await desk.begin(Played(ElectricityMaps(PLACE, where), desk.provider.url)).look()
        assert desk.outcomes == {"auth": 1}
        assert says in caplog.text
    assert desk.provider.asked == []


async def test_a_secret_is_read_anew_each_time(desk: Desk, tmp_path: Path):
    file = tmp_path / "token"
    file.write_text("first\n")
    desk.begin(Played(ElectricityMaps(PLACE, Secret(file=file), power_breakdown=False), desk.provider.url))
    desk.provider.says(hour(desk.clocks))
    await desk.look()
    file.write_text("second\n")
    await desk.look(900)
    assert [headers["auth-token"] for headers in desk.provider.headers] == ["first", "second"]


# ------------------------------------------------------------------------------------------ time


async def test_values_age_to_stale_and_to_static_in_an_outage(desk: Desk):
    desk.clocks.unix = 1_795_003_200.0  # a whole hour
    desk.provider.says(hour(desk.clocks))
    await desk.look()
    desk.provider.says("", 500)
    seen = []
    for _ in range(8):
        await desk.look(HOUR)
        seen.append(desk.used)
    fresh, stale, static = (300.0, "measured"), (300.0, "stale"), (ANNUAL, "static")
    assert seen == [fresh, stale, stale, stale, stale, static, static, static]


async def test_age_counts_by_the_monotonic_clock_between_answers(desk: Desk):
    desk.provider.says(hour(desk.clocks))
    await desk.look()
    for jump in (-86_400.0, 3 * 86_400.0):
        desk.clocks.unix += jump
        assert desk.used == (300.0, "measured")


async def test_a_clock_far_off_the_providers_is_said_once_and_ages_count_from_the_provider(
    desk: Desk, caplog: pytest.LogCaptureFixture
):
    true = Clocks()
    desk.provider.clocks = true
    desk.clocks.unix = true.unix - 4 * HOUR  # this node is four hours behind
    desk.provider.says(hour(true))
    await desk.look()
    true.pass_seconds(900)
    await desk.look(900)
    warned = [line for line in caplog.messages if "synchronise it" in line]
    assert len(warned) == 1
    assert "-14400 s off" in warned[0]
    desk.provider.says("", 500)
    await desk.look(900)
    assert desk.used[0] == 300.0, "by this node's clock it would begin in four hours"


# ------------------------------------------------------------------------------------------ beside


async def test_one_at_a_time_and_nothing_waits_for_it(desk: Desk):
    """A provider that hangs keeps neither the book nor the page: both are answered meanwhile."""
    desk.provider.says(hour(desk.clocks), delay_seconds=0.25)
    looking = asyncio.create_task(desk.look())
    await asyncio.sleep(0.05)
    assert desk.used == (ANNUAL, "static")
    assert not looking.done()
    await looking
    assert desk.used == (300.0, "measured")
    assert len(desk.provider.asked) == 1


async def test_it_stops_when_it_is_told(desk: Desk):
    desk.provider.says(hour(desk.clocks))
    stop = asyncio.Event()
    running = asyncio.create_task(desk.keeper.run(stop))
    async with asyncio.timeout(5):
        while desk.used[1] == "static":  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(running, 1)


async def test_marginal_values_are_shown_and_never_priced_with(desk: Desk):
    real = WattTime(PLACE, "me", Secret(variable="TOKEN"), region="DE")
    desk.begin(desk.maps(), Played(real, desk.provider.url))
    now = datetime.fromtimestamp(desk.clocks.unix // 300 * 300, UTC).isoformat()

    def answer(request: object) -> Answer:
        path = request.path  # type: ignore[attr-defined]
        if path == "/login":
            return Answer({"token": "abc"})
        if path == "/v3/forecast":
            meta = {"region": "DE", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh"}
            return Answer({"data": [{"point_time": now, "value": 1000.0}], "meta": meta})
        return Answer(hour(desk.clocks))

    desk.provider.answer = answer
    await desk.look()
    seen = desk.keeper.view()
    assert seen.marginal is not None
    assert seen.marginal.intensity_grams_per_kwh == pytest.approx(453.59237)
    assert desk.used == (300.0, "measured")


# ------------------------------------------------------------------------------------------ relay and restart


async def relayed(clocks: Clocks, grams: float = 280.0) -> str:
    """What another joulemeter serves on /grid.json."""
    async with provider(clocks) as upstream, GridClient(environment={"TOKEN": SECRET}) as client:
        upstream.says(hour(clocks, grams))
        source = ElectricityMaps(PLACE, Secret(variable="TOKEN"), power_breakdown=False)
        book = GridBook(PLACE, [Played(source, upstream.url)])
        head = GridKeeper(book, client, clock=clocks.monotonic, wall_clock=clocks.wall)
        assert json.loads(head.relayed())["sources"] == {}, "nothing that is static is passed on"
        await head.look()
        return head.relayed()


async def test_a_relay_passes_on_what_one_node_asked_for(desk: Desk):
    text = await relayed(desk.clocks)
    assert SECRET not in text
    desk.provider.says(text)
    await desk.begin(Relay(PLACE, f"{desk.provider.url}/grid.json", "me", Secret(variable="TOKEN"))).look()
    assert desk.used == (280.0, "measured")
    assert desk.keeper.view().interval.origin.source == "electricitymaps"
    assert desk.provider.headers[0]["Authorization"].startswith("Basic ")
    assert await desk.asked_after(1000) == 300
    assert json.loads(desk.keeper.relayed())["sources"].keys() == {"relay"}, "a relay of a relay works"


async def test_a_restart_remembers_the_last_value_with_its_time(desk: Desk):
    desk.clocks.unix = 1_795_003_200.0
    desk.provider.says(hour(desk.clocks))
    await desk.look()
    desk.provider.says("", 500)
    desk.clocks.pass_seconds(3 * HOUR)
    desk.clocks.mono = 10.0  # the machine was started anew
    await desk.begin().restore()
    assert desk.used == (300.0, "stale")
    await desk.look()
    assert desk.used == (300.0, "stale")
    desk.clocks.pass_seconds(MAX_AGE_SECONDS)
    assert desk.used == (ANNUAL, "static")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 2, "zone": "DE", "sources": {}}',
        '{"version": 1, "zone": "FR", "sources": {}}',
    ],
)
async def test_a_state_that_cannot_be_used_is_no_loss(
    desk: Desk, text: str, caplog: pytest.LogCaptureFixture
):
    (desk.state_dir / FILE).write_text(text)
    await desk.begin().restore()
    assert "sources are asked anew" in caplog.text
    desk.provider.says(hour(desk.clocks))
    await desk.look()
    assert desk.used == (300.0, "measured")


async def test_a_state_directory_that_cannot_be_written_stops_nothing(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    desk.state_dir = tmp_path / "not-there"
    desk.begin()
    desk.provider.says(hour(desk.clocks))
    await desk.look()
    assert desk.used == (300.0, "measured")
    assert "cannot be written" in caplog.text


async def test_without_a_network_and_without_settings_there_is_the_shipped_factor(desk: Desk):
    keeper = GridKeeper(GridBook(Place("WORLD"), ()), desk.client)
    await keeper.look()
    seen = keeper.view()
    assert (seen.quality, seen.interval.origin.source) == (GridQuality.STATIC, "static")
    assert seen.polls == {}
