"""What happens to an example between its source and the batch."""

import numpy as np

from imagen_jax.data import order

CROP_SALT = 0xC409


def crop_window(
    seed: int, index: int, resolution: int, size: int, multiple: int = 1
) -> tuple[int, int, int]:
    """Draw the square window (top, left, size) of one training crop.

    A pure function of (seed, index). Corners fall on multiples of `multiple`, the
    ratio to the low-resolution picture, so that both crop to whole pixels.

    Raises:
        ValueError: if the crop is larger than the picture or not on the grid.
    """
    if size > resolution or size % multiple or resolution % multiple:
        raise ValueError(
            f"crop_window: size must be at most {resolution} and both a multiple of "
            f"{multiple}, got size {size}. Choose a smaller crop on that grid."
        )
    draw = order.Draw(seed, index, CROP_SALT)
    steps = (resolution - size) // multiple + 1
    return draw.below(steps) * multiple, draw.below(steps) * multiple, size


def crop(image: np.ndarray, window: tuple[int, int, int]) -> np.ndarray:
    """Cut the window (top, left, size) out of an image [H, W, C]."""
    top, left, size = window
    return image[top : top + size, left : left + size]
