"""What a board's energy counter makes of the truth: ticks, a sensor that looks away, noise, drift, quanta."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.truth.compiled import compiled

TICK_SECONDS = 0.1
_HOUR_TICKS = 36_000


@dataclass(frozen=True, slots=True)
class Sensor:
    """An NVML energy counter.

    It moves every `TICK_SECONDS`. `seen_parts` of four: how much of each period the sensor looks at (A100 and
    H100: one of four, its end); noise is multiplicative and first-order autoregressive, drift a slow sine. The
    default is exact but for whole millijoules; `quantum_joules=0` is exact.
    """

    seen_parts: int = 4
    noise_ratio: float = 0.0
    noise_memory: float = 0.9
    """Correlation from tick to tick."""
    drift_ratio: float = 0.0
    drift_period_seconds: float = 7200.0
    quantum_joules: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seen_parts not in range(1, 5):
            raise ValueError(f"seen_parts={self.seen_parts}: 1 to 4 quarters of a tick")

    @property
    def bins_per_tick(self) -> int:
        """How finely the truth must be known."""
        return 1 if self.seen_parts == 4 else 4  # noqa: PLR2004


@dataclass(slots=True)
class Counter:
    """A board's counter over a run: the total so far, and the state of its noise."""

    sensor: Sensor
    total_joules: float = 0.0
    _noise: float = 0.0

    def count(self, bin_joules: NDArray[np.float64], first_tick: int) -> NDArray[np.float64]:
        """Return the counter's value after each tick of a stretch of true energy that begins with an hour."""
        sensor = self.sensor
        bins = bin_joules.reshape(-1, sensor.bins_per_tick)
        ticks = bins.sum(axis=1)
        if sensor.bins_per_tick > 1:
            ticks = bins[:, -sensor.seen_parts :].sum(axis=1) * (sensor.bins_per_tick / sensor.seen_parts)
        if sensor.noise_ratio:
            hours = [  # one draw an hour, so that a run does not depend on its chunks
                np.random.default_rng([sensor.seed, 4, tick]).standard_normal(_HOUR_TICKS)
                for tick in range(first_tick, first_tick + len(ticks), _HOUR_TICKS)
            ]
            innovation = np.concatenate(hours)[: len(ticks)] * math.sqrt(1 - sensor.noise_memory**2)
            noise = _autoregressive(innovation, sensor.noise_memory, self._noise)
            self._noise = float(noise[-1])
            ticks = ticks * np.maximum(0.0, 1.0 + sensor.noise_ratio * noise)
        if sensor.drift_ratio:
            at = (first_tick + np.arange(len(ticks))) * TICK_SECONDS
            ticks = ticks * (
                1.0 + sensor.drift_ratio * np.sin(2 * math.pi * at / sensor.drift_period_seconds)
            )
        totals: NDArray[np.float64] = self.total_joules + np.cumsum(ticks)
        self.total_joules = float(totals[-1])
        if not sensor.quantum_joules:
            return totals
        return np.floor(totals / sensor.quantum_joules) * sensor.quantum_joules


def _autoregress(innovation: NDArray[np.float64], memory: float, start: float) -> NDArray[np.float64]:
    out = np.empty_like(innovation)
    for i in range(len(innovation)):
        start = memory * start + innovation[i]
        out[i] = start
    return out


_autoregressive = compiled(_autoregress)
