"""October 2026 of two nodes, as a Prometheus would have seen it, and what really happened."""

from collections.abc import Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from report_history import Exporter, Store

from joulemeter import catalog

ZONE = ZoneInfo("Europe/Berlin")
STEP = 600.0


def on(day: int, hour: int = 0, minute: int = 0, *, month: int = 10) -> float:
    return datetime(2026, month, day, hour, minute, tzinfo=ZONE).timestamp()


BEGIN, END = on(1), on(1, month=11)
"""745 hours: clocks go back on the 25th."""
SILENCE = on(15, 6), on(15, 12)
"""Nothing is scraped, and the daemon runs on."""
OUTAGE = on(22, 1), on(22, 4)
"""Nothing is scraped, and the daemon restarts in the middle of it."""
BAD_HOURS = on(25, 11), on(25, 15)
"""The price of electricity is negative."""
SECOND_SINCE = on(18, 8)
"""The second node comes, as new."""


def about(zone: str, product: str) -> list[tuple[catalog.Metric, tuple[str, ...], float]]:
    """What the footer is made of."""
    origin = ("electricitymaps", "lifecycle", "consumption", "1h", "")
    served = ("chat", "Llama-3.1-8B-Instruct", "", "")
    return [
        (catalog.GRID_INFO, (zone, *origin), 1.0),
        *((catalog.GRID_QUALITY, (zone, one), float(one == "measured")) for one in catalog.GRID_QUALITIES),
        (catalog.SERVER_INFO, (*served, "vllm", "0.32.0", "exclusive", "measured", "counted", product), 1.0),
        (catalog.GPU_INFO, ("0", "GPU-a", product, "580.95.05", "counter"), 1.0),
        (catalog.PUE, (), 1.2),
        (catalog.SIMULATED, (), 0.0),
        (catalog.BUILD_INFO, ("0.1.0", "3.11.7"), 1.0),
    ]


def times(begin: float, end: float) -> Iterator[float]:
    at = begin
    while at <= end:
        yield at
        at += STEP


def first_node() -> Exporter:
    """Two GPUs in Germany: one for a chat model, the other for one that comes and goes."""
    node = Exporter(
        {"job": "joulemeter", "instance": "gpu-1"}, about=about("DE", "NVIDIA H100 80GB HBM3"), currency="EUR"
    )
    chat, coder = "Llama-3.1-8B-Instruct", "Qwen3-Coder"
    node.load(chat)
    for at in times(on(30, 20, month=9), on(1, 3, month=11)):
        if at in (on(10, 12), sum(OUTAGE) / 2):
            node.restart()
            node.load(chat)
            if at == on(10, 12):
                node.load(coder)
        if at in (on(5), on(20)):
            node.load(coder)
        if at == on(12):
            node.retire(coder)
        hour = (at - BEGIN) / 3600 % 24
        price = -0.05 if BAD_HOURS[0] <= at < BAD_HOURS[1] else 0.24
        grams = 380.0 - 12 * abs(hour - 12)
        node.use("GPU-a", (250 + 15 * hour) * STEP, grams, price)
        node.settle("GPU-a", chat, 0.97, (9000 * hour, 3000 * hour, 12_000 * hour, 40 * hour))
        node.use("GPU-b", (400 if coder in node.models else 70) * STEP, grams, price)
        node.settle("GPU-b", coder if coder in node.models else None, 0.97, (60_000, 200_000, 15_000, 12))
        if not any(begin < at < end for begin, end in (SILENCE, OUTAGE)):
            node.scrape(at + 0.123)
    return node


def second_node() -> Exporter:
    """One GPU in Sweden, paid for in another currency."""
    node = Exporter(
        {"job": "joulemeter", "instance": "gpu-2"},
        gpus=("GPU-c",),
        about=about("SE", "NVIDIA L40S"),
        currency="SEK",
    )
    model = "Llama-3.1-8B-Instruct"
    for at in times(SECOND_SINCE, on(1, 3, month=11)):
        if at == SECOND_SINCE + 2 * STEP:
            node.load(model)
        node.use("GPU-c", 180 * STEP, 25.0, 0.9)
        if at > SECOND_SINCE + 2 * STEP:
            node.settle("GPU-c", model, 0.97, (200_000, 0, 90_000, 300))
        node.scrape(at + 7.5)
    return node


def copied(node: Exporter, until: float) -> Store:
    """The first days once more, as a second scrape job saw them."""
    return {
        (name, frozenset({**dict(labels), "job": "copy"}.items())): {
            at + 2: value for at, value in samples.items() if at < until
        }
        for (name, labels), samples in node.store().items()
        if any(at < until for at in samples)
    }
