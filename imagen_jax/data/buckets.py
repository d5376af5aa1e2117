"""Aspect-ratio buckets: batches of pictures that have nearly the same shape.

A bucket's shape is in eighths of the resolution, so that every stage of a cascade has
the same ones; its area is about that of the square.
"""

import bisect
import dataclasses
import functools
import itertools
import math

import numpy as np

from imagen_jax.data import order

PARTS = 8
# Areas allowed, in squares of eighths; the square has 64.
AREAS = (56, 70)
BUCKET_SALT = 0xB0C3


def shape_of(aspect: float) -> tuple[int, int]:
    """Return the (height, width) in eighths nearest to an aspect ratio (w / h)."""
    shapes = itertools.product(range(4, 17), repeat=2)
    fitting = [(h, w) for h, w in shapes if AREAS[0] <= h * w <= AREAS[1]]
    return min(
        fitting,
        key=lambda s: (abs(math.log(s[1] / s[0] / aspect)), abs(s[0] * s[1] - 64)),
    )


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Records divided by shape, and the order of their batches.

    An epoch has every whole batch of each bucket once, in a random order; the records
    that fill no batch are others in each epoch. The order depends on the batch size.

    Attributes:
      shapes: (height, width) of each bucket, in eighths.
      numbers: the records of each.
      batch_size: global.
    """

    shapes: tuple[tuple[int, int], ...]
    numbers: tuple[np.ndarray, ...]
    batch_size: int

    @functools.cached_property
    def starts(self) -> list[int]:
        """The first batch of each bucket in an epoch's list, and how many there are."""
        counts = (len(numbers) // self.batch_size for numbers in self.numbers)
        return [0, *itertools.accumulate(counts)]

    def locate(self, seed: int, index: int) -> tuple[int, tuple[int, int]]:
        """Return the record at a place of the endless stream, and its shape."""
        batch, inside = divmod(index, self.batch_size)
        epoch, batch = divmod(batch, self.starts[-1])
        key = order.digest(seed, epoch, BUCKET_SALT)
        batch = order.permute(batch, self.starts[-1], key)
        which = bisect.bisect_right(self.starts, batch) - 1
        numbers = self.numbers[which]
        position = (batch - self.starts[which]) * self.batch_size + inside
        position = order.permute(position, len(numbers), order.digest(key, which))
        return int(numbers[position]), self.shapes[which]


def divide(sizes: np.ndarray, aspects: tuple[float, ...], batch_size: int) -> Buckets:
    """Put every record into the bucket whose aspect ratio is nearest.

    Args:
      sizes: (width, height) of each, [N, 2].
      aspects: width / height of the buckets.
      batch_size: global.

    Raises:
      ValueError: if no bucket fills a batch.
    """
    shapes = tuple(dict.fromkeys(shape_of(aspect) for aspect in aspects))
    ratios = np.log([width / height for height, width in shapes])
    own = np.log(sizes[:, 0] / sizes[:, 1])
    which = np.abs(own[:, None] - ratios).argmin(1)
    numbers = tuple(np.flatnonzero(which == i) for i in range(len(shapes)))
    found = Buckets(shapes, numbers, batch_size)
    if not found.starts[-1]:
        counts = ", ".join(
            f"{w}:{h} {len(n)}" for (h, w), n in zip(shapes, numbers, strict=True)
        )
        raise ValueError(
            f"data.pictures.buckets: no bucket fills a batch of {batch_size} "
            f"({counts} pictures). Take fewer buckets or a smaller batch."
        )
    return found
