"""The worked example of docs/method.md, done again by the code that runs."""

import re
from pathlib import Path

import pytest

from joulemeter.attribution import GpuWindow, Use, split
from joulemeter.busy import Tick, idle_seconds
from joulemeter.context_length import ContextLength
from joulemeter.engine_work import engine_work
from joulemeter.estimator import Estimate
from joulemeter.model import Phase, User
from joulemeter.priors import ENGINE_JOULES
from joulemeter.work import Work

METHOD = Path(__file__).parents[1] / "docs" / "method.md"


def recomputed() -> dict[str, float]:
    """The table's quantities, in joules, tokens and steps."""
    busy_watts = 4070.0 / 8.0
    ticks = [*[Tick(0.1, busy_watts)] * 80, *[Tick(0.1, 120.0)] * 20]
    idle_joules = 120.0 * idle_seconds(ticks, 120.0, 434.0)
    work = Work(18_000, 2_000, 6_040, 40, 58.0, 950, 40, None, 29_000)
    context_tokens = ContextLength().advance(work, 10.0, 1.0)
    done = engine_work(work, 10.0, 8.0, context_tokens=context_tokens)
    prefill_joules, decode_joules = Estimate(ENGINE_JOULES).joules(done)
    user = User("chat", "m")
    parts = split(GpuWindow(4310.0, idle_joules), {user: Use(prefill_joules, decode_joules)})
    assert sum(parts.values()) == pytest.approx(4310.0, rel=1e-12)
    return {
        "energy while steps ran": 4310.0 - idle_joules,
        "decoded tokens": done.decoded_tokens,
        "steps whose floor is prefill's": done.prefill_steps,
        "context reads": done.context_reads,
        "prefill, estimated": prefill_joules,
        "decode, estimated": decode_joules,
        "scale": (4310.0 - idle_joules) / (prefill_joules + decode_joules),
        "prefill": parts[user, Phase.PREFILL],
        "decode": parts[user, Phase.DECODE],
        "idle": parts[user, Phase.IDLE],
    }


def test_the_worked_example_is_what_the_code_computes():
    text = METHOD.read_text(encoding="utf-8")
    written = {
        name: float(value)
        for name, value in re.findall(r"^\| ([^|]+) \| [^|]* \| ([\d.]+) \|$", text, re.MULTILINE)
    }
    computed = recomputed()
    assert written.keys() == computed.keys()
    for name, value in written.items():
        assert computed[name] == pytest.approx(value, rel=5e-4), name


def test_the_example_believes_what_the_text_says():
    assert ENGINE_JOULES == (3.03, 0.0282, 0.0586, 34e-6)
