"""Captions encoded once: files of text embeddings, found by caption.

A caption's hash says in which partition it lies; a partition holds its hashes sorted,
where each caption's tokens begin, and the tokens' vectors one after the other, without
padding. Every caption is there once, however many pictures share it.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from imagen_jax.data import records

MANIFEST = "embeddings.json"
DTYPES = ("float32", "bfloat16", "int8")
# Of a partition: (hash, first token of each caption), vectors, scales of int8.
TABLE = np.dtype([("hash", "S16"), ("start", np.int64)])
HELD = 256  # partitions whose tables are kept


def digest(text: str) -> bytes:
    """Return a caption's 128-bit hash."""
    # A trailing zero byte would be lost in numpy's strings.
    return hashlib.blake2b(text.encode(), digest_size=15).digest() + b"\1"


def partition_of(key: bytes, partitions: int) -> int:
    """Return in which partition a hash lies."""
    return int.from_bytes(key[:8], "little") % partitions


@dataclasses.dataclass(frozen=True)
class Cache:
    """A folder of embeddings, read at random.

    Attributes:
      folder: local or a URL.
      manifest: what `imagen-jax embed` noted: "encoder" (its identity), "length",
        "d_model", "dtype", "partitions", and counts.
    """

    folder: str
    manifest: Mapping[str, Any] = dataclasses.field(hash=False)

    def __call__(
        self, texts: Sequence[str], length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (values [B, L, D], mask [B, L]), values 0 where the mask is False.

        Values are float32 if they were stored so, else bfloat16.

        Raises:
          ValueError: for a caption that was not encoded.
        """
        whole = self.manifest["dtype"] == "float32"
        kind = np.float32 if whole else ml_dtypes.bfloat16
        values = np.zeros((len(texts), length, self.manifest["d_model"]), kind)
        mask = np.zeros((len(texts), length), bool)
        for row, text in enumerate(texts):
            found = self.tokens(text)
            values[row, : len(found)] = found
            mask[row, : len(found)] = True
        return values, mask

    def tokens(self, text: str) -> np.ndarray:
        """Return a caption's vectors, [tokens, D]."""
        key = digest(text)
        number = partition_of(key, self.manifest["partitions"])
        table = table_of(self.folder, number)
        # numpy compares strings as bytes, the way they were sorted.
        hashes = table["hash"][:-1]
        place = int(np.searchsorted(hashes, key))
        if place == len(hashes) or hashes[place] != key:
            raise ValueError(
                f"data.embeddings: {self.folder} has no embedding of {text!r}. Run "
                "`imagen-jax embed` again with the same data set; it adds what is "
                "missing."
            )
        start, end = (int(table["start"][place + i]) for i in (0, 1))
        kind, size = self.manifest["dtype"], self.manifest["d_model"]
        stored = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}[kind]
        rows = span(file_of(self.folder, number, "values"), stored, start, end, size)
        if kind == "bfloat16":
            return rows.view(ml_dtypes.bfloat16)
        if kind == "int8":
            scales = file_of(self.folder, number, "scales")
            return rows * span(scales, np.float32, start, end, 1)
        return rows


def file_of(folder: str, number: int, what: str) -> str:
    """Return the name of one of a partition's files."""
    return f"{folder.rstrip('/')}/{number:05d}.{what}.npy"


def span(path: str, kind: Any, start: int, end: int, size: int) -> np.ndarray:
    """Read rows of a two-dimensional .npy file: [end - start, size]."""
    width = np.dtype(kind).itemsize * size
    data = records.read_range(
        path, header_size(path) + start * width, (end - start) * width
    )
    return np.frombuffer(data, kind).reshape(end - start, size)


@functools.lru_cache(1 << 16)
def header_size(path: str) -> int:
    """Return where the numbers of a .npy file begin."""
    head = records.read_range(path, 0, 12)
    if head[:6] != b"\x93NUMPY":
        raise ValueError(f"data.embeddings: {path} is damaged; run embed again.")
    if head[6] == 1:
        return 10 + int.from_bytes(head[8:10], "little")
    return 12 + int.from_bytes(head[8:12], "little")


