"""Parameters go one by one from a file to their places on a mesh."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from imagen_jax import partitioning
from imagen_jax.checkpoints import safetensors
from imagen_jax.models import layers


def placing(
    mesh: Mesh, boxed: Any, dtype: DTypeLike
) -> Callable[[str, np.ndarray], jax.Array]:
    """How each parameter goes to its place: (our name, array) -> array on the devices.

    For `tensors.transfer`, and for `model_directory.parameters`.

    Args:
      mesh: the devices.
      boxed: `jax.eval_shape(init)` of the network.
      dtype: of the network; kernels are kept in it.
    """
    shardings = safetensors.flatten(partitioning.param_shardings(mesh, boxed))

    def place(name: str, array: np.ndarray) -> jax.Array:
        array = as_stored(name, array, dtype)
        there = jax.make_array_from_callback(
            array.shape, shardings[name], lambda index: array[index]
        )
        # Else transfers queue up, each with its array on the host.
        return jax.block_until_ready(there)

    return place


def as_stored(name: str, array: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """A parameter in the type that it has in memory: `layers.stored`, checked.

    Raises:
      ValueError: for a number that `dtype` does not hold.
    """
    leaf = name.rsplit("/", 1)[-1]
    with np.errstate(over="ignore"):
        array = layers.stored({leaf: array.astype(np.float32, copy=False)}, dtype)[leaf]
    if array.dtype == np.float16 and not np.isfinite(array).all():
        raise ValueError(
            f"Text encoder: {name} has numbers that float16 does not hold; take "
            "bfloat16 or float32."
        )
    return array
