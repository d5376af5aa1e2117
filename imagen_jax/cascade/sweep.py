"""One picture for each pair of values of two settings."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from imagen_jax.cascade.samples import Samples
from imagen_jax.cascade.text_to_image import Moment, TextToImage


@dataclasses.dataclass(frozen=True)
class Axis:
    """Values of one setting.

    Attributes:
      name: "prompt", "seed", or a setting as `TextToImage.recipes_with` has it; "" for
        an axis of one cell.
      values: of the setting; each one value for all stages, or one a stage.
      labels: one a value.
    """

    name: str = ""
    values: tuple[Any, ...] = (None,)
    labels: tuple[str, ...] = ("",)

    def __post_init__(self):
        """Check that there is a value, and a label for each."""
        if not self.values or len(self.values) != len(self.labels):
            raise ValueError(
                f"Axis: {self.name} must have values and one label each, got "
                f"{len(self.values)} and {len(self.labels)}."
            )


def sweep(
    model: TextToImage,
    x: Axis,
    y: Axis,
    *,
    prompt: str = "",
    seed: int = 0,
    until: str | None = None,
    progress: Callable[[Moment], Any] = lambda moment: None,
    **settings: Any,
) -> Iterator[tuple[int, int, Samples]]:
    """Draw the cells, row by row: (column, row, one picture).

    A stage whose prompt, seed and settings, and those of the stages before, were drawn
    in another cell is not drawn again: a sweep of a super-resolution stage draws the
    base once. It ends early where a drawing is stopped.

    Raises:
      ValueError: before anything is drawn, for a setting that there is not or cannot
        be, or if both axes set the same.
    """
    if x.name == y.name:
        raise ValueError(f"grid: the axes must be two settings, got {x.name} twice.")
    plan = []
    for row, down in enumerate(y.values):
        for column, across in enumerate(x.values):
            asked = {"prompt": prompt, "seed": seed, **settings}
            asked |= {a.name: v for a, v in ((x, across), (y, down)) if a.name}
            begun = Samples((asked.pop("prompt"),), seeds=(asked.pop("seed"),))
            if not begun.prompts[0].strip():
                raise ValueError("grid: a prompt is required; describe a picture.")
            plan.append((column, row, begun, model.recipes_with(**asked), asked))
    drawn: dict[str, np.ndarray] = {}
    for column, row, begun, recipes, asked in plan:
        stages = model.plain(recipes)
        keys = [key(begun, stages[: i + 1]) for i in range(len(stages))]
        known = [drawn[k] for k in keys if k in drawn]
        names = tuple(stage["stage"] for stage in stages)[: len(known)]
        begun = dataclasses.replace(begun, stages=tuple(known), stage_names=names)
        samples = model.resume(begun, until=until, progress=progress, **asked)
        if not samples.complete:
            return
        drawn |= dict(zip(keys, samples.stages, strict=False))
        yield column, row, samples


def key(begun: Samples, stages: Sequence[dict[str, Any]]) -> str:
    """What decides the picture of the last of some stages."""
    return json.dumps([begun.prompts, begun.seeds, stages])
