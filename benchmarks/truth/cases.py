"""What the report of truth runs, and the numbers that are wanted."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from benchmarks.truth.books import AT_FINISH, LLAMACPP, SGLANG, VLLM
from benchmarks.truth.measure import TEN_MINUTES_SECONDS, Case
from benchmarks.truth.more_scenarios import MORE_SCENARIOS, PAIRS, on_pair
from benchmarks.truth.scenarios import SCENARIOS
from benchmarks.truth.sensor import Sensor

DAY_OF_CHAT: Final = {"idle": 0.01, "prefill": 0.05, "decode": 0.01}
LOW_TRAFFIC: Final = {"idle": 0.01, "prefill": 0.10, "decode": 0.01}
LONG_PROMPTS: Final = {"prefill": 0.05, "decode": 0.03}
SHARED: Final = {"work": 0.02, "all": 0.02}
TEN_MINUTES: Final = {"prefill": 0.03, "decode": 0.03, "work": 0.03, "all": 0.03}
WRONG_PRIOR: Final = {"prefill": 0.15, "decode": 0.02, "work": 0.02, "all": 0.02}
WANTED: Final[Mapping[str, Mapping[str, float]]] = {
    "chat_day": DAY_OF_CHAT,
    "tensor_parallel": DAY_OF_CHAT,
    "short_chats": DAY_OF_CHAT,
    "round_the_clock": DAY_OF_CHAT,
    "request_a_minute": LOW_TRAFFIC,
    "long_bursts": LONG_PROMPTS,
    **dict.fromkeys(("two_models", "three_models", "shared_pair", "late_server"), SHARED),
}
"""Largest bias, by scenario; the others have no number and are reported all the same."""

SEEDS: Final = (0, 1, 2)
ON_PAIRS: Final[Mapping[str, Sequence[str]]] = {
    "chat_day": PAIRS,
    "request_a_minute": PAIRS[:3],
    "long_bursts": PAIRS[:3],
    "constant_shape": PAIRS[:1],
    "mixed": PAIRS[2:4],
    "warming_cache": PAIRS[1:2],
    "one_long_prompt": PAIRS[2:3],
    "short_replies": PAIRS[:1],
    "speculative": PAIRS[4:],
}
"""Scenarios that are run with other models and GPUs too."""
WRONG_PRIORS_IN: Final = ("chat_day", "two_models", "long_bursts", "three_models", "code_completion")
SENSORS: Final[Mapping[str, Sensor]] = {
    "noise of 1 %, drift of 1.5 %": Sensor(noise_ratio=0.01, drift_ratio=0.015),
    "a sensor that looks a quarter of the time": Sensor(seen_parts=1),
    "both": Sensor(seen_parts=1, noise_ratio=0.01, drift_ratio=0.015),
}


def splits(seconds: float, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return every scenario, with the other methods beside the estimator."""
    return [
        Case(
            name,
            build(seconds, seed),
            WANTED.get(name, {}),
            others=True,
            wrong_priors=name in WRONG_PRIORS_IN,
        )
        for name, build in {**SCENARIOS, **MORE_SCENARIOS}.items()
        for seed in seeds
    ]


def on_pairs(seconds: float, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return scenarios with other models and GPUs; each has a seed of its own."""
    found = []
    for name, models in ON_PAIRS.items():
        for number, model in enumerate(models):
            scenario = on_pair(SCENARIOS[name](seconds, seeds[number % len(seeds)]), model)
            label = f"{name}, {model.split('/')[-1]}"
            found.append(Case(label, scenario, WANTED.get(name, {}), others=True))
    return found


def server_kinds(seconds: float, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return what servers tell, over ten minutes: all as vLLM, and less; of two seeds."""
    return [
        Case(
            f"{name}, {style.dialect}",
            SCENARIOS[name](seconds, seed),
            WANTED[name],
            wanted_weighted=TEN_MINUTES if style in (LLAMACPP, AT_FINISH) else {},
            style=style,
            compare_seconds=TEN_MINUTES_SECONDS,
        )
        for name in ("chat_day", "two_models")
        for style in (VLLM, SGLANG, LLAMACPP, AT_FINISH)
        for seed in seeds[:2]
    ]


def sensors(seconds: float, seeds: Sequence[int] = SEEDS) -> list[Case]:
    """Return worse conditions, of one seed: noise, a sensor that looks away, clocks that disagree, fewer pages."""
    found = []
    for name in ("chat_day", "two_models"):
        wanted = WANTED[name]
        for seed in seeds[:1]:
            scenario = SCENARIOS[name](seconds, seed)
            found += [
                Case(f"{name}, {what}", replace(scenario, sensor=replace(sensor, seed=seed)), wanted)
                for what, sensor in SENSORS.items()
            ]
            found += [
                Case(f"{name}, {skew} s of skew", scenario, wanted, skew_seconds=skew) for skew in (0.05, 0.5)
            ]
            seldom = replace(scenario, observe_seconds=5.0)
            found.append(Case(f"{name}, an observation every 5 s", seldom, wanted))
    return found
