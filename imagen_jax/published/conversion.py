"""What a published model becomes: configs, networks and their files, not yet read.

Each module of `published/` that knows a model from elsewhere has one function
`convert(paths, ...) -> Conversion`; `imagen-jax convert` writes what it returns as a
model directory.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imagen_jax.checkpoints import tensors


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
    table: tensors.Table
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
