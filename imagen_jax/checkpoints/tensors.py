"""A checkpoint from elsewhere as arrays by name, and its way into our trees.

A format is a `Tensors`: names, shapes and types first, each array read when asked for.
A `Table` says which of them make each of our parameters. `transfer` checks the whole
table before it reads anything, then moves one parameter at a time, so that host memory
holds little more than what has been placed.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from etils import epath

from imagen_jax.checkpoints import safetensors


@runtime_checkable
class Tensors(Protocol):
    """The arrays of a checkpoint by name, whatever its format."""

    @property
    def where(self) -> str:
        """Its place, for messages."""
        ...

    def names(self) -> list[str]:
        """All names, sorted, without reading an array."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array, without reading it."""
        ...

    def dtype(self, name: str) -> np.dtype:
        """The type of an array, without reading it."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One array.

        Raises:
          ValueError: naming the file, if it is truncated or damaged.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Source:
    """What one of our parameters is made of.

    Attributes:
      names: of the arrays in the checkpoint, in the order that `make` takes them.
      make: arrays -> our array, by default the only one as it is; it is called on
        views with no elements' bytes behind them too (`numpy.broadcast_to`), to learn
        the shape of its result, and must not look at values.
    """

    names: tuple[str, ...]
    make: Callable[..., np.ndarray] = lambda array: array


Table = Mapping[str, Source]


def check(
    tensors: Tensors,
    table: Table,
    shapes: Any,
    unused: Callable[[str], bool] = lambda name: False,
) -> None:
    """Compare a table with a checkpoint and with the shapes of a network.

    Args:
      tensors: the checkpoint.
      table: our names, joined by "/", to their sources.
      shapes: a nested tree of things with a `shape`, the network's parameters.
      unused: names of the checkpoint that may stay unread (a decoder's).

    Raises:
      ValueError: naming the first tensor that is missing, superfluous or misshapen.
    """
    ours = safetensors.flatten(shapes)
    for name in sorted(ours.keys() ^ table.keys()):
        side = "the network has no" if name in table else "the table lacks the"
        raise ValueError(f"{tensors.where}: {side} parameter {name}.")
    theirs = set(tensors.names())
    wanted = {name for source in table.values() for name in source.names}
    if missing := sorted(wanted - theirs):
        raise ValueError(
            f"{tensors.where}: tensor {missing[0]} is missing"
            + (f", and {len(missing) - 1} more" if missing[1:] else "")
            + "; this is another model, or a part of one."
        )
    if extra := sorted(name for name in theirs - wanted if not unused(name)):
        raise ValueError(
            f"{tensors.where}: tensor {extra[0]} has no place in this network"
            + (f", and {len(extra) - 1} more" if extra[1:] else "")
            + "; this is another model than its config says."
        )
    for name, source in table.items():
        empty = [
            np.broadcast_to(np.zeros((), tensors.dtype(n)), tensors.shape(n))
            for n in source.names
        ]
        try:
            got = source.make(*empty).shape
        except ValueError as error:
            raise ValueError(
                f"{tensors.where}: {', '.join(source.names)} of shape "
                f"{', '.join(str(a.shape) for a in empty)} cannot become {name}: "
                f"{error}."
            ) from error
        if got != tuple(ours[name].shape):
            raise ValueError(
                f"{tensors.where}: {', '.join(source.names)} must give {name} of shape "
                f"{tuple(ours[name].shape)}, got {got}."
            )


def stream(tensors: Tensors, table: Table) -> Iterator[tuple[str, np.ndarray]]:
    """Our parameters one by one, by name; each may be dropped before the next."""
    for name, source in table.items():
        yield name, source.make(*(tensors.read(n) for n in source.names))


def transfer(
    tensors: Tensors,
    table: Table,
    shapes: Any,
    place: Callable[[str, np.ndarray], Any] = lambda name, array: array,
    unused: Callable[[str], bool] = lambda name: False,
) -> Any:
    """A checkpoint as our tree: checked first, then read and placed one by one.

    Args:
      tensors, table, shapes, unused: as in `check`.
      place: (our name, array) -> leaf, where an array goes to its devices.

    Raises:
      ValueError: as `check` and `Tensors.read` do.
    """
    check(tensors, table, shapes, unused)
    return safetensors.unflatten(
        {name: place(name, array) for name, array in stream(tensors, table)}
    )


def files(tensors: Tensors) -> list[epath.Path]:
    """The files that a checkpoint lies in: its `files`, or all below its place."""
    own = getattr(tensors, "files", None)
    if own is not None:
        return list(own)
    where = epath.Path(tensors.where)
    if not where.is_dir():
        return [where]
    return sorted(folder / name for folder, _, names in where.walk() for name in names)


def size(tensors: Tensors) -> int:
    """Bytes of all arrays of a checkpoint."""
    return sum(
        math.prod(tensors.shape(n)) * tensors.dtype(n).itemsize for n in tensors.names()
    )
