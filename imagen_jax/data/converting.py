"""Write a data set anew in another format, shard by shard, resumable."""

import io
import json
import pathlib
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from imagen_jax.data import collection, pictures, records
from imagen_jax.data.formats import examples, tfrecord

ROWS = 64  # of a parquet row group: so many are decoded for one that is read
SUFFIX_OF = {"JPEG": "jpg", "TIFF": "tif", "MPO": "jpg"}


class Item(NamedTuple):
    """A record to write: numbered, its captions checked."""

    number: int
    record: records.Record
    texts: list[str]
    suffix: str

    @property
    def key(self) -> str:
        """Its name in the new data set."""
        return f"{self.number:09d}"

    @property
    def fields(self) -> dict[str, Any]:
        """Captions and numbers by name."""
        return {"captions": self.texts, **self.record.columns}


def convert(
    found: collection.Collection,
    to: str,
    folder: str,
    *,
    shard_size: int = 1000,
    report: Callable[[int], object] | None = None,
) -> tuple[int, int]:
    """Write records in order, their picture files byte for byte.

    Shards that are there are left alone: an interrupted call goes on where it was.

    Args:
      found: what to write.
      to: a name in WRITERS.
      folder: gets the shards.
      shard_size: records of each, fewer where some cannot be read.
      report: told how many more records are done.

    Returns:
      (records written, records left out since they cannot be read).

    Raises:
      ValueError: for an unknown format, or a folder with another conversion.
    """
    if to not in WRITERS:
        raise ValueError(f"--to: must be one of {tuple(WRITERS)}, got {to!r}.")
    write, name = WRITERS[to]
    root = pathlib.Path(folder)
    remember(root, {"to": to, "records": len(found), "shard_size": shard_size})
    count = -(-len(found) // shard_size)
    left_out = 0
    for shard in range(count):
        first = shard * shard_size
        numbers = range(first, min(first + shard_size, len(found)))
        path = root / name.format(shard, count)
        if not path.exists():
            bad: list[int] = []
            temporary = path.with_name(f"{path.name}.tmp")
            discard(temporary)
            write(temporary, items(found, numbers, bad))
            temporary.rename(path)
            left_out += len(bad)
        if report is not None:
            report(len(numbers))
    return len(found) - left_out, left_out


def remember(folder: pathlib.Path, what: dict[str, Any]) -> None:
    """Note what is written here, or check that it is the same."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "conversion.json"
    if path.exists() and json.loads(path.read_text()) != what:
        raise ValueError(
            f"{folder} holds another conversion ({path.read_text()}); give an empty "
            "folder."
        )
    path.write_text(json.dumps(what))


def discard(path: pathlib.Path) -> None:
    """Remove what an interrupted call left."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def items(
    found: collection.Collection, numbers: Iterable[int], bad: list[int]
) -> Iterator[Item]:
    """Yield the records of some numbers; those that cannot be read go to `bad`."""
    for number in numbers:
        shard, row = found.locate(number)
        try:
            record = shard.record(row)
            texts = records.texts(record)
            kind = pictures.opened(record.picture).format or ""
        except pictures.BadExample:
            bad.append(number)
            continue
        yield Item(number, record, texts, SUFFIX_OF.get(kind, kind.lower()))


def write_tar(path: pathlib.Path, some: Iterable[Item]) -> None:
    """Write a WebDataset tar: key.jpg, key.txt, key.json."""
    with tarfile.open(path, "w") as tar:
        for item in some:
            told = json.dumps({"key": item.key, **item.fields}).encode()
            for suffix, data in ((item.suffix, item.record.picture), ("json", told)):
                member = tarfile.TarInfo(f"{item.key}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_folder(path: pathlib.Path, some: Iterable[Item]) -> None:
    """Write picture files and a metadata.jsonl."""
    path.mkdir()
    with (path / "metadata.jsonl").open("w") as table:
        for item in some:
            name = f"{item.key}.{item.suffix}"
            (path / name).write_bytes(item.record.picture)
            table.write(json.dumps({"file_name": name, **item.fields}) + "\n")


def write_parquet(path: pathlib.Path, some: Iterable[Item]) -> None:
    """Write a parquet file with small row groups."""
    import pyarrow
    import pyarrow.parquet

    rows = [
        {
            "image": {"bytes": i.record.picture, "path": f"{i.key}.{i.suffix}"},
            **i.fields,
        }
        for i in some
    ]
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, path, row_group_size=ROWS)


def message(item: Item) -> bytes:
    """Return a record as a tf.train.Example."""
    texts = [text.encode() for text in item.texts]
    return examples.serialise(
        {"image": item.record.picture, "captions": texts, **item.record.columns}
    )


def write_tfrecord(path: pathlib.Path, some: Iterable[Item]) -> None:
    """Write a TFRecord file."""
    with path.open("wb") as file:
        for item in some:
            file.write(tfrecord.framed(message(item)))


def write_array_record(path: pathlib.Path, some: Iterable[Item]) -> None:
    """Write an ArrayRecord file, each record by itself."""
    from array_record.python import array_record_module  # pyright: ignore

    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for item in some:
        writer.write(message(item))
    writer.close()


# What writes a shard, and the shards' names.
WRITERS: dict[str, tuple[Callable[[pathlib.Path, Iterable[Item]], None], str]] = {
    "folder": (write_folder, "{:05d}"),
    "webdataset": (write_tar, "{:05d}.tar"),
    "parquet": (write_parquet, "{:05d}.parquet"),
    "tfrecord": (write_tfrecord, "data.tfrecord-{:05d}-of-{:05d}"),
    "array_record": (write_array_record, "data.array_record-{:05d}-of-{:05d}"),
}
