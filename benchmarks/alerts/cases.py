"""What happens in the weeks: nothing wrong, in many ways; and things that go wrong, many times."""

import math
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.alerts.weeks import Node
from benchmarks.truth.ratios import DAY_SECONDS
from benchmarks.truth.scenario import Change, Scenario, served
from benchmarks.truth.scenarios import (
    CHAT,
    DAY,
    LLAMA_8B,
    chat_day,
    mixture_of_experts,
    regressed,
    warming_cache,
)
from benchmarks.truth.sensor import Sensor
from benchmarks.truth.traffic import Load, Traffic

HOUR_SECONDS: Final = 3600.0
WEEKS: Final = 4
SECONDS: Final = WEEKS * 7 * DAY_SECONDS
STEP_DAYS: Final = 14.4
"""Monday morning of the third week."""
RESTART_DAYS: Final = (2.45, 9.6, 16.1, 16.104, 23.9)
"""When the server of every run restarts; once twice within six minutes."""
LONGEST_SECONDS: Final = 5.0
"""Between two pages, as the daemon has it at most (law 6); the fewer there are, the less is known of contexts."""
DRIFT: Final = 0.03
DRIFT_PERIOD_SECONDS: Final = 5 * DAY_SECONDS
EPISODE_HOURS: Final = (9.3, 11.1, 13.6, 15.2, 16.0)
"""Of the day; far enough apart for each to be forgotten before the next."""
EPISODE_SECONDS: Final = 3 * HOUR_SECONDS
EPISODE_SEEDS: Final = 3
DECODE_POWERS: Final = (0.10, 0.125, 0.15, 0.19, 0.25, 0.32)
"""What decoding costs more; of all energy it makes about four fifths of that."""


@dataclass(frozen=True, slots=True)
class Episode:
    """Decoding costs so much more power, from a time on for `EPISODE_SECONDS` or, if it stays, for good."""

    begins_seconds: float
    decode_power: float


@dataclass(frozen=True, slots=True)
class Case:
    """One run; without episodes every alert in it is false."""

    name: str
    says: str
    seed: int
    nodes: tuple[Node, ...]
    episodes: tuple[Episode, ...] = ()
    stays: bool = False

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.nodes[0].scenario.seconds

    @property
    def label(self) -> str:
        """What its series are labelled with."""
        return f"{self.name}-{self.seed}"


def _node(scenario: Scenario) -> Node:
    restarts = tuple(day * DAY_SECONDS for day in RESTART_DAYS if day * DAY_SECONDS < scenario.seconds)
    return Node(scenario, restarts_seconds=restarts)


def _chat(load: Load, seed: int, seconds: float = SECONDS) -> Scenario:
    return served(LLAMA_8B, Traffic(load, (CHAT,)), seconds, seed=seed)


def chat(seed: int) -> Case:
    """Chats through days, nights and weekends."""
    return Case("chat", chat.__doc__ or "", seed, (_node(chat_day(SECONDS, seed)),))


def traffic_step(seed: int) -> Case:
    """Chats at a third of that traffic; after two weeks, on a Monday morning, it becomes three times as much."""
    load = replace(DAY, peak=DAY.peak / 3, steps=((STEP_DAYS * DAY_SECONDS, 3.0),))
    return Case("traffic-x3", traffic_step.__doc__ or "", seed, (_node(_chat(load, seed)),))


def longer_prompts(seed: int) -> Case:
    """Chats; after two weeks prompts become three times as long, and answers half as long again."""
    at = math.floor(STEP_DAYS * 24) * HOUR_SECONDS
    kinds = (
        replace(CHAT, until_seconds=at),
        replace(CHAT, prompt_tokens=1200, output_tokens=300, from_seconds=at),
    )
    scenario = served(LLAMA_8B, Traffic(replace(DAY, peak=5.0), kinds), SECONDS, seed=seed)
    node = replace(_node(scenario), observe_seconds=LONGEST_SECONDS)
    return Case("longer-prompts", longer_prompts.__doc__ or "", seed, (node,))


def warm_cache(seed: int) -> Case:
    """Long shared prefixes, cold at night and warm by day."""
    return Case("warm-cache", warm_cache.__doc__ or "", seed, (_node(warming_cache(SECONDS, seed)),))


