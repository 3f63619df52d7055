"""What the simulator makes of its scenarios, and how fast.

python -m benchmarks.truth
"""

import time

from benchmarks.truth.run import Chunk, run, simulate
from benchmarks.truth.scenario import served
from benchmarks.truth.scenarios import LLAMA_8B, SCENARIOS, chat_day
from benchmarks.truth.traffic import Kind, Load, Traffic

WEEKS_SECONDS = 4 * 7 * 86400.0


def described(name: str, chunk: Chunk, seconds: float) -> str:
    """Return one line about a run that took so long."""
    joules = float(chunk.tick_joules.sum())
    tokens = float(chunk.true("generated_tokens").sum())
    prefill, decode = (float(chunk.true(f"{phase}_joules").sum()) for phase in ("prefill", "decode"))
    return (
        f"{name:20} {joules / len(chunk.tick_joules) / 0.1:7.0f} W {joules / max(tokens, 1):8.3f} J/token"
        f"   idle {float(chunk.idle_joules.sum()) / joules:5.1%} prefill {prefill / joules:5.1%}"
        f" decode {decode / joules:5.1%}   {float(chunk.true('steps').sum()):10.0f} steps in {seconds:5.2f} s"
    )


def main() -> None:
    """Print energy per token over load, a day of every scenario, and how long four weeks take."""
    run(chat_day(10.0))  # compile
    for rate in (0.05, 0.5, 2.0, 8.0, 12.0):
        kind = Kind(500, 250, prompt_spread=0.0, output_spread=0.0)
        begin = time.perf_counter()
        chunk = run(served(LLAMA_8B, Traffic(Load(rate), (kind,)), 4 * 3600.0, seed=1))
        print(described(f"8B at {rate:g}/s", chunk, time.perf_counter() - begin))
    for name, build in SCENARIOS.items():
        begin = time.perf_counter()
        chunk = run(build())
        print(described(name, chunk, time.perf_counter() - begin))
    begin = time.perf_counter()
    steps = sum(float(chunk.true("steps").sum()) for chunk in simulate(chat_day(WEEKS_SECONDS)))
    print(f"four weeks of chat_day: {steps:.3g} steps in {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
