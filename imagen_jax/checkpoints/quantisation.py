"""Arrays stored in eight bits: a whole number from -127 to 127 and a scale a column.

A matrix or kernel [..., C] becomes int8 of the same shape and name, beside
NAME@scale float32 [C], the largest absolute value of each column over 127. Vectors
and small arrays stay as they are.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from imagen_jax.checkpoints import tensors

SCALE = "@scale"
LEAST = 1024  # numbers, below which an array is not worth a scale


def quantise(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Store all large matrices of float arrays by name in eight bits."""
    stored = {}
    for name, array in arrays.items():
        if not is_large(array.shape):
            stored[name] = array
            continue
        wide = np.asarray(array, np.float32)
        scale = np.abs(wide).max(axis=tuple(range(wide.ndim - 1))) / 127.0
        steps = np.rint(wide / np.where(scale > 0, scale, 1.0))
        stored[name] = steps.astype(np.int8)
        stored[name + SCALE] = scale.astype(np.float32)
    return stored


def is_large(shape: Sequence[int]) -> bool:
    """Whether an array of this shape is stored in eight bits."""
    return len(shape) >= 2 and math.prod(shape) >= LEAST


class Mismatch(ValueError):
    """A scale without its array, of another width, or an array without its scale."""


def restore(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `quantise`, to half a step; other arrays pass through.

    Raises:
      Mismatch: for a scale without its array, one of another width, or an int8 array
        without its scale.
    """
    return dict(
        restored(sorted(stored.items(), key=lambda item: not _is_scale(item[0])))
    )


def restored(stored: Iterable[tuple[str, np.ndarray]]) -> Iterator[tuple[str, Any]]:
    """`restore`, one array at a time, of arrays that come after their scales.

    Files have them in this order: their widest arrays stand first.

    Raises:
      Mismatch: as `restore` does.
    """
    scales: dict[str, np.ndarray] = {}
    for name, array in stored:
        if _is_scale(name):
            scales[name] = array
        elif (scale := scales.pop(name + SCALE, None)) is None:
            if array.dtype == np.int8:
                raise Mismatch(f"quantisation: the int8 array {name} has no scale.")
            yield name, array
        elif array.dtype != np.int8 or array.shape[-1:] != scale.shape:
            raise _mismatch(name + SCALE, scale)
        else:
            yield name, array * scale
    for name, scale in scales.items():
        raise _mismatch(name, scale)


def _is_scale(name: str) -> bool:
    return name.endswith(SCALE)


def _mismatch(name: str, scale: np.ndarray) -> Mismatch:
    return Mismatch(
        f"quantisation: {name} of shape {scale.shape} belongs to no int8 array of its "
        "width; copy or download the file again."
    )


def table(stored: tensors.Tensors) -> tensors.Table:
    """The arrays of a file, quantised or not, to be restored one by one.

    A scale without its array is left over, which `tensors.check` refuses.
    """
    names = set(stored.names())
    sources = {}
    for name in names:
        if name + SCALE in names:
            sources[name] = tensors.Source((name, name + SCALE), _scaled)
        elif not name.endswith(SCALE):
            sources[name] = tensors.Source((name,))
    return sources


def _scaled(array: np.ndarray, scale: np.ndarray) -> np.ndarray:
    if array.dtype != np.int8 or array.shape[-1:] != scale.shape:
        raise ValueError(
            f"{array.dtype} of shape {array.shape} cannot have scales of {scale.shape}"
        )
    return array * scale
