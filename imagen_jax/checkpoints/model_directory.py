"""A model directory: model.json beside one safetensors file a network.

model.json holds the configs that rebuild the networks; nothing in the directory is
ever executed. A converted model's also has manifest.json, NOTICE and its tokenizer.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from imagen_jax.checkpoints import manifest, quantisation, safetensors

FORMAT = 1
# int8 is for matrices; what is small stays float32.
DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "int8": np.dtype(np.float32),
}
FOREIGN = ("model_index.json", "config.json")
MAX_JSON = 10_000_000  # bytes


class Description(NamedTuple):
    """What model.json says.

    Attributes:
      stages: the configs of the stages, base first; none where there is only a text
        encoder.
      text: the config group `text` of a text encoder without stages, else {}.
      words: all that its training captions held; none when that is not known.
    """

    stages: list[dict[str, Any]]
    text: dict[str, Any]
    words: frozenset[str]


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

    Raises:
      ValueError: as `encode` does.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, tree in trees.items():
        write_parameters(folder, name, tree, dtype)
    # Last, so that a directory with a model.json is whole.
    (folder / "model.json").write_text(describe(stages, words=words))
    return sum(f.stat().st_size for f in folder.iterdir())


def describe(
    stages: Sequence[Mapping[str, Any]],
    *,
    text: Mapping[str, Any] | None = None,
    words: Sequence[str] = (),
) -> str:
    """The text of a model.json; `text` is for an encoder without stages."""
    description = {"format": FORMAT, "stages": list(stages), "words": " ".join(words)}
    if text:
        description["text"] = dict(text)
    return json.dumps(description, indent=1) + "\n"


def write_parameters(folder: pathlib.Path, name: str, tree: Any, dtype: str) -> None:
    """Write one network's parameters as NAME.safetensors."""
    arrays: dict[str, np.ndarray] = {}
    for path, array in safetensors.flatten(tree).items():
        arrays |= encode(path, np.asarray(array), dtype)
    safetensors.save(folder / f"{name}.safetensors", arrays, {"network": name})


def layout(
    name: str, shape: Sequence[int], dtype: str
) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Types and shapes of the arrays as which a parameter is stored."""
    shape = tuple(shape)
    if dtype == "int8" and quantisation.is_large(shape):
        return {
            name: (np.dtype(np.int8), shape),
            name + quantisation.SCALE: (np.dtype(np.float32), shape[-1:]),
        }
    return {name: (DTYPES[dtype], shape)}


def encode(name: str, array: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """The arrays as which a parameter is stored.

    Raises:
      ValueError: naming it, for a number that is not finite, or not as `dtype`.
    """
    with np.errstate(over="ignore"):
        stored = array.astype(DTYPES[dtype], copy=False)
    if not np.isfinite(stored).all():
        if np.isfinite(array).all():
            raise ValueError(
                f"model: {name} holds {np.abs(array).max():g}, which is too large for "
                f"{dtype}; store it as bfloat16 or float32."
            )
        raise ValueError(f"model: {name} holds numbers that are not finite.")
    return quantisation.quantise({name: stored}) if dtype == "int8" else {name: stored}


def read(folder: str | pathlib.Path) -> Description:
    """What a model directory's model.json says.

    Raises:
      ValueError: when it is no model directory, a damaged one, or one of a later
        format.
    """
    path = pathlib.Path(folder) / "model.json"
    if not path.is_file():
        foreign = [n for n in FOREIGN if (path.parent / n).is_file()]
        raise ValueError(
            f"model: {folder} has no model.json"
            + (f" but {foreign[0]}, so it is another package's" if foreign else "")
            + "; give a shipped model's name or a directory that `imagen-jax export` "
            "or `imagen-jax convert` wrote."
        )
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"it has more than {MAX_JSON} bytes")
        description = json.loads(path.read_text())
        version, stages = description["format"], list(description["stages"])
        text = dict(description.get("text", {}))
        if not all(isinstance(stage, dict) for stage in stages):
            raise ValueError("a stage is no object")
        words = frozenset(description.get("words", "").split())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"model: {path} is damaged ({error}); export or convert the model again."
        ) from error
    if version != FORMAT:
        raise ValueError(
            f"model: {path} has format {version}, this version reads {FORMAT}; "
            "upgrade imagen_jax."
        )
    manifest.require_undamaged(path.parent)
    return Description(stages, text, words)


def float32(name: str, array: np.ndarray) -> np.ndarray:
    """A stored parameter as float32."""
    del name
    return np.asarray(array, np.float32)


def parameters(
    folder: str | pathlib.Path,
    name: str,
    place: Callable[[str, np.ndarray], Any] = float32,
) -> Callable[[Any], Any]:
    """A reader of one network's parameters, checked against the expected shapes.

    Args:
      folder: the model directory.
      name: of the network.
      place: (parameter's name, array as stored) -> leaf; one array at a time is read
        and placed, so that no more than that is held beside the tree.

    Returns:
      A function from a tree of shapes (`jax.eval_shape`) to a tree of leaves. It raises
      a ValueError naming the file and the first tensor that is missing, superfluous or
      misshapen, or the file alone if it is damaged.
    """
    path = pathlib.Path(folder) / f"{name}.safetensors"

    def load(shapes: Any) -> Any:
        file = safetensors.File(path)
        stored = {n for n in file.names() if not n.endswith(quantisation.SCALE)}
        expected = safetensors.flatten(shapes)
        for tensor in sorted(expected.keys() ^ stored):
            kind = "lacks" if tensor in expected else "has the unknown"
            raise ValueError(f"model: {path} {kind} tensor {tensor}.")
        for tensor, shape in expected.items():
            if file.shape(tensor) != tuple(shape.shape):
                raise ValueError(
                    f"model: {path}: {tensor} must have shape {tuple(shape.shape)}, "
                    f"got {file.shape(tensor)}."
                )
        try:
            restored = quantisation.restored(file.stream())
            return safetensors.unflatten({n: place(n, array) for n, array in restored})
        except quantisation.Mismatch as error:
            raise ValueError(f"model: {path}: {error}") from error

    return load
