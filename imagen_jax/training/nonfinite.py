"""What a step whose loss or gradient is not finite means for a run."""

import sys
from collections.abc import Mapping
from typing import Any

import jax


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient became infinite or not a number."""


class Guard:
    """Fetches metrics, and stops the run at a step that is not finite, or counts it.

    Attributes:
      skipped: batches left out so far.
    """

    def __init__(self, *, stop: bool, max_skipped: int):
        """Stop at the first such step, or after `max_skipped` of them."""
        self._stop, self._max_skipped = stop, max_skipped
        self.skipped = 0

    def read(self, step: int, device_metrics: Mapping[str, Any]) -> dict[str, float]:
        """Wait for a step's metrics: numbers by name.

        Raises:
          NonFiniteLoss: if they say to stop.
        """
        values = {k: float(v) for k, v in jax.device_get(device_metrics).items()}
        if not values.pop("nonfinite"):
            return values
        self.skipped += 1
        what = (
            f"Training: loss {values['loss']:g} with gradient norm "
            f"{values['grad_norm']:g} in step {step}"
        )
        if self._stop:
            raise NonFiniteLoss(
                f"{what}. No checkpoint holds it. Lower the learning rate or clip "
                "gradients, then start again; or let such batches be skipped "
                "(on_nonfinite = 'skip')."
            )
        if self.skipped > self._max_skipped:
            raise NonFiniteLoss(
                f"{what}, one skipped batch more than max_skipped = "
                f"{self._max_skipped}. Lower the learning rate or clip gradients."
            )
        print(f"{what}; this batch is skipped.", file=sys.stderr)
        return values
