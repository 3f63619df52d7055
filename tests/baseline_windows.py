"""Windows of a model whose energy is known, for tests of baselines."""

import math

from joulemeter.baseline import BaselineKey, BaselineWindow
from joulemeter.engine_work import EngineWork
from joulemeter.model import User

KEY = BaselineKey("llama", "H100", 1)
USER = User("chat", "llama")
IDLE_WATTS = 120.0


def window(number: int, *, peak: float = 60.0, worse: float = 1.0, seconds: float = 10.0) -> BaselineWindow:
    """The number-th of a run whose load goes up and down; `worse` is what decoding costs more."""
    wave = 0.5 - 0.5 * math.cos(2 * math.pi * number / 150)
    batch = 1.0 + peak * wave * (1.0 + 0.3 * math.sin(number * 1.7))
    busy_ratio = min(1.0, 0.1 + wave)
    steps = 100.0 * seconds * busy_ratio
    work = EngineWork(
        steps=steps,
        prefill_steps=steps * 0.02,
        prompt_tokens=steps * (1.0 + 0.5 * math.sin(number * 0.9)),
        decoded_tokens=steps * batch,
        context_reads=steps * batch * (400.0 + 100.0 * math.sin(number * 2.3)),
    )
    return BaselineWindow(seconds, seconds, 1, joules(work, seconds, worse=worse), work)


def joules(work: EngineWork, seconds: float, *, worse: float = 1.0) -> float:
    """The model's physics: straight lines."""
    decode = 2.5 * work.steps + 0.03 * work.decoded_tokens + 2e-5 * work.context_reads
    return IDLE_WATTS * seconds + 0.02 * work.prompt_tokens + worse * decode
