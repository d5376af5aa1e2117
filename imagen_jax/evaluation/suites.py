"""The suite of shapes: draw held-out captions, check each, say how sure that is."""

import dataclasses
import math
from typing import Any

import numpy as np

from imagen_jax.cascade.contact_sheet import contact_sheet
from imagen_jax.cascade.text_to_image import TextToImage
from imagen_jax.data import tasks
from imagen_jax.evaluation import shapes_checker


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome of a suite.

    Attributes:
      suite: its name.
      drawn: how many pictures were checked.
      right: how many were wholly right.
      ceiling: the share of real pictures of the same captions that the check takes
        for right: no model can do better.
      failures: (picture, caption, what was wrong) of the others.
    """

    suite: str
    drawn: int
    right: int
    ceiling: float
    failures: tuple[tuple[np.ndarray, str, str], ...]

    def table(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        low, high = interval(self.right, self.drawn)
        return {
            "suite": self.suite,
            "drawn": self.drawn,
            "right": self.right,
            "share": self.right / self.drawn,
            "interval_95": [low, high],
            "ceiling": self.ceiling,
        }

    def __str__(self) -> str:
        """One line: the share, its 95 % interval and the checker's ceiling."""
        low, high = interval(self.right, self.drawn)
        return (
            f"{self.suite}: {self.right / self.drawn:.1%} of {self.drawn} held-out "
            f"captions wholly right (95 % interval {low:.1%} to {high:.1%}; the check "
            f"passes {self.ceiling:.1%} of real pictures)"
        )

    def sheet(self):
        """The first failures on a sheet (PIL image)."""
        some = self.failures[:24]
        labels = [f"{caption}: {reason}" for _, caption, reason in some]
        return contact_sheet([f[0] for f in some], labels, columns=8, cell=128)


def interval(right: int, drawn: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927)."""
    z, p = 1.96, right / drawn
    middle = p + z * z / (2 * drawn)
    half = z * math.sqrt(p * (1 - p) / drawn + z * z / (4 * drawn * drawn))
    scale = 1 + z * z / drawn
    # Both ends are exact for none and all, but for rounding.
    return max((middle - half) / scale, 0.0), min((middle + half) / scale, 1.0)


def shapes(
    model: TextToImage, num: int = 256, seed: int = 0, **settings: Any
) -> Report:
    """Held-out captions of the shapes task, one picture each.

    Args:
      model: a cascade trained on shapes.
      num: captions.
      seed: of the captions and the noise.
      **settings: as `TextToImage.sample`.

    Raises:
      ValueError: if num < 1.
    """
    if num < 1:
        raise ValueError(f"evaluate: num must be >= 1, got {num}.")
    source = tasks.by_name("shapes", "heldout")
    examples = [
        source.example(seed, i, model.cascade.stages[-1].resolution) for i in range(num)
    ]
    captions = [example["text"] for example in examples]
    real = [shapes_checker.check_shapes(e["image"], e["text"]).right for e in examples]
    drawn = model.sample(captions, seed=seed, **settings).images
    verdicts = [
        shapes_checker.check_shapes(image, caption)
        for image, caption in zip(drawn, captions, strict=True)
    ]
    failures = tuple(
        (image, caption, verdict.reason)
        for image, caption, verdict in zip(drawn, captions, verdicts, strict=True)
        if not verdict.right
    )
    return Report("shapes", num, num - len(failures), float(np.mean(real)), failures)
