"""Arrays stored in eight bits: a whole number from -127 to 127 and a scale a column.

A matrix or kernel [..., C] becomes int8 of the same shape and name, beside
NAME@scale float32 [C], the largest absolute value of each column over 127. Vectors
and small arrays stay as they are.
"""

from collections.abc import Mapping

import numpy as np

from imagen_jax.checkpoints import tensors

SCALE = "@scale"
LEAST = 1024  # numbers, below which an array is not worth a scale


def quantise(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Store all large matrices of float arrays by name in eight bits."""
    stored = {}
    for name, array in arrays.items():
        if array.ndim < 2 or array.size < LEAST:
            stored[name] = array
            continue
        wide = np.asarray(array, np.float32)
        scale = np.abs(wide).max(axis=tuple(range(wide.ndim - 1))) / 127.0
        steps = np.rint(wide / np.where(scale > 0, scale, 1.0))
        stored[name] = steps.astype(np.int8)
        stored[name + SCALE] = scale.astype(np.float32)
    return stored


def restore(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `quantise`, to half a step; other arrays pass through.

    Raises:
      ValueError: for a scale without its array, or one of another width.
    """
    arrays = {k: a for k, a in stored.items() if not k.endswith(SCALE)}
    for key in stored.keys() - arrays.keys():
        name, scale = key.removesuffix(SCALE), stored[key]
        array = arrays.get(name)
        if array is None or array.dtype != np.int8 or array.shape[-1:] != scale.shape:
            raise ValueError(
                f"quantisation: {key} of shape {scale.shape} belongs to no int8 array "
                "of its width; copy or download the file again."
            )
        arrays[name] = array * scale
    return arrays


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
