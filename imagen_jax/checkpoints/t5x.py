"""Checkpoints of t5x: a table of contents, and each array as zarr chunks beside it.

Two kinds (https://github.com/google-research/t5x, t5x/checkpoints.py):

- legacy: a msgpack file `checkpoint`, as `flax.serialization` writes it, whose small
  leaves are arrays and whose large ones say in which folder they lie, either as
  "PLACEHOLDER://NAME" or as a TensorStore spec with a kvstore path;
- Orbax: a JSON file `_METADATA`, with a folder an array or all in one OCDBT store.

Names are the paths of the parameters joined by "/", without `target` or `params` above
them; the optimizer's state is left out. Chunks are read by TensorStore, and what they
claim is checked against the file before anything is allocated. Nothing is executed.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import ml_dtypes
import msgpack
import numpy as np
from etils import epath

from imagen_jax.checkpoints import safetensors_header

INDEX, METADATA, OCDBT = "checkpoint", "_METADATA", "manifest.ocdbt"
ITEMS = ("state", "default")  # folders of a step in which t5x and Orbax keep the arrays
PLACEHOLDER = "PLACEHOLDER://"
ROOTS = (("optimizer", "target"), ("target",), ("params",))
MAX_INDEX = 100_000_000  # bytes of a table of contents
MAX_CHUNK = 2**31  # bytes; T5-XXL's embedding table in one piece has 2**29
MAX_DEPTH = 64
MAX_KEYS = 4096  # of one mapping
DTYPES = {
    name: np.dtype(getattr(ml_dtypes, name, name))
    for name in (
        *("float64", "float32", "float16", "bfloat16", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    )
}


class Place(NamedTuple):
    """Where an array's chunks lie: a folder, or a prefix within an OCDBT store."""

    name: str
    ocdbt: bool = False
    zarr3: bool = False


def open_folder(path: str | os.PathLike) -> "Checkpoint":
    """A checkpoint whose table of contents is read now, and its arrays when asked for.

    Args:
      path: the folder of a step (checkpoint_1000000), local or gs://.

    Raises:
      ValueError: if it is no such folder, or damaged.
    """
    folder = epath.Path(path)
    if not folder.is_dir():
        raise ValueError(f"t5x: there is no folder {folder}.")
    for place in (folder, *(folder / item for item in ITEMS)):
        for name, read in ((METADATA, _orbax_leaves), (INDEX, _legacy_leaves)):
            if (place / name).exists():
                return Checkpoint(place, read(place / name))
    raise ValueError(
        f"t5x: {folder} has neither {INDEX} nor {METADATA}; give the folder of one "
        "step, such as checkpoint_1000000."
    )


