"""A model directory: model.json beside one safetensors file a network.

model.json holds the configs that rebuild the networks; nothing in the directory is
ever executed.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from imagen_jax.checkpoints import quantisation, safetensors

FORMAT = 1
# int8 is for matrices; what is small stays float32.
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "int8": np.float32}


def write(
    folder: str | pathlib.Path,
    stages: Sequence[Mapping[str, Any]],
    trees: Mapping[str, Any],
    dtype: str,
    words: Sequence[str] = (),
) -> int:
    """Write a model; returns its size in bytes.

    Args:
      folder: created when missing; files of the same names are replaced.
      stages: the configs of the stages as plain values, base first.
      trees: parameters by file name: each stage's `name`, and "text".
      dtype: of the stored floating-point numbers, one of DTYPES.
      words: all that its training captions hold; none when that is not known.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, tree in trees.items():
        write_parameters(folder, name, tree, dtype)
    description = {"format": FORMAT, "stages": list(stages), "words": " ".join(words)}
    # Last, so that a directory with a model.json is whole.
    (folder / "model.json").write_text(json.dumps(description, indent=1) + "\n")
    return sum(f.stat().st_size for f in folder.iterdir())


def write_parameters(folder: pathlib.Path, name: str, tree: Any, dtype: str) -> None:
    """Write one network's parameters as NAME.safetensors."""
    arrays = {
        path: np.asarray(a).astype(DTYPES[dtype])
        for path, a in safetensors.flatten(tree).items()
    }
    if dtype == "int8":
        arrays = quantisation.quantise(arrays)
    safetensors.save(folder / f"{name}.safetensors", arrays, {"network": name})


def read(folder: str | pathlib.Path) -> tuple[list[dict[str, Any]], frozenset[str]]:
    """The configs of a model directory's stages, and the words of its captions.

    Raises:
      ValueError: when it is no model directory, or one of a later format.
    """
    path = pathlib.Path(folder) / "model.json"
    if not path.is_file():
        raise ValueError(
            f"model: {folder} has no model.json; give a shipped model's name or a "
            "directory that `imagen-jax export` wrote."
        )
    try:
        description = json.loads(path.read_text())
        version, stages = description["format"], list(description["stages"])
        words = frozenset(description.get("words", "").split())
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"model: {path} is damaged ({error}); export the model again."
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"model: {path} has format {version}, this version reads {FORMAT}; "
            "upgrade imagen_jax."
        )
    return stages, words


def parameters(folder: str | pathlib.Path, name: str) -> Callable[[Any], Any]:
    """A reader of one network's parameters, checked against the expected shapes.

    Returns:
      A function from a tree of shapes (`jax.eval_shape`) to a tree of float32 arrays.
      It raises a ValueError naming the file and the first tensor that is missing,
      superfluous or misshapen.
    """
    path = pathlib.Path(folder) / f"{name}.safetensors"

    def load(shapes: Any) -> Any:
        arrays = quantisation.restore(safetensors.load(path)[0])
        expected = safetensors.flatten(shapes)
        for tensor in sorted(expected.keys() ^ arrays.keys()):
            kind = "lacks" if tensor in expected else "has the unknown"
            raise ValueError(f"model: {path} {kind} tensor {tensor}.")
        for tensor, shape in expected.items():
            if arrays[tensor].shape != shape.shape:
                raise ValueError(
                    f"model: {path}: {tensor} must have shape {shape.shape}, got "
                    f"{arrays[tensor].shape}."
                )
        return safetensors.unflatten(
            {k: np.asarray(a, np.float32) for k, a in arrays.items()}
        )

    return load
