"""Encode a data set's captions once: what `imagen-jax embed` does, and would cost."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from imagen_jax import build, chips, partitioning
from imagen_jax.data import collection, embeddings, picture_task, pictures, records
from imagen_jax.text import encoder

# Captions of a partition, so that one is encoded and written in minutes, and the most
# that a process keeps in memory while it reads the data set.
PARTITION = 50_000
IN_MEMORY = 4_000_000
# Lengths to which captions are padded, that few programs be compiled.
GRID = 16
# Chips that the plan is made for, and the share of their peak that is assumed.
CHIPS = ("v4", "v5e", "v5p", "v6e", "H100")
UTILISATION = 0.4


def sources(config: build.Config) -> list[picture_task.PictureTask]:
    """Every path's records, training and held-out ones.

    Raises:
      ValueError: if the config's captions are drawn, and so endless.
    """
    if config.data.task != "pictures":
        raise ValueError(
            f"embed: data.task must be 'pictures', got {config.data.task!r}; the "
            "captions of drawn scenes are endless."
        )
    found: list[Any] = []
    for split in ("train", "heldout"):
        try:
            source: Any = build.make_source(config, split)
        except collection.NothingLeft:
            if split == "train":
                raise
            continue
        found += getattr(source, "sources", (source,))
    return found


def captions(config: build.Config) -> Iterator[str]:
    """All captions of the records that a config trains on, as they lie in the files."""
    yield ""  # what a dropped caption becomes
    for source in sources(config):
        for number in range(len(source.contents)):
            try:
                yield from records.texts(source.record(number))
            except pictures.BadExample:
                continue


@dataclasses.dataclass(frozen=True)
class Writer:
    """An encoder on a mesh that fills partitions.

    Attributes:
      encode: (ids, mask) of one shape -> vectors [B, L, D] float32.
      tokenizer: texts -> (ids, mask).
      length: tokens a caption may have; longer ones are cut.
      batch_size: captions encoded at once.
    """

    encode: Callable[[np.ndarray, np.ndarray], np.ndarray]
    tokenizer: Any
    length: int
    batch_size: int

    def vectors(self, texts: Mapping[bytes, str]) -> dict[bytes, np.ndarray]:
        """Encode captions in batches of like lengths: [tokens, D] float32 each."""
        keys = list(texts)
        ids, mask = self.tokenizer.encode(
            [texts[key] for key in keys], self.length, truncate=True
        )
        sizes = mask.sum(1)
        found: dict[bytes, np.ndarray] = {}
        order = np.argsort(sizes, kind="stable")
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            width = min(-(-int(sizes[rows].max()) // GRID) * GRID, self.length)
            full = np.resize(rows, self.batch_size)
            values = self.encode(ids[full, :width], mask[full, :width])
            for row, vector in zip(rows, values, strict=False):
                found[keys[row]] = vector[: sizes[row]]
        return found


def make_writer(config: build.Config, params: Any, batch_size: int) -> Writer:
    """The encoder of a config, its parameters sharded over the config's mesh."""
    mesh = partitioning.make_mesh(config.mesh)
    module = build.make_text_module(config)
    boxed = jax.eval_shape(
        build.encoder_init(module, config.text.length), jax.random.key(0)
    )
    params = jax.device_put(params, partitioning.param_shardings(mesh, boxed))

    def encode(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with partitioning.use(mesh):
            ids, mask = partitioning.place_batch(mesh, (ids, mask))
            values = _encode(module, params, ids, mask)
        return np.asarray(jax.device_get(values), np.float32)

    return Writer(encode, build.make_tokenizer(config), config.text.length, batch_size)


@jax.jit(static_argnums=0)
def _encode(module, params, ids, mask):
    return encoder.embed(module, params, ids, mask).values


def embed(
    config: build.Config,
    out: str,
    *,
    dtype: str,
    batch_size: int,
    share: tuple[int, int] = (0, 1),
    report: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Write the embeddings of all captions; an interrupted call goes on where it was.

    Args:
      config: a stage's, with `text` and `data`.
      out: the folder, local or a URL.
      dtype: of the stored vectors.
      batch_size: captions encoded at once.
      share: (i, n): do each n-th partition from the i-th on; other calls, on other
        machines, do the others.
      report: told (partitions done, of how many).

    Returns:
      The manifest; {} while other calls' partitions are missing.
    """
    if dtype not in embeddings.DTYPES:
        raise ValueError(f"--dtype: must be one of {embeddings.DTYPES}, got {dtype!r}.")
    if config.text.get("unmasked", False):
        raise ValueError(
            "config.text.unmasked: must be False, got True; files of embeddings do not "
            "hold the values at padding."
        )
    params = build.text_params(config)
    total = sum(len(source.contents) for source in sources(config))
    manifest = begin(out, config, build.text_identity(config, params), dtype, total)
    writer = make_writer(config, params, batch_size)
    partitions = manifest["partitions"]
    mine = range(share[0], partitions, share[1])
    together = max(1, IN_MEMORY * partitions // max(total, 1))
    done = 0
    for first in range(0, len(mine), together):
        wanted = mine[first : first + together]
        found = embeddings.gather(captions(config), wanted, partitions)
        for number, texts in found.items():
            if not embeddings.complete(out, number, texts):
                vectors = writer.vectors(texts)
                told = embeddings.write(out, number, vectors, dtype)
                write_json(f"{out}/{number:05d}.json", told)
            done += 1
            if report is not None:
                report(done, len(mine))
    return finish(out, manifest)


def write_json(path: str, values: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    records.write_bytes(path, json.dumps(values, indent=1).encode())


def begin(
    folder: str, config: build.Config, identity: str, dtype: str, total: int
) -> dict[str, Any]:
    """The manifest of a new folder, or of the one that is gone on with."""
    path = f"{folder}/begun.json"
    wanted = {
        "encoder": identity,
        "length": config.text.length,
        "d_model": build.make_text_module(config).d_model,
        "dtype": dtype,
    }
    if records.exists(path):
        before = json.loads(records.read_bytes(path))
        for name, value in wanted.items():
            if before[name] != value:
                raise ValueError(
                    f"embed: {folder} was begun with {name} {before[name]!r}, not "
                    f"{value!r}. Give a new folder."
                )
        return before
    manifest = {**wanted, "partitions": max(1, -(-total // PARTITION))}
    write_json(path, manifest)
    return manifest


def finish(folder: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest, by which the folder is known to be whole, if it is."""
    names = [f"{folder}/{number:05d}.json" for number in range(manifest["partitions"])]
    if not all(records.exists(name) for name in names):
        return {}
    parts = [json.loads(records.read_bytes(name)) for name in names]
    sums = {name: sum(part[name] for part in parts) for name in parts[0]}
    told = {
        **manifest,
        "captions": int(sums["captions"]),
        "tokens": int(sums["tokens"]),
        "relative_error": math.sqrt(sums["error"] / max(sums["size"], 1e-30)),
    }
    write_json(f"{folder}/{embeddings.MANIFEST}", told)
    return told


def plan(
    config: build.Config, numbers: list[int], tokens: float
) -> list[dict[str, float]]:
    """What embedding so many captions takes: arithmetic, nothing is measured.

    Args:
      config: for its text encoder.
      numbers: of captions.
      tokens: of a caption, on average.

    Returns:
      A row for each number: bytes by kind and hours by chip.
    """
    counts = build.param_counts(config)["text encoder (frozen)"]
    module = build.make_text_module(config)
    table = module.vocab_size * module.d_model
    matrices = sum(counts.values()) - table  # looking up costs nothing
    rows = []
    for number in numbers:
        words = number * tokens
        row: dict[str, float] = {"captions": number}
        size = module.d_model
        for kind, width in (("float32", 4), ("bfloat16", 2), ("int8", 1 + 4 / size)):
            row[f"{kind} bytes"] = words * size * width
        for chip in CHIPS:
            rate = chips.TFLOPS[chip] * 1e12 * UTILISATION
            row[f"{chip} hours"] = 2 * matrices * words / rate / 3600
        rows.append(row)
    return rows


def measured_tokens(config: build.Config, most: int = 2000) -> float:
    """The mean number of tokens of some of a data set's captions."""
    tokens = build.make_tokenizer(config)
    found = []
    for text, _ in zip(captions(config), range(most + 1), strict=False):
        found.append(text)
    return float(
        tokens.encode(found[1:], config.text.length, truncate=True)[1].sum(1).mean()
    )
