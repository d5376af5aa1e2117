"""What models of the library transformers share: layers' layouts, configs, files."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from imagen_jax import partitioning
from imagen_jax.checkpoints import huggingface, tensors

Path = str | os.PathLike

MAX_LAYERS, MAX_SIZE = 1000, 2**24  # so that no config asks for endless tables


def dense(ours: str, theirs: str, *, bias: bool = True) -> tensors.Table:
    """A linear layer: torch keeps its kernel as [out, in]."""
    table = {
        f"{ours}/kernel": tensors.Source((f"{theirs}.weight",), lambda kernel: kernel.T)
    }
    if bias:
        table[f"{ours}/bias"] = tensors.Source((f"{theirs}.bias",))
    return table


def norm(
    ours: str, theirs: str, names: tuple[str, str] = ("weight", "bias")
) -> tensors.Table:
    """A layer normalisation."""
    return {
        f"{ours}/{mine}": tensors.Source((f"{theirs}.{name}",))
        for mine, name in zip(("scale", "bias"), names, strict=True)
    }


def same(ours: str, theirs: str) -> tensors.Table:
    """An array that is laid out alike: an embedding table, a vector."""
    return {ours: tensors.Source((theirs,))}


def shapes(module: nn.Module, *inputs: Any) -> Any:
    """The tree of a network's parameters' shapes, given its abstract inputs."""
    boxed = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return partitioning.unbox(boxed["params"])


def text_shapes(module: nn.Module) -> Any:
    """`shapes` of a network of ids and mask."""
    ids, mask = (jax.ShapeDtypeStruct((1, 2), kind) for kind in (np.int32, np.bool_))
    return shapes(module, ids, mask)


def values(
    where: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """The values of a config under the names of `defaults`.

    Configs leave out what is their class's default; those are in `defaults`.

    Raises:
      ValueError: for a value of another type than its default's, or out of bounds.
    """
    found = {name: config.get(name, default) for name, default in defaults.items()}
    for name, value in found.items():
        kind = type(defaults[name])
        fits = isinstance(value, int | float) if kind is float else type(value) is kind
        if not fits:
            raise ValueError(
                f"{where}: the config's {name} must be {kind.__name__}, got {value!r}."
            )
        most = MAX_LAYERS if name == "num_hidden_layers" else MAX_SIZE
        if kind is not str and not 0 < value <= most:
            raise ValueError(
                f"{where}: the config's {name} must be positive and at most {most}, "
                f"got {value!r}."
            )
    return found


def fields(module: nn.Module) -> dict[str, Any]:
    """A text network's fields as the config group `text.encoder` holds them."""
    values = {
        field.name: getattr(module, field.name)
        for field in dataclasses.fields(module)
        if field.init and field.name not in ("parent", "name")
    }
    return values | {"dtype": "float32"}


def text_length(where: str, length: int | None, default: int, most: int) -> int:
    """Tokens that a prompt may have: what is asked for, or the default.

    Raises:
      ValueError: if the network has not so many positions.
    """
    if length is not None and not 2 <= length <= most:
        raise ValueError(
            f"{where}: the length must be between 2 and {most}, the network's "
            f"positions, got {length}."
        )
    return min(default, most) if length is None else length


def tokenizer_files(folders: Sequence[Path], *choices: Sequence[str]) -> dict[str, str]:
    """The paths, by name, of the first set of files that one of the folders has whole.

    Raises:
      ValueError: if there is none.
    """
    for folder in folders:
        for names in choices:
            paths = {name: epath.Path(folder) / name for name in names}
            if all(path.exists() for path in paths.values()):
                return {name: str(path) for name, path in paths.items()}
    wanted = ", or ".join(" and ".join(names) for names in choices)
    raise ValueError(
        f"{folders[-1]}: the tokenizer's files are required ({wanted}); where they are "
        "in another folder than the network, give both."
    )


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, with the special tokens' texts as strings.

    The special_tokens_map.json of older folders goes before it, as in transformers.
    """
    settings = optional_config(folder, "tokenizer_config.json")
    if "added_tokens_decoder" not in settings:
        settings |= optional_config(folder, "special_tokens_map.json")
    return {name: _content(value) for name, value in settings.items()}


def _content(value: Any) -> Any:
    """The text of a token that is stored as an object."""
    return value.get("content") if isinstance(value, dict) else value


def optional_config(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of a folder, {} where it has none of that name."""
    if not (epath.Path(folder) / name).exists():
        return {}
    return huggingface.read_config(folder, name)
