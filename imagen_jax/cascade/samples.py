"""Drawn pictures: what was asked for, each stage's pictures, and how they were made."""

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from imagen_jax.cascade import animation
from imagen_jax.cascade.contact_sheet import contact_sheet


@dataclasses.dataclass(frozen=True)
class Samples:
    """P pictures, drawn or begun; in a notebook the value shows itself as a sheet.

    An interrupted drawing holds what is done: a stage then has the first P_i <= P
    pictures. `TextToImage.resume` goes on from there.

    Attributes:
      prompts: one a picture.
      stages: one uint8 array [P_i, H, W, 3] a stage, smallest first.
      stage_names: one a stage.
      numbers: of each picture among those of its prompt; by default all 0.
      seeds: of each picture's noise; by default all 0.
      negatives: the negative prompt of each picture; by default all "", which is none.
      frames: with `frames=F`, one uint8 array [F_i, P_i, H, W, 3] a stage: the picture
        as predicted after each F-th part of the steps. F_i is at most F, and 0 for a
        stage that was there before.
      model: what it was loaded from.
      settings: the recipe of each of the cascade's stages, as plain values.
      complete: False if drawing was stopped before its end.
      size: (height, width) that was asked for of the last stage's pictures; None:
        square, as the stages were made for.
      edited: whether a picture was given, to edit, enlarge or vary.
    """

    prompts: tuple[str, ...]
    stages: tuple[np.ndarray, ...] = ()
    stage_names: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    frames: tuple[np.ndarray, ...] = ()
    model: str = ""
    settings: tuple[Mapping[str, Any], ...] = ()
    complete: bool = True
    negatives: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    edited: bool = False

    def __post_init__(self):
        """Fill in numbers and seeds, and check that there is one a picture."""
        for name, kind in (("numbers", int), ("seeds", int), ("negatives", str)):
            values = getattr(self, name) or (kind(),) * len(self.prompts)
            if len(values) != len(self.prompts):
                raise ValueError(
                    f"Samples: {name} must be one for each of the "
                    f"{len(self.prompts)} prompts, got {len(values)}."
                )
            object.__setattr__(self, name, tuple(kind(v) for v in values))

    def __repr__(self) -> str:
        """One line, without pixels: `Samples of 2 pictures: base 2 x 64 x 64, ...`."""
        stages = ", ".join(
            f"{name} {len(stage)} x {stage.shape[1]} x {stage.shape[2]}"
            for name, stage in zip(self.stage_names, self.stages, strict=True)
        )
        return f"Samples of {len(self.prompts)} pictures: {stages or 'none drawn'}"

    @property
    def images(self) -> np.ndarray:
        """The last stage's pictures, uint8 [P_i, H, W, 3].

        Raises:
          ValueError: when none was drawn.
        """
        if not self.stages:
            raise ValueError("Samples: no picture was drawn yet.")
        return self.stages[-1]

    def latest(self) -> list[np.ndarray]:
        """Each picture as the last stage that drew it left it; those drawn at all."""
        return [
            next(s[i] for s in reversed(self.stages) if len(s) > i)
            for i in range(max((len(s) for s in self.stages), default=0))
        ]

    def sheet(self, cell: int = 256):
        """A contact sheet (PIL image) of `latest`."""
        return contact_sheet(self.latest(), self.prompts, cell=cell)

    def animation(self, picture: int | None = None, cell: int | None = None) -> list:
        """The denoising as PIL images, all stages at one size.

        Args:
          picture: which; None for sheets of all.
          cell: side of a picture in pixels; by default the last stage's for one
            picture, 256 on sheets.

        Raises:
          ValueError: if it was drawn without `frames`.
        """
        if not any(len(f) for f in self.frames):
            raise ValueError("Samples: draw with frames=N to have an animation.")
        if picture is None:
            return animation.sheets(self.frames, self.prompts, cell or 256)
        return animation.of_picture(self.frames, picture, cell)

    def _repr_png_(self) -> bytes | None:
        if not self.latest():
            return None
        buffer = io.BytesIO()
        self.sheet().save(buffer, "PNG")
        return buffer.getvalue()
