"""Parameters on the devices: read when they are asked for, dropped where they crowd."""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from imagen_jax import partitioning


class Resident:
    """Parameter trees put on the devices when they are asked for, then kept.

    Where memory is short the other trees go before one comes.

    Args:
      readers: one a network.
      shapes: a network's boxed parameters as `jax.eval_shape` gives them, asked for on
        meshes that split parameters.
      mesh: the devices. Parameters are split over its axes fsdp and tensor as
        `partitioning.RULES` says, and whole on each of the others.
      limit: bytes of a device that may be kept; by default half of what it holds.
    """

    def __init__(
        self,
        readers: Sequence[Callable[[], Any]],
        shapes: Sequence[Callable[[], Any]],
        mesh: Mesh,
        limit: float | None = None,
    ):
        self._readers, self._shapes, self.mesh = readers, shapes, mesh
        self._limit = memory_limit(mesh) if limit is None else limit
        self._ways = mesh.shape["fsdp"] * mesh.shape["tensor"]
        self._placed: dict[int, Any] = {}

    def __len__(self) -> int:
        """The number of networks."""
        return len(self._readers)

    def __getitem__(self, i: int) -> Any:
        """The tree of network `i`, on the devices."""
        if i not in self._placed:
            tree = self._readers[i]()
            if size_of((tree, self._placed)) / self._ways > self._limit:
                self._placed.clear()
            self._placed[i] = self._put(i, tree)
        return self._placed[i]

    def _put(self, i: int, tree: Any) -> Any:
        if self._ways == 1:
            return jax.device_put(tree, partitioning.replicated(self.mesh))
        return partitioning.place_params(self.mesh, self._shapes[i](), tree)


def size_of(tree: Any) -> int:
    """Bytes of all arrays of a tree, each counted once."""
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def memory_limit(mesh: Mesh) -> float:
    """Half of a device's memory in bytes; CPU devices share the machine's."""
    devices = mesh.devices.flat
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return 0.5 * stats["bytes_limit"]
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return 0.5 * pages * size / len(devices)
