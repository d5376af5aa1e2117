"""What a published model becomes: configs, networks and their files, not yet read.

Each module of `published/` that knows a model from elsewhere has one function
`convert(paths, ...) -> Conversion`; `imagen-jax convert` writes what it returns as a
model directory.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from etils import epath

from imagen_jax.checkpoints import model_directory, safetensors, tensors

Table: TypeAlias = tensors.Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One network of a model.

    Attributes:
      name: of its file in the model directory: "text", or the stage's name.
      tensors: the checkpoint that it comes from.
      table: our parameters' names to their sources.
      shapes: the tree of the network's shapes.
      unused: names of the checkpoint that may stay unread.
    """

    name: str
    tensors: tensors.Tensors
    table: Table
    shapes: Any
    unused: Callable[[str], bool] = lambda name: False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
    """A model from elsewhere in our terms.

    Attributes:
      stages: configs of its stages as plain values, base first; none for a text
        encoder alone.
      text: the config group `text` of its encoder, plain values.
      parts: its networks.
      files: paths of files to copy (a tokenizer's), by their names in the model
        directory; `text` names them relative to it.
      notice: the licence's notice, shown and stored; "" where none is required.
    """

    stages: Sequence[Mapping[str, Any]]
    text: Mapping[str, Any]
    parts: Sequence[Part]
    files: Mapping[str, str]
    notice: str = ""


class Row(NamedTuple):
    """One line of a dry run: a parameter, or a tensor that stays unread."""

    part: str
    ours: str
    shape: tuple[int, ...]
    stored: str
    theirs: str


def check(model: Conversion) -> None:
    """Compare every part's table with its checkpoint and its network.

    Raises:
      ValueError: naming the first tensor that is missing, superfluous or misshapen, or
        a file to copy that is not there.
    """
    for part in model.parts:
        tensors.check(part.tensors, part.table, part.shapes, part.unused)
    for name, path in model.files.items():
        if name != os.path.basename(name) or not epath.Path(path).exists():
            raise ValueError(f"convert: there is no file {path} to copy as {name!r}.")


def rows(model: Conversion, dtype: str) -> Iterator[Row]:
    """What maps to what, and at the end of each part what stays unread."""
    for part in model.parts:
        shapes, used = safetensors.flatten(part.shapes), set()
        for ours, source in part.table.items():
            used.update(source.names)
            shape = tuple(shapes[ours].shape)
            kind = model_directory.layout(ours, shape, dtype)[ours][0]
            told = (
                f"{n} {list(part.tensors.shape(n))} {part.tensors.dtype(n)}"
                for n in source.names
            )
            yield Row(part.name, ours, shape, str(kind), " + ".join(told))
        for theirs in part.tensors.names():
            if theirs not in used:
                shape = part.tensors.shape(theirs)
                yield Row(part.name, "", tuple(shape), "", theirs)


def parameters(part: Part) -> int:
    """Numbers of a part's network."""
    shapes = safetensors.flatten(part.shapes).values()
    return sum(math.prod(shape.shape) for shape in shapes)


def size(part: Part, dtype: str) -> int:
    """Bytes of a part's arrays as stored."""
    return sum(math.prod(s) * d.itemsize for d, s in layout(part, dtype).values())


def layout(part: Part, dtype: str) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Types and shapes of the arrays of a part's file."""
    found: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}
    for name, shape in safetensors.flatten(part.shapes).items():
        found |= model_directory.layout(name, shape.shape, dtype)
    return found
