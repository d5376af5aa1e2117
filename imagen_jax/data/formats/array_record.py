"""ArrayRecord files of tf.train.Example messages, made for reading at random."""

import functools
import threading
from collections.abc import Iterator
from typing import Any

from imagen_jax.data import records
from imagen_jax.data.formats import examples

HELD = 64  # open files
SCANNED = 256  # records read at once
LOCK = threading.Lock()


def shards(files: list[str]) -> list[str]:
    """Return the ArrayRecord files among some files.

    Raises:
      ValueError: if they are not local; their library reads no other.
    """
    found = [name for name in files if ".array_record" in name.rpartition("/")[2]]
    if found and "://" in found[0]:
        raise ValueError(
            f"data: {found[0]}: ArrayRecord files are read from local disks alone. "
            "Copy them, or convert them to tars (`imagen-jax data convert`)."
        )
    return found


@functools.lru_cache(HELD)
def opened(shard: str) -> Any:
    """Open a file; its footer is read."""
    from array_record.python import array_record_module  # pyright: ignore

    file = array_record_module.ArrayRecordReader(shard)
    if not file.ok():  # it says so nowhere else, and looks empty
        raise ValueError(f"{shard} is no ArrayRecord file, or is cut")
    return file


def scan(
    shard: str, fields: records.Fields
) -> Iterator[tuple[records.Place, records.Record]]:
    """Yield every record; its place is its number."""
    file = opened(shard)
    for start in range(0, file.num_records(), SCANNED):
        rows = list(range(start, min(start + SCANNED, file.num_records())))
        for row, data in zip(rows, file.read(rows), strict=True):
            yield (row,), examples.record(f"{shard}: record {row}", data, fields)


def read(shard: str, place: records.Place, fields: records.Fields) -> records.Record:
    """Read the record at a place."""
    with LOCK:
        (data,) = opened(shard).read([place[0]])
    return examples.record(f"{shard}: record {place[0]}", data, fields)
