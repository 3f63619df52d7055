"""One look at a node: what can be measured, what is served, who owns what, what is missing and how to mend it."""

import asyncio
import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from joulemeter.config import Config
from joulemeter.discovery.device_ids import Device, is_gpu
from joulemeter.errors import DiscoveryError, JoulemeterError, MeterError
from joulemeter.meters import EnergyMeter
from joulemeter.model import EnergyReading, Gpu
from joulemeter.ownership import use_by_server
from joulemeter.runtime.baseline_command import listed
from joulemeter.runtime.daemon import grid_keeper, nvml_meter
from joulemeter.runtime.grid_client import GridClient
from joulemeter.runtime.grid_keeper import GridKeeper
from joulemeter.runtime.http import PageClient
from joulemeter.runtime.kubernetes import Kubernetes
from joulemeter.runtime.owners import OwnerFinder
from joulemeter.runtime.pod_owners import PodOwners
from joulemeter.runtime.state import StateDirectory
from joulemeter.runtime.usual import USUAL_PORTS, UsualPorts
from joulemeter.runtime.watch import ServerWatch
from joulemeter.server_config import ServerConfig

SAMPLED_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class CounterLook:
    """What a few seconds of readings tell of one GPU's counter; None where it did not move often enough."""

    watts: float | None
    period_seconds: float | None
    read_seconds: float


def look_at_counters(
    meter: EnergyMeter, interval_seconds: float, *, seconds: float = SAMPLED_SECONDS
) -> dict[str, CounterLook]:
    """Read all counters at the daemon's own rate for a while; blocking."""
    readings: dict[str, list[EnergyReading]] = {uuid: [] for uuid in meter.gpus}
    costs = []
    due = end = time.monotonic()
    end += seconds
    while due < end:
        begun = time.perf_counter()
        for reading in meter.read():
            readings.setdefault(reading.uuid, []).append(reading)
        costs.append((time.perf_counter() - begun) / max(1, len(meter.gpus)))
        due += interval_seconds
        time.sleep(max(0.0, due - time.monotonic()))
    return {uuid: _counter_look(of_gpu, statistics.median(costs)) for uuid, of_gpu in readings.items()}


def _counter_look(readings: Sequence[EnergyReading], read_seconds: float) -> CounterLook:
    moved = [after for before, after in pairwise(readings) if after.total_joules != before.total_joules]
    if len(moved) < 3:  # noqa: PLR2004 - two gaps make no period
        return CounterLook(None, None, read_seconds)
    seconds = moved[-1].at_seconds - moved[0].at_seconds
    joules = moved[-1].total_joules - moved[0].total_joules
    return CounterLook(joules / seconds, seconds / (len(moved) - 1), read_seconds)


async def probe(config: Config) -> tuple[str, bool]:
    """Look once. Returns the report, and whether the daemon could attribute anything."""
    meter = nvml_meter()
    report = Report()
    try:
        await asyncio.to_thread(meter.open)
        looks = await asyncio.to_thread(look_at_counters, meter, config.sampling.interval_seconds)
        report.gpus(meter.gpus.values(), looks)
    except MeterError as error:
        report.no_gpus(error)
    try:
        async with PageClient(timeout_seconds=config.observation.timeout_seconds) as client:
            owners_by_pod = None
            if config.discovery.kubernetes:
                found, owners_by_pod = await _look_at_pods(config, client, meter, report)
            else:
                found = list(config.servers) or await UsualPorts(client).look()
            watches = [ServerWatch(server, client) for server in found]
            problems = await asyncio.gather(*(_observed(watch) for watch in watches))
        finder = OwnerFinder(lambda: found, meter, pods=owners_by_pod)
        owners = await asyncio.to_thread(finder.find)
        use = use_by_server(finder.processes, await asyncio.to_thread(_process_use, meter))
        owned = {name: _in_words(name, uuids, meter.gpus, use) for name, uuids in owners.items() if uuids}
        report.servers(watches, problems, owned, finder.problems, in_pods=config.discovery.kubernetes)
    finally:
        await asyncio.to_thread(meter.close)
    report.baselines(config)
    async with GridClient() as grid_client:
        grid = grid_keeper(config, grid_client)
        await grid.restore()
        await grid.look()
        report.grid(grid, config)
    return report.text(), report.attributes