def replica(seed: int) -> Case:
    """Chats; after two weeks a second server on another node, without a baseline, takes half of them."""
    at = STEP_DAYS * DAY_SECONDS
    first = _chat(replace(DAY, steps=((at, 0.5),)), seed)
    begins = math.floor(STEP_DAYS) * DAY_SECONDS  # a Monday's midnight, as every run's beginning
    traffic = Traffic(replace(DAY, peak=DAY.peak / 2), (CHAT,), from_seconds=at - begins)
    second = Node(served(LLAMA_8B, traffic, SECONDS - begins, seed=seed + 100), "node-1", begins)
    return Case("replica-added", replica.__doc__ or "", seed, (_node(first), second))


def _drifting(scenario: Scenario) -> Scenario:
    """By a sensor with 1 % of noise that drifts by 3 % up and down in five days."""
    period = DRIFT_PERIOD_SECONDS
    sensor = Sensor(noise_ratio=0.01, drift_ratio=DRIFT, drift_period_seconds=period, seed=scenario.seed)
    return replace(scenario, sensor=sensor)


def drifting_experts(seed: int) -> Case:
    """A mixture of experts, its power a table that falls at large batches, by a sensor that drifts by 3 % in days."""
    scenario = _drifting(mixture_of_experts(SECONDS, seed))
    return Case("mixture-of-experts-drift", drifting_experts.__doc__ or "", seed, (_node(scenario),))


def episodes(seed: int) -> Case:
    """Chats; from the second week on, decoding costs 10 to 32 % more power for three hours of each day."""
    return _episodes("episodes", episodes.__doc__ or "", chat_day(SECONDS, seed))


def drifting_episodes(seed: int) -> Case:
    """The same with a mixture of experts, its power a table, by a sensor that drifts by 3 % in days."""
    scenario = _drifting(mixture_of_experts(SECONDS, seed))
    return _episodes("episodes-mixture-of-experts-drift", drifting_episodes.__doc__ or "", scenario)


def _episodes(name: str, says: str, scenario: Scenario) -> Case:
    happened = list[Episode]()
    for number, day in enumerate(range(7, WEEKS * 7)):
        at = day * DAY_SECONDS + EPISODE_HOURS[number % len(EPISODE_HOURS)] * HOUR_SECONDS
        happened.append(Episode(at, DECODE_POWERS[number % len(DECODE_POWERS)]))
    changes = [
        change
        for one in happened
        for change in (
            Change(one.begins_seconds, decode_power=one.decode_power),
            Change(one.begins_seconds + EPISODE_SECONDS),
        )
    ]
    scenario = replace(scenario, changes=tuple(changes))
    return Case(name, says, scenario.seed, (Node(scenario),), tuple(happened))


def stays(seed: int) -> Case:
    """Chats for two weeks; from the tenth day on, decoding costs 15 % more power, night and day."""
    at = 9.45 * DAY_SECONDS
    scenario = regressed(chat_day(14 * DAY_SECONDS, seed), at, decode_power=0.15)
    return Case("stays", stays.__doc__ or "", seed, (Node(scenario),), (Episode(at, 0.15),), stays=True)


def plan(seeds: int) -> list[Case]:
    """Return all runs: so many seeds of chats, and of the hardest model by the worst sensor, with nothing wrong."""
    return [
        *(episodes(seed) for seed in range(EPISODE_SEEDS)),
        drifting_episodes(0),
        *(chat(seed) for seed in range(seeds)),
        *(build(0) for build in (traffic_step, longer_prompts, warm_cache, replica)),
        *(drifting_experts(seed) for seed in range(seeds)),
        stays(0),
    ]


def quick(days: float = 7.0, learn_days: float = 1.0, begins_days: float = 5.6) -> Case:
    """A week of chats, learned in a day; late on Saturday morning decoding costs a quarter more power."""
    at = begins_days * DAY_SECONDS
    scenario = regressed(chat_day(days * DAY_SECONDS), at, decode_power=0.25)
    node = Node(scenario, learn_days=learn_days)
    return Case("quick", quick.__doc__ or "", 0, (node,), (Episode(at, 0.25),), stays=True)