class Checkpoint:
    """The parameters of a t5x checkpoint: `tensors.Tensors`."""

    def __init__(self, folder: epath.Path, leaves: Mapping[tuple[str, ...], Any]):
        """Keep what lies under the root of the parameters."""
        self._folder = folder
        root = next((r for r in ROOTS if any(k[: len(r)] == r for k in leaves)), ())
        self._leaves = {
            "/".join(keys[len(root) :]): leaf
            for keys, leaf in leaves.items()
            if keys[: len(root)] == root and leaf is not None
        }
        self._stores: dict[str, Any] = {}

    @property
    def where(self) -> str:
        """The folder, for messages."""
        return str(self._folder)

    def names(self) -> list[str]:
        """The names of the parameters, sorted."""
        return sorted(self._leaves)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array."""
        return tuple(self._array(name).shape)

    def dtype(self, name: str) -> np.dtype:
        """The type of an array."""
        array = self._array(name)
        return array.dtype if isinstance(array, np.ndarray) else array.dtype.numpy_dtype

    def read(self, name: str) -> np.ndarray:
        """One array.

        Raises:
          ValueError: naming its folder, if a chunk is missing or damaged.
        """
        array = self._array(name)
        if isinstance(array, np.ndarray):
            return array
        return self._guarded(name, lambda: array.read().result())

    def _array(self, name: str) -> Any:
        leaf = self._leaves[name]
        if isinstance(leaf, np.ndarray):
            return leaf
        if name not in self._stores:
            store = self._guarded(name, lambda: _open(self._folder, leaf))
            self._stores[name] = store
        return self._stores[name]

    def _guarded(self, name: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (ValueError, OSError, LookupError, RuntimeError) as error:
            # TensorStore's messages go on for lines.
            why = str(error).split(" [")[0].splitlines()[0][:300]
            _damaged(self._folder / self._leaves[name].name, why)


def _open(folder: epath.Path, place: Place) -> Any:
    """A TensorStore of one array, its size and type checked; no chunk is read."""
    import tensorstore

    base = _kvstore(f"{folder}/" if place.ocdbt else f"{folder}/{place.name}/")
    if place.ocdbt:
        base = {"driver": "ocdbt", "base": base, "path": f"{place.name}/"}
    store: Any = tensorstore.open(
        {
            "driver": "zarr3" if place.zarr3 else "zarr",
            "kvstore": base,
            # Without it a lost chunk is read as zeros.
            "fill_missing_data_reads": False,
        },
        open=True,
        read=True,
    ).result()
    if store.dtype.name not in DTYPES:
        raise ValueError(f"it has the type {store.dtype.name}")
    item = DTYPES[store.dtype.name].itemsize
    chunk = store.chunk_layout.read_chunk.shape or ()
    if max(math.prod(chunk), 1) * item > MAX_CHUNK:
        raise ValueError(f"chunks of shape {tuple(chunk)} are too large")
    return store


def _kvstore(path: str) -> dict[str, str]:
    if path.startswith("gs://"):
        bucket, _, rest = path.removeprefix("gs://").partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": rest}
    return {"driver": "file", "path": os.path.abspath(path) + "/"}


def _legacy_leaves(path: epath.Path) -> dict[tuple[str, ...], Any]:
    """Paths of the tree in a msgpack file to arrays, places, or None."""
    data = _bytes(path)
    try:
        tree = msgpack.unpackb(
            data,
            raw=False,
            ext_hook=_extension,
            object_pairs_hook=safetensors_header.unique,
            max_array_len=safetensors_header.MAX_RANK,
            max_map_len=MAX_KEYS,
            max_str_len=len(data),
            max_bin_len=len(data),
            max_ext_len=len(data),
        )
        if not isinstance(tree, dict):
            raise ValueError("it holds no mapping")
        return {keys: _leaf(value) for keys, value in _flat(tree, ())}
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        _damaged(path, f"no table of contents in msgpack ({error})")


def _flat(tree: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(tree, dict) or {"driver", "kvstore"} <= tree.keys():
        yield keys, tree
        return
    if len(keys) >= MAX_DEPTH:
        raise ValueError("too deeply nested")
    for key, value in tree.items():
        yield from _flat(value, (*keys, _key(key)))


def _leaf(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, str) and value.startswith(PLACEHOLDER):
        return Place(_folder_name(value.removeprefix(PLACEHOLDER)))
    if isinstance(value, dict):
        kvstore = value["kvstore"]
        path = kvstore.get("path") if isinstance(kvstore, dict) else None
        if value["driver"] != "zarr" or not isinstance(path, str):
            raise ValueError(f"an array is stored as {str(value)[:200]}")
        return Place(_folder_name(path.rstrip("/")))
    return None  # a version, a step


def _orbax_leaves(path: epath.Path) -> dict[tuple[str, ...], Any]:
    """Paths of the tree in a JSON file to places."""
    try:
        table = json.loads(_bytes(path), object_pairs_hook=safetensors_header.unique)
        ocdbt, zarr3 = (path.parent / OCDBT).exists(), bool(table.get("use_zarr3"))
        leaves = {}
        for entry in table["tree_metadata"].values():
            keys = tuple(_key(part["key"]) for part in entry["key_metadata"])
            if not entry["value_metadata"].get("skip_deserialize"):
                leaves[keys] = Place(_folder_name(".".join(keys)), ocdbt, zarr3)
        return leaves
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as e:
        _damaged(path, f"no table of contents in JSON ({type(e).__name__}: {e})")


def _extension(code: int, data: bytes) -> Any:
    """An array within a msgpack file: (shape, name of its type, bytes)."""
    if code not in (1, 3):  # an array, or a number as one
        raise ValueError(f"an entry of the unknown kind {code}")
    parts = msgpack.unpackb(
        data,
        raw=True,
        max_array_len=safetensors_header.MAX_RANK,
        max_map_len=0,
        max_ext_len=0,
    )
    if not isinstance(parts, list) or len(parts) != 3:
        raise ValueError("an array lacks its shape, type or bytes")
    shape, kind, buffer = parts
    dtype = DTYPES.get(kind.decode(errors="replace")) if type(kind) is bytes else None
    if dtype is None or type(buffer) is not bytes or type(shape) is not list:
        raise ValueError("an array lacks its shape, type or bytes")
    if not all(type(n) is int and n >= 0 for n in shape) or (
        math.prod(shape) * dtype.itemsize != len(buffer)
    ):
        raise ValueError(f"{len(buffer)} bytes are no array of shape {shape}")
    array = np.frombuffer(buffer, dtype)
    if dtype == np.bool_ and (array.view(np.uint8) > 1).any():
        raise ValueError("an array holds a byte that is no bool")
    return array.reshape(shape)


def _key(key: Any) -> str:
    if not isinstance(key, str) or not key or "/" in key:
        raise ValueError(f"{key!r} is no name")
    return key


def _folder_name(name: str) -> str:
    """A name that can only lie in the checkpoint's own folder."""
    if not name or "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
        raise ValueError(f"an array lies in {name!r}, which is no folder beside it")
    return name


def _bytes(path: epath.Path) -> bytes:
    try:
        if path.stat().length > MAX_INDEX:
            _damaged(path, f"it has more than {MAX_INDEX} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"t5x: cannot read {path}: {error}.") from error


def _damaged(path: epath.Path, why: str) -> NoReturn:
    raise ValueError(
        f"t5x: {path} is damaged or of another kind: {why}. Copy it again."
    )