@functools.lru_cache(HELD)
def table_of(folder: str, number: int) -> np.ndarray:
    """Read a partition's table; its last line holds the number of tokens."""
    path = file_of(folder, number, "table")
    if not records.exists(path):
        raise ValueError(
            f"data.embeddings: {path} is missing; `imagen-jax embed` has not ended. "
            "Run the same command again: it goes on where it was."
        )
    return records.read_array(path)


def open_cache(folder: str, encoder: str | None = None) -> Cache:
    """Open a folder of embeddings.

    Args:
      folder: made by `imagen-jax embed`.
      encoder: the identity that it must have, or None for any.

    Raises:
      ValueError: if it is none, or of another encoder.
    """
    name = f"{folder.rstrip('/')}/{MANIFEST}"
    if not records.exists(name):
        raise ValueError(
            f"data.embeddings: {folder} has no {MANIFEST}; make it with `imagen-jax "
            "embed`."
        )
    manifest = json.loads(records.read_bytes(name))
    if encoder is not None and manifest["encoder"] != encoder:
        raise ValueError(
            f"data.embeddings: {folder} was made by another text encoder or tokenizer "
            f"({manifest['encoder'][:12]}) than this config's ({encoder[:12]}). Embed "
            "the captions again with this one."
        )
    return Cache(folder, manifest)


def write(
    folder: str,
    number: int,
    encoded: Mapping[bytes, np.ndarray],
    kind: str,
) -> dict[str, float]:
    """Write a partition; its table comes last and says that it is whole.

    Args:
      folder: that of the cache.
      number: of the partition.
      encoded: float32 vectors [tokens, D] by hash.
      kind: one of DTYPES.

    Returns:
      {"captions", "tokens", "error", "size"}: the last two are sums of squares, of what
      was lost and of all.
    """
    keys = sorted(encoded)
    rows = [encoded[key] for key in keys]
    values = np.concatenate(rows) if rows else np.zeros((0, 1), np.float32)
    stored, scales, read = packed(values, kind)
    table = np.zeros(len(keys) + 1, TABLE)
    table["hash"][:-1] = keys
    table["start"][1:] = np.cumsum([len(row) for row in rows])
    for what, array in (("values", stored), ("scales", scales), ("table", table)):
        if array is not None:
            records.write_array(file_of(folder, number, what), array)
    return {
        "captions": len(keys),
        "tokens": len(values),
        "error": float(np.square(read - values, dtype=np.float64).sum()),
        "size": float(np.square(values, dtype=np.float64).sum()),
    }


def packed(
    values: np.ndarray, kind: str
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Return (what is stored, scales of int8, what will be read) of float32 vectors."""
    if kind == "float32":
        return values, None, values
    if kind == "bfloat16":
        short = values.astype(ml_dtypes.bfloat16)
        return short.view(np.uint16), None, short.astype(np.float32)
    if kind != "int8":
        raise ValueError(f"--dtype: must be one of {DTYPES}, got {kind!r}.")
    scales = np.abs(values).max(1, keepdims=True, initial=1e-30) / 127
    whole = np.rint(values / scales).astype(np.int8)
    return whole, scales.astype(np.float32), whole * scales


def complete(folder: str, number: int, keys: Iterable[bytes]) -> bool:
    """Return whether a partition is written, with all of these hashes."""
    path = file_of(folder, number, "table")
    if not records.exists(path):
        return False
    return set(keys) <= set(records.read_array(path)["hash"].tolist())


def gather(
    texts: Iterable[str], wanted: Sequence[int], partitions: int
) -> dict[int, dict[bytes, str]]:
    """Sort captions into some partitions, each once.

    Args:
      texts: of the whole data set.
      wanted: partitions; the other captions are dropped.
      partitions: how many there are.
    """
    found: dict[int, dict[bytes, str]] = {number: {} for number in wanted}
    for text in texts:
        key = digest(text)
        number = partition_of(key, partitions)
        if number in found:
            found[number][key] = text
    return found
