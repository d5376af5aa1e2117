"""TFRecord files of tf.train.Example messages, read at random.

Each record is a length (uint64), its checksum, the data, and theirs; the index keeps
where each begins, so TensorFlow is not needed and any record is one read away.
"""

import re
import struct
from collections.abc import Iterator

from imagen_jax.data import records
from imagen_jax.data.formats import examples

NAME = re.compile(r"\.tfrecords?(-\d+-of-\d+)?$")
HEADER = struct.Struct("<QI")
FOOTER = 4
MASK = 0xA282EAD8


def shards(files: list[str]) -> list[str]:
    """Return the TFRecord files among some files."""
    return [name for name in files if NAME.search(name)]


def masked_checksum(data: bytes) -> int:
    """Return TFRecord's checksum: CRC-32C, turned and moved."""
    import google_crc32c

    value = google_crc32c.value(data)
    return ((value >> 15 | value << 17) + MASK) & 0xFFFFFFFF


def framed(data: bytes) -> bytes:
    """Return a record as it stands in a file."""
    size = struct.pack("<Q", len(data))
    checks = (struct.pack("<I", masked_checksum(part)) for part in (size, data))
    return b"".join((size, next(checks), data, next(checks)))


def checked(data: bytes) -> bytes:
    """Return a record without its checksum, empty if that is not its own."""
    data, checksum = data[:-FOOTER], data[-FOOTER:]
    return data if struct.pack("<I", masked_checksum(data)) == checksum else b""


def scan(
    shard: str, fields: records.Fields
) -> Iterator[tuple[records.Place, records.Record]]:
    """Yield every record; its place is (offset, size) of its data.

    A file that is cut, or whose lengths are damaged, ends there with an empty record.
    """
    fs, path = records.filesystem(shard)
    end, offset = fs.size(path), 0
    with fs.open(path, "rb") as file:
        while offset < end:
            header = file.read(HEADER.size)
            start = offset + HEADER.size
            key = f"{shard} at byte {start}"
            if len(header) < HEADER.size:
                yield (start, 0), records.Record(key, b"", ())
                return
            size, checksum = HEADER.unpack(header)
            offset = start + size + FOOTER
            if masked_checksum(header[:8]) != checksum or offset > end:
                yield (start, 0), records.Record(key, b"", ())
                return
            data = checked(file.read(size + FOOTER))
            yield (start, size), examples.record(key, data, fields)


def read(shard: str, place: records.Place, fields: records.Fields) -> records.Record:
    """Read the record at a place."""
    start, size = place
    data = checked(records.read_range(shard, start, size + FOOTER)) if size else b""
    return examples.record(f"{shard} at byte {place[0]}", data, fields)