async def _look_at_pods(
    config: Config, client: PageClient, meter: EnergyMeter, report: "Report"
) -> tuple[list[ServerConfig], PodOwners | None]:
    """Return the servers of the configuration and those in this node's pods, and who knows their GPUs."""
    try:
        kubernetes = Kubernetes(config, client, meter, os.environ)
    except DiscoveryError as error:
        report.no_pods(error)
        return list(config.servers), None
    async with kubernetes:
        watcher = kubernetes.watcher
        listed, devices = await asyncio.gather(
            watcher.look(), asyncio.to_thread(kubernetes.kubelet.allocatable), return_exceptions=True
        )
        report.pods(kubernetes, listed, devices)
        servers = kubernetes.servers()
        report.guesses(watcher.table.guesses.keys() - servers.keys())
    return [*config.servers, *servers.values()], kubernetes.owners


def _process_use(meter: EnergyMeter) -> dict[str, Mapping[int, float]]:
    """What each process used of the GPUs that tell, lately."""
    use = {uuid: meter.process_use(uuid) for uuid in meter.gpus}
    return {uuid: of_gpu for uuid, of_gpu in use.items() if of_gpu is not None}


def _in_words(
    server: str, uuids: frozenset[str], gpus: Mapping[str, Gpu], use: Mapping[tuple[str, str], float]
) -> str:
    """A server's GPUs by index, and how much it uses of those that tell."""
    words = []
    for gpu in sorted((gpus[uuid] for uuid in uuids), key=lambda gpu: gpu.index):
        ratio = use.get((server, gpu.uuid))
        words.append(
            f"{gpu.index}" if ratio is None else f"{gpu.index} (its kernels run {ratio:.0%} of the time)"
        )
    return ", ".join(words)


async def _observed(watch: ServerWatch) -> str | frozenset[str]:
    """The models that a server serves, or what is wrong with it."""
    try:
        observation = await watch.observe()
    except JoulemeterError as error:
        return str(error)
    return frozenset(reading.model for reading in observation.page.readings)


