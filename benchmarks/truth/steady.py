"""Requests of one length, day and night, at one rate: how far idle energy and the phases are off.

python -m benchmarks.truth.steady [REQUESTS_PER_SECOND:PROMPT_TOKENS:OUTPUT_TOKENS...]

Amid short requests hardly a tick of the energy counter is idle, or busy, all through (docs/adr/0018).
"""

import argparse
from typing import Final

from benchmarks.truth.measure import OURS, Case, errors
from benchmarks.truth.scenario import served
from benchmarks.truth.scenarios import LLAMA_8B
from benchmarks.truth.traffic import Kind, Load, Traffic

SECONDS: Final = 4 * 3600.0
USUAL: Final = ("3:400:30", "3:80:30", "3:1000:20", "2:400:60", "1:400:200", "6:200:12")


def line(text: str, seconds: float = SECONDS) -> str:
    """Return a row of the table: bias after the hour of warm-up, in percent. Raises ValueError for a bad `text`."""
    rate, prompt, output = text.split(":")
    traffic = Traffic(Load(float(rate)), (Kind(int(prompt), int(output)),))
    found = errors(Case(text, served(LLAMA_8B, traffic, seconds)))
    cells = (f"{100 * by_method[OURS].bias:+.1f}" for by_method in found.values())
    return f"| {rate} a second, {prompt} in, {output} out | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("traffic", nargs="*", default=USUAL)
    print("| traffic | idle | prefill | decode |\n|---|---|---|---|")
    for text in parser.parse_args().traffic:
        print(line(text), flush=True)


if __name__ == "__main__":
    main()
