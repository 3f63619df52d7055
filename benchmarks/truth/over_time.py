"""Measured over expected energy in the report of truth: what goes wrong, and what the ratio shows of it when."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.truth import ratios
from benchmarks.truth.prose import EXPECTED_TEXT
from benchmarks.truth.ratios import DAY_SECONDS, EVERY_MINUTE, Ratios
from benchmarks.truth.scenarios import SCENARIOS, regressed
from benchmarks.truth.tables import Section, table
from joulemeter.baseline import Basis

WANTED_POINTS: Final = 3.0
HOURS_AFTER: Final = (-1, 1, 6, 24)
"""At which the ratio is shown, counted from the hour in which something goes wrong."""


@dataclass(frozen=True, slots=True)
class Course:
    """A run: the baseline is frozen after `learn_days`; after `begun_days` decoding costs more or steps take longer."""

    scenario: str
    days: float
    learn_days: float = ratios.LEARN_DAYS
    begun_days: float = math.inf
    decode_power: float = 0.0
    step_time: float = 0.0

    @property
    def what(self) -> str:
        """What goes wrong."""
        if self.decode_power:
            return f"decode power +{self.decode_power:.0%}"
        return f"step time +{self.step_time:.0%}" if self.step_time else "nothing"


def courses(*, quick: bool) -> list[Course]:
    """Return the runs: four weeks in which nothing goes wrong, and ten days in which something does."""
    if quick:
        return [Course("chat_day", 2.5, 1.0, 1.4, decode_power=0.15)]
    wrong = [Course("chat_day", 10, begun_days=8.4, decode_power=more) for more in (0.10, 0.15, 0.25)]
    slower = [Course("chat_day", 10, begun_days=8.4, step_time=0.15)]
    return [Course("chat_day", 28), Course("growing", 28), *wrong, *slower]


def compared(course: Course) -> tuple[Course, Ratios]:
    """Run a course of one server."""
    scenario = SCENARIOS[course.scenario](course.days * DAY_SECONDS)
    if math.isfinite(course.begun_days):
        scenario = regressed(
            scenario,
            course.begun_days * DAY_SECONDS,
            decode_power=course.decode_power,
            step_time=course.step_time,
        )
    (found,) = ratios.ratios(scenario, learn_days=course.learn_days)
    return course, found


def section(found: list[tuple[Course, Ratios]]) -> Section:
    """Return the errors of all hours, and the ratios of some."""
    rows = [ratios.line(course.scenario, course.what, one) for course, one in found]
    heads = ["scenario", "what goes wrong", *(f"{hours:+d} h" for hours in HOURS_AFTER)]
    shown = [
        [course.scenario, course.what, *(_ratio(course, one, hours) for hours in HOURS_AFTER)]
        for course, one in found
        if math.isfinite(course.begun_days)
    ]
    worst = [(course, _worst_points(one)) for course, one in found]
    misses = tuple(
        f"measured over expected, {course.scenario}, {course.what}: {points:.1f} points, wanted {WANTED_POINTS:g}"
        for course, points in worst
        if not points <= WANTED_POINTS
    )
    text = f"{EXPECTED_TEXT}{ratios.HEAD}\n" + "\n".join(rows) + f"\n\n{RATIOS_TEXT}{table([heads, *shown])}"
    return Section("Measured over expected energy", text, misses, len(found))


RATIOS_TEXT: Final = "The ratio around the hour in which something goes wrong, measured / true:\n\n"


def _worst_points(one: Ratios) -> float:
    errors = np.abs(one.errors()[one.requests > EVERY_MINUTE])
    return float(errors.max()) if len(errors) else math.nan


def _ratio(course: Course, one: Ratios, hours_after: int) -> str:
    hour = math.floor(course.begun_days * 24) + hours_after
    (at,) = np.nonzero(one.hours == hour)
    if not len(at):
        return "-"
    measured = one.measured[Basis.ENGINE][at[0]]
    return f"{measured:.3f} / {one.true[at[0]]:.3f}"
