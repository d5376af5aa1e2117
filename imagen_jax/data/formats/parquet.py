"""Parquet files with a column of picture bytes, as Hugging Face data sets have them.

A row is only to be had with its whole row group: `blocks` of an index keeps the rows
of a group together, and the groups last read are held.
"""

import functools
import threading
from collections.abc import Iterator
from typing import Any

from imagen_jax.data import records

HELD = 8  # row groups
SCANNED = 64  # rows of a group turned into Python values at once
LOCK = threading.Lock()


def shards(files: list[str]) -> list[str]:
    """Return the parquet files among some files."""
    return [name for name in files if name.endswith(".parquet")]


def opened(shard: str) -> Any:
    """Open a file; its footer is read."""
    import pyarrow.parquet

    fs, path = records.filesystem(shard)
    return pyarrow.parquet.ParquetFile(fs.open(path, "rb"))


@functools.lru_cache(HELD)
def group(shard: str, number: int) -> Any:
    """Read a row group as an arrow table."""
    with opened(shard) as file:
        return file.read_row_group(number, use_threads=False)


def scan(
    shard: str, fields: records.Fields
) -> Iterator[tuple[records.Place, records.Record]]:
    """Yield every row's record; its place is (row group, row)."""
    with opened(shard) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number)
            for start in range(0, table.num_rows, SCANNED):
                rows = table.slice(start, SCANNED).to_pylist()
                for row, values in enumerate(rows, start):
                    key = f"{shard}: row {row} of group {number}"
                    yield (number, row), records.from_fields(key, values, fields)


def read(shard: str, place: records.Place, fields: records.Fields) -> records.Record:
    """Read the record at a place."""
    number, row = place
    with LOCK:
        table = group(shard, number)
    values = table.slice(row, 1).to_pylist()[0]
    key = f"{shard}: row {row} of group {number}"
    return records.from_fields(key, values, fields)
