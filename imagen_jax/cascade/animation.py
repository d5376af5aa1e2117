"""Frames of the denoising as an animated picture."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from imagen_jax.cascade.contact_sheet import contact_sheet

FORMATS = ("webp", "gif", "png")


def of_picture(
    frames: Sequence[np.ndarray], picture: int, cell: int | None = None
) -> list[Image.Image]:
    """One picture's frames of all stages, enlarged to one size.

    Args:
      frames: one uint8 array [F, P, H, W, 3] a stage.
      picture: which of the P; stages that have not drawn it are left out.
      cell: side of the squares in pixels; by default each as tall and wide as the last
        stage's.
    """
    there = [stage for stage in frames if len(stage) and stage.shape[1] > picture]
    if not there:
        raise ValueError(f"animation: there are no frames of picture {picture}.")
    height, width = there[-1].shape[2:4]
    size = (width, height) if cell is None else (cell, cell)
    return [
        Image.fromarray(frame).resize(size, Image.Resampling.NEAREST)
        for stage in there
        for frame in stage[:, picture]
    ]


def sheets(
    frames: Sequence[np.ndarray], labels: Sequence[str], cell: int = 256
) -> list[Image.Image]:
    """Contact sheets of all pictures, one a frame.

    A picture that a stage has not drawn stays as the stage before left it.
    """
    found, latest = [], {}
    for stage in frames:
        for frame in stage:
            latest |= dict(enumerate(frame))
            pictures = [latest[i] for i in sorted(latest)]
            found.append(contact_sheet(pictures, labels, cell=cell))
    return found


def save(
    path: str | pathlib.Path, frames: Sequence[Image.Image], seconds: float = 4.0
) -> None:
    """Write frames as one animated file, whose last picture stays for a while.

    Args:
      path: ends in .webp (lossless), .gif (256 colours) or .png (APNG).
      frames: at least one.
      seconds: that the frames last together; the last one stays 1.5 s longer.

    Raises:
      ValueError: for another ending, or no frame.
    """
    path = pathlib.Path(path)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise ValueError(f"animation: {path} must end in one of {FORMATS}.")
    if not frames:
        raise ValueError("animation: at least one frame is required, got none.")
    each = max(20, round(1000 * seconds / len(frames)))
    times = [each] * (len(frames) - 1) + [each + 1500]
    options: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
    frames[0].save(
        path,
        save_all=True,
        append_images=list(frames[1:]),
        duration=times,
        loop=0,
        **options,
    )