class Report:
    """Collects the lines of the report."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._mend: list[str] = []
        self.attributes = False

    def text(self) -> str:
        """The report, with what to mend at its end."""
        mend = list(dict.fromkeys(self._mend)) or ["nothing"]
        return "\n".join([*self._lines, "To mend", *(f"  {line}" for line in mend)])

    def no_gpus(self, error: MeterError) -> None:
        """No GPU can be measured."""
        self._lines += ["GPUs", "  none"]
        self._mend.append(str(error))

    def gpus(self, gpus: Iterable[Gpu], looks: dict[str, CounterLook]) -> None:
        """Each GPU with its counter."""
        self._lines.append("GPUs")
        found = sorted(gpus, key=lambda gpu: gpu.index)
        for gpu in found:
            look = looks[gpu.uuid]
            watts = "no reading" if look.watts is None else f"{look.watts:.0f} W"
            period = (
                "counter did not move"
                if look.period_seconds is None
                else f"moves every {look.period_seconds * 1e3:.0f} ms"
            )
            self._lines.append(
                f"  {gpu.index} {gpu.product} {gpu.uuid}: {watts} from {gpu.energy_source}, {period},"
                f" {look.read_seconds * 1e6:.0f} us a reading"
            )
        if not found:
            self._lines.append("  none")
            self._mend.append(
                "NVML lists no GPU: give the container access to them (NVIDIA_VISIBLE_DEVICES=all)"
            )

    def no_pods(self, error: DiscoveryError) -> None:
        """Pods cannot be looked for."""
        self._lines += ["Kubernetes", "  not asked"]
        self._mend.append(str(error))

    def pods(
        self,
        kubernetes: Kubernetes,
        listed: BaseException | None,
        devices: Sequence[Device] | BaseException,
    ) -> None:
        """What the API server and the kubelet tell of this node. Raises what is no DiscoveryError: a bug of ours."""
        for problem in (listed, devices):
            if isinstance(problem, DiscoveryError):
                self._mend.append(str(problem))
            elif isinstance(problem, BaseException):
                raise problem
        table = kubernetes.watcher.table
        pods = f"{table.pods} pods" if listed is None else "the API server does not tell"
        self._lines += ["Kubernetes", f"  node {kubernetes.node_name}: {pods}"]
        if isinstance(devices, BaseException):
            self._lines.append("  kubelet: does not tell which GPUs it gave to whom")
        else:
            gpus = sum(is_gpu(device) for device in devices)
            self._lines.append(f"  kubelet: offers {gpus} devices of NVIDIA's")
        if listed is None and table.pods == 0:
            self._mend.append(
                f"no pod, not even this one, is on a node named {kubernetes.node_name!r}: set NODE_NAME from"
                " spec.nodeName, or correct discovery.node_name"
            )
        self._mend += table.problems

    def guesses(self, names: Iterable[str]) -> None:
        """What looks like a server and does not answer as one."""
        for name in sorted(names):
            self._lines.append(f"  {name}: looks like a server, and does not answer as one that we know")

    def servers(
        self,
        watches: Sequence[ServerWatch],
        answers: Sequence[str | frozenset[str]],
        gpus: Mapping[str, str],
        problems: dict[str, str],
        *,
        in_pods: bool = False,
    ) -> None:
        """Each server with its dialect, models and GPUs."""
        self._lines.append("Servers")
        for watch, answer in zip(watches, answers, strict=True):
            server: ServerConfig = watch.server
            if isinstance(answer, str):
                self._lines.append(f"  {server.name}: does not answer as a server that we know")
                self._mend.append(answer)
                continue
            dialect = watch.dialect.name if watch.dialect else ""
            self._lines.append(
                f"  {server.name}: {dialect} {watch.version or ''} serving {', '.join(sorted(answer))};"
                f" GPUs {gpus.get(server.name, 'not known')}; answers in {watch.response_seconds[-1] * 1e3:.0f} ms"
            )
            self.attributes |= server.name in gpus
            if server.name in problems:
                self._mend.append(problems[server.name])
        if not watches and in_pods:
            self._lines.append("  none")
            self._mend.append(
                "no server in the pods of this node: annotate those that serve (joulemeter.io/scrape: 'true',"
                " joulemeter.io/port: '8000')"
            )
        elif not watches:
            usual = ", ".join(f"{port} ({name})" for name, port in USUAL_PORTS.items())
            self._lines.append("  none")
            self._mend.append(
                f"no server on the usual ports {usual}: name it (--server http://127.0.0.1:8000)"
            )

    def baselines(self, config: Config) -> None:
        """What models are compared with."""
        self._lines.append(
            "Baselines (expected energy for the same engine work, and for the same offered load)"
        )
        if config.state_dir is None:
            days = f"{config.baseline.learn_days:g} days"
            self._lines.append(f"  not kept: learned anew over {days} at each start; state_dir keeps them")
            return
        state = StateDirectory(config.state_dir)
        problem = state.problem()
        if problem is not None:
            self._mend.append(problem)
            self._lines.append("  not known: see below")
            return
        try:
            lines = listed(state, config.baseline.learn_days)
        except JoulemeterError as error:
            self._mend.append(str(error))
            return
        self._lines += [f"  {line}" for line in lines]

    def grid(self, grid: GridKeeper, config: Config) -> None:
        """Each source of carbon intensity as it answers now, the one in use, and the price."""
        seen = grid.view()
        origin = seen.interval.origin
        begun = datetime.fromtimestamp(seen.interval.begin_timestamp_seconds, UTC)
        age_seconds = time.time() - seen.interval.begin_timestamp_seconds
        age = "" if origin.granularity in ("annual", "constant") else f", {age_seconds / 60:.0f} min old"
        self._lines += [
            "Grid",
            f"  {seen.zone}: {seen.interval.intensity_grams_per_kwh:g} gCO2e/kWh, {seen.quality}, valid from"
            f" {begun:%Y-%m-%d %H:%M}Z{age}, from {origin.source} ({origin.dataset};"
            f" {origin.factor}, {origin.boundary}); PUE {config.pue:g}",
        ]
        for name, polls in seen.polls.items():
            if polls.outcome is None:
                self._lines.append(f"  {name}: not asked, for a source before it answers")
            else:
                self._lines.append(f"  {name}: {'answers' if polls.up else polls.outcome}")
            if polls.problem is not None:
                self._mend.append(polls.problem)
        tariff = config.price.tariff(config.time_zone)
        if tariff is not None:
            price = "none" if tariff.per_kwh is None else f"{tariff.per_kwh.at(time.time())[0]:g} a kWh now"
            hour = "none" if tariff.gpu_hour is None else f"{tariff.gpu_hour:g} a GPU-hour"
            self._lines += ["Price", f"  {tariff.currency}: electricity {price}, compute {hour}"]
