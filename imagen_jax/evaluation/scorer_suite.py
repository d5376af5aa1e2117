"""How often the scorer itself is right, on held-out real renders, by attribute."""

import dataclasses
from typing import Any

import numpy as np

from imagen_jax.cascade.contact_sheet import contact_sheet
from imagen_jax.data import emoji
from imagen_jax.evaluation import composition
from imagen_jax.evaluation.suites import interval

RESOLUTION = 256
SHOWN = 24


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome.

    Attributes:
      counts: (right, judged) of every attribute, and of "right": all of them.
      failures: (picture, caption, what the scorer saw) of its mistakes.
    """

    counts: dict[str, tuple[int, int]]
    failures: tuple[tuple[np.ndarray, str, str], ...]

    def table(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        table = {}
        for name, (right, judged) in self.counts.items():
            low, high = interval(right, judged)
            table[name] = {
                "right": right,
                "judged": judged,
                "share": right / judged,
                "interval_95": [low, high],
            }
        return {"suite": "scorer", "attributes": table}

    def __str__(self) -> str:
        lines = []
        for name, (right, judged) in self.counts.items():
            low, high = interval(right, judged)
            name = "all of them" if name == "right" else name
            lines.append(
                f"{name:<12} {right:>6} of {judged:<6} {right / judged:>7.2%}  "
                f"{low:.2%} to {high:.2%}"
            )
        return "\n".join(lines)

    def sheet(self):
        """The first mistakes (PIL image)."""
        some = self.failures[:SHOWN]
        labels = [f"{caption}: {reason}" for _, caption, reason in some]
        return contact_sheet([f[0] for f in some], labels, columns=8, cell=128)


def run(scorer: composition.Scorer, num: int, seed: int = 0) -> Report:
    """Look at held-out real renders and compare with their captions' claims.

    Args:
      scorer: the detector.
      num: pictures.
      seed: of the scenes.

    Raises:
      ValueError: if num < 1.
    """
    if num < 1:
        raise ValueError(f"evaluate: num must be >= 1, got {num}.")
    names = (*composition.ATTRIBUTES, "right")
    counts = {name: [0, 0] for name in names}
    failures = []
    for start in range(0, num, composition.BATCH):
        numbers = range(start, min(start + composition.BATCH, num))
        scenes = [emoji.scene(seed, i, "heldout") for i in numbers]
        pictures = np.stack([emoji.render(scene, RESOLUTION) for scene in scenes])
        for scene, picture, seen in zip(
            scenes, pictures, scorer.look(pictures), strict=True
        ):
            verdict = composition.check(seen, scene.claim)
            for name in names:
                value = getattr(verdict, name)
                counts[name][0] += bool(value)
                counts[name][1] += value is not None
            if not verdict.right:
                failures.append((picture, scene.caption, verdict.reason))
    judged = {name: (a, b) for name, (a, b) in counts.items() if b}
    return Report(judged, tuple(failures))


def shares(scorer: composition.Scorer, num: int) -> dict[str, float]:
    """The shares of `run` by name, for the log of a training."""
    counts = run(scorer, num).counts
    return {
        f"heldout_{name}": right / judged for name, (right, judged) in counts.items()
    }
