"""What reading a server's page costs us: picking our lines against parsing the whole page."""

import sys
import timeit
from collections.abc import Callable
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from joulemeter.dialects import by_name, read_page, recognise

RECORDED = Path(__file__).parents[1] / "tests/fixtures/dialects/vllm/0.32.0-burst-after.prom"
FOREIGN_SERIES = 50_000
ROUNDS = 15


def milliseconds(work: Callable[[], object], calls: int) -> str:
    """Return the median of `ROUNDS` rounds and the range, per call."""
    rounds = sorted(seconds / calls * 1000 for seconds in timeit.repeat(work, number=calls, repeat=ROUNDS))
    return f"{rounds[ROUNDS // 2]:8.2f} ms ({rounds[0]:.2f} to {rounds[-1]:.2f})"


def main() -> None:
    """Print one line per case."""
    page, vllm = RECORDED.read_text(), by_name("vllm")
    crowded = page + "".join(f'other_total{{series="{i}"}} {i}\n' for i in range(FOREIGN_SERIES))
    cases: tuple[tuple[str, Callable[[], object], int], ...] = (
        (f"vLLM page, {len(page) / 1000:.0f} kB: our roles", lambda: read_page(page, vllm), 20),
        ("the same, recognised first", lambda: read_page(page, recognise(page)), 20),
        ("the same, all of it parsed", lambda: list(text_string_to_metric_families(page)), 2),
        (f"page with {FOREIGN_SERIES} other series: our roles", lambda: read_page(crowded, vllm), 1),
    )
    for name, work, calls in cases:
        sys.stdout.write(f"{name:48} {milliseconds(work, calls)}\n")


if __name__ == "__main__":
    main()
