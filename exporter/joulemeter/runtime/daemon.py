"""Configuration -> the running daemon: builds the parts, wires them, runs them together."""

import asyncio
import contextlib
import logging
import os
import platform
import signal
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

from joulemeter.accounting import Pricer, Step
from joulemeter.accounts import Terms
from joulemeter.attributor import Attributor
from joulemeter.baseline_file import decode
from joulemeter.baselines import Baselines
from joulemeter.bookkeeper import Bookkeeper
from joulemeter.catalog import COST_COMPONENTS
from joulemeter.config import Config
from joulemeter.grid_book import GridBook
from joulemeter.meters import EnergyMeter
from joulemeter.meters.nvml import NvmlMeter
from joulemeter.ownership import use_by_server
from joulemeter.runtime.baseline_keeper import BaselineKeeper
from joulemeter.runtime.exposition import Exposition
from joulemeter.runtime.grid_client import GridClient
from joulemeter.runtime.grid_keeper import GridKeeper
from joulemeter.runtime.health import ServerHealth
from joulemeter.runtime.http import PageClient
from joulemeter.runtime.kubernetes import Kubernetes
from joulemeter.runtime.observer import Observer
from joulemeter.runtime.own_process import OwnProcess
from joulemeter.runtime.owners import OwnerFinder
from joulemeter.runtime.sampler import Sampler
from joulemeter.runtime.state import StateDirectory, read_text
from joulemeter.runtime.supervisor import Service, supervise
from joulemeter.runtime.usual import UsualPorts
from joulemeter.runtime.watch import ServerWatch
from joulemeter.runtime.web_access import WebAccess
from joulemeter.snapshot import Priced, ServerState, Snapshot, Surroundings, compose

log = logging.getLogger(__name__)

NVML_LIBRARY_VARIABLE = "JOULEMETER_NVML_LIBRARY"
"""Path of an NVML library to load in place of the driver's."""
METER_NAME = "nvml"
DAY_SECONDS = 86_400.0


def nvml_meter() -> NvmlMeter:
    """The meter of this machine, or of the library that the environment names."""
    return NvmlMeter(os.environ.get(NVML_LIBRARY_VARIABLE) or None)


def grid_keeper(config: Config, client: GridClient) -> GridKeeper:
    """The grid's book of this configuration, and who fills it."""
    book = GridBook(config.place, config.grid.sources)
    return GridKeeper(book, client, state_dir=config.state_dir)


def pricer(config: Config, grid: GridKeeper) -> Pricer:
    """What joules cause and cost when they are measured."""

    def intensity(at_seconds: float) -> Step:
        in_use = grid.book.at(at_seconds, grid.offset_seconds())
        return in_use.interval.intensity_grams_per_kwh, in_use.until_seconds

    return Pricer(
        intensity,
        pue=config.pue,
        tariff=config.price.tariff(config.time_zone),
        unix_offset_seconds=grid.offset_seconds,
    )


Extras = Callable[[Exposition, Observer], Sequence[Service]]


def no_extras(_exposition: Exposition, _observer: Observer) -> Sequence[Service]:
    """Nothing runs beside the daemon."""
    return ()


