"""Means of the metrics, and rates of the work, between two lines of the log."""

from collections.abc import Mapping

import numpy as np

from imagen_jax.training import clock


class Meter:
    """Means of the metrics and rates of the work since the last `summary`.

    Rates count the time in steps and the wait for data; not what is started, saved,
    sampled or evaluated in between.
    """

    def __init__(
        self,
        time: clock.Clock,
        *,
        examples: int,
        flops: float,
        chips: int,
        peak: float | None = None,
    ):
        """Begin to count.

        Args:
          time: the run's clock.
          examples: in one step, over all processes.
          flops: model operations in one step, over all processes.
          chips: of the whole job.
          peak: a chip's operations a second; None where nobody has stated them.
        """
        self._time, self._examples, self._flops = time, examples, flops
        self._chips, self._peak = chips, peak
        self._values: dict[str, list[float]] = {}
        self.restart()

    def restart(self) -> None:
        """Forget the time spent, not the metrics: the first step compiles."""
        self._steps, self._before = 0, self._time.seconds()

    def add(self, values: Mapping[str, float]) -> None:
        """Add the metrics of one step; what is not finite enters no mean."""
        self._steps += 1
        for name, value in values.items():
            if np.isfinite(value):
                self._values.setdefault(name, []).append(value)

    def summary(self) -> dict[str, float]:
        """Means and rates, then begin again."""
        means = {name: float(np.mean(v)) for name, v in self._values.items()}
        now = self._time.seconds()
        waited = now["data"] - self._before["data"]
        seconds = now["steps"] - self._before["steps"] + waited
        if self._steps and seconds > 0:
            rate = self._steps / seconds
            tflops = rate * self._flops / 1e12
            means |= {
                "step_seconds": 1 / rate,
                "steps_per_second": rate,
                "images_per_second": rate * self._examples,
                "images_per_second_per_chip": rate * self._examples / self._chips,
                "model_tflops_per_second": tflops,
                "model_tflops_per_second_per_chip": tflops / self._chips,
                "data_wait_share": waited / seconds,
            }
            if self._peak:
                means["utilisation"] = tflops * 1e12 / self._chips / self._peak
        self._values = {}
        self.restart()
        return means