async def run_daemon(config: Config, *, simulated: bool = False, extras: Extras = no_extras) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        config: what to watch and where to listen.
        simulated: said on the page; the readings come from a simulated node.
        extras: services that run beside the daemon and watch it.

    Raises:
        ConfigError: the web configuration cannot be used.
        JoulemeterError: (in an ExceptionGroup) a part could not start or go on.
    """
    access = None if config.web_config_file is None else WebAccess(config.web_config_file)
    baselines = Baselines(config.baseline.learn_days * DAY_SECONDS, time.time)
    state = StateDirectory(config.state_dir) if config.state_dir is not None else None
    with state.held() if state is not None else contextlib.nullcontext():
        known = [] if state is None else state.load()
        baselines.adopt(known, replace=True)
        if config.baseline.file is not None:
            brought = decode(read_text(config.baseline.file), source=str(config.baseline.file))
            baselines.adopt(brought, replace=False)
        keeper = [] if state is None else [BaselineKeeper(baselines, state)]
        await _serve(config, baselines, simulated=simulated, keeper=keeper, extras=extras, access=access)


async def _serve(
    config: Config,
    baselines: Baselines,
    *,
    simulated: bool,
    keeper: Sequence[Service],
    extras: Extras,
    access: WebAccess | None,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    async with (
        PageClient(timeout_seconds=config.observation.timeout_seconds) as client,
        GridClient() as grid_client,
        contextlib.AsyncExitStack() as cluster,
    ):
        grid = grid_keeper(config, grid_client)
        await grid.restore()
        meter = nvml_meter()
        kubernetes = None
        if config.discovery.kubernetes:
            kubernetes = await cluster.enter_async_context(Kubernetes(config, client, meter, os.environ))
        observer = build_observer(
            config,
            client,
            meter,
            grid=grid,
            baselines=baselines,
            simulated=simulated,
            kubernetes=kubernetes,
        )
        exposition = Exposition(
            config.listen_host,
            config.listen_port,
            latest=lambda: observer.latest,
            problem=observer.problem,
            grid=grid.relayed,
            access=access,
        )
        watcher = [] if kubernetes is None else [kubernetes.watcher]
        await supervise([exposition, observer, grid, *keeper, *watcher, *extras(exposition, observer)], stop)
    log.info("stopped")


def build_observer(
    config: Config,
    client: PageClient,
    meter: EnergyMeter,
    *,
    grid: GridKeeper,
    baselines: Baselines,
    simulated: bool,
    kubernetes: Kubernetes | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> Observer:
    """Wire measuring, observing, attributing and accounting together; `wall_clock` (Unix time) is only shown."""
    sampler = Sampler(meter, interval_seconds=config.sampling.interval_seconds)
    price = pricer(config, grid)
    tariff = config.price.tariff(config.time_zone)
    prices = (None, None) if tariff is None else (tariff.per_kwh, tariff.gpu_hour)
    components = tuple(name for name, one in zip(COST_COMPONENTS, prices, strict=True) if one is not None)
    books = Bookkeeper(
        Terms(
            give_up_seconds=config.observation.give_up_seconds,
            zero_hold_seconds=config.zero_hold_seconds,
            series_ttl_seconds=config.series_ttl_seconds,
            idle=config.idle,
        ),
        price=price,
        attributor=Attributor(),
        baselines=baselines,
    )
    interval_seconds = config.observation.interval_seconds
    release = version("joulemeter")
    process = OwnProcess()

    def snapshot(observer: Observer) -> Snapshot:
        now_timestamp_seconds = wall_clock()
        return compose(
            books,
            Surroundings(
                at_timestamp_seconds=now_timestamp_seconds,
                version=release,
                python_version=platform.python_version(),
                simulated=simulated,
                meter=METER_NAME,
                meter_up=sampler.meter_up,
                gpus_up=meter.up,
                statuses=observer.statuses,
                throttle_seconds=observer.throttle_seconds,
                server_use=use_by_server(finder.processes, observer.process_use),
                servers={
                    name: _state(watch, observer.health[name]) for name, watch in observer.watches.items()
                },
                grid=grid.view(),
                pue=config.pue,
                priced=Priced(
                    tariff.currency if tariff else "", components, price.price_per_kwh(now_timestamp_seconds)
                ),
                sample_intervals=sampler.intervals.value(),
                kubernetes={} if kubernetes is None else kubernetes.up(),
                process=process.read(),
            ),
        )

    finder = OwnerFinder(
        lambda: [watch.server for watch in observer.watches.values()],
        meter,
        pods=None if kubernetes is None else kubernetes.owners,
    )
    observer = Observer(
        books,
        sampler,
        meter,
        watch=lambda server: ServerWatch(server, client, base_interval_seconds=interval_seconds),
        owners=finder.find,
        snapshot=snapshot,
        interval_seconds=interval_seconds,
        look=None if config.servers or kubernetes is not None else UsualPorts(client).look,
        discovered=dict if kubernetes is None else kubernetes.servers,
    )
    for server in config.servers:
        observer.add_server(server)
    return observer


def _state(watch: ServerWatch, health: ServerHealth) -> ServerState:
    """What the page says of a server beside its counters."""
    return ServerState(
        up=bool(watch.up),
        dialect=watch.dialect.name if watch.dialect else "",
        version=watch.version or "",
        response_seconds=health.durations.value(),
        refused_pages=health.refused,
    )
