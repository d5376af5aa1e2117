"""Small data sets of every format, and two thousand ways to damage one."""

import csv
import io
import json
import pathlib
import struct
import tarfile
import zlib

import numpy as np
from PIL import Image

from imagen_jax.data.formats import examples, tfrecord

FORMATS = ("folder", "webdataset", "parquet", "tfrecord", "array_record")


def picture(number: int, size: tuple[int, int] | None = None, kind="PNG") -> bytes:
    """A picture whose flat colour tells its number, of a size that varies with it."""
    width, height = size or (70 + number * 7 % 50, 70 + number * 11 % 50)
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = colour(number)
    return encoded(Image.fromarray(pixels), kind)


def encoded(image: Image.Image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def colour(number: int) -> tuple[int, int, int]:
    return number % 8 * 32 + 16, number // 8 % 8 * 32 + 16, number // 64 * 32 + 16


def number_of(image: np.ndarray) -> int:
    """The number of a picture, read off its middle."""
    r, g, b = (int(v) // 32 for v in image[image.shape[0] // 2, image.shape[1] // 2])
    return r + 8 * g + 64 * b


def caption(number: int) -> str:
    return f"picture number {number}"


def write(folder: pathlib.Path, kind: str, pictures: list[bytes], shard=16) -> str:
    """Write pictures with captions and scores in shards; returns the path to give."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(pictures), shard):
        some = dict(enumerate(pictures))
        some = {i: some[i] for i in range(start, min(start + shard, len(pictures)))}
        WRITERS[kind](folder, start // shard, some)
    return str(folder)


def write_folder(folder, shard, some):
    inside = folder / f"part{shard}"
    inside.mkdir()
    for i, data in some.items():
        (inside / f"{i:05d}.png").write_bytes(data)
        if shard % 3 == 0:
            (inside / f"{i:05d}.txt").write_text(caption(i) + "\n")
        elif shard % 3 == 1:
            told = {"caption": caption(i), "score": i}
            (inside / f"{i:05d}.json").write_text(json.dumps(told))
    if shard % 3 == 2:
        with (inside / "metadata.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file_name", "text", "score"])
            rows.writerows([f"{i:05d}.png", caption(i), i] for i in some)


def write_tar(folder, shard, some):
    with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
        for i, data in some.items():
            told = json.dumps({"key": f"{i}", "caption": caption(i), "score": i})
            for suffix, part in (
                ("png", data),
                ("txt", caption(i).encode()),
                ("json", told.encode()),
            ):
                member = tarfile.TarInfo(f"{i:09d}.{suffix}")
                member.size = len(part)
                tar.addfile(member, io.BytesIO(part))


def write_parquet(folder, shard, some):
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"image": {"bytes": data, "path": None}, "text": caption(i), "score": float(i)}
        for i, data in some.items()
    ]
    table = pyarrow.Table.from_pylist(rows)
    path = folder / f"{shard:05d}.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=5)


def message(i, data):
    told = {"image": data, "caption": caption(i).encode(), "score": float(i)}
    return examples.serialise(told)


def write_tfrecord(folder, shard, some):
    path = folder / f"x.tfrecord-{shard:05d}-of-00099"
    path.write_bytes(b"".join(tfrecord.framed(message(*item)) for item in some.items()))


def write_array_record(folder, shard, some):
    from array_record.python import array_record_module

    path = folder / f"x.array_record-{shard:05d}-of-00099"
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for item in some.items():
        writer.write(message(*item))
    writer.close()


WRITERS = {
    "folder": write_folder,
    "webdataset": write_tar,
    "parquet": write_parquet,
    "tfrecord": write_tfrecord,
    "array_record": write_array_record,
}


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few bytes whose header promises gigabytes."""

    def chunk(name, data):
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


def damaged(number: int) -> tuple[str, bytes, bytes]:
    """The kind of damage, the picture's bytes and the caption's of one bad input.

    Kinds follow each other; positions and sizes depend on the number.
    """
    draw = np.random.default_rng(number)
    kind = DAMAGES[number % len(DAMAGES)]
    noise = draw.integers(0, 256, (96, 96, 3), np.uint8)
    image = Image.fromarray(noise)
    data, text = encoded(image, "JPEG"), caption(number).encode()
    png = encoded(image, "PNG")
    if kind == "cut JPEG":
        data = data[: int(draw.integers(200, len(data) - 200))]
    elif kind == "cut PNG":
        data = png[: int(draw.integers(60, len(png) - 100))]
    elif kind == "cut WebP":
        webp = encoded(image, "WEBP")
        data = webp[: int(draw.integers(40, len(webp) - 100))]
    elif kind == "bytes turned over in a PNG":
        broken = np.frombuffer(png, np.uint8).copy()
        where = draw.integers(60, len(broken) - 60, 20)
        broken[where] ^= draw.integers(1, 256, 20).astype(np.uint8)
        data = broken.tobytes()
    elif kind == "a web page":
        data = b"<!DOCTYPE html><html>404</html>" * int(draw.integers(1, 50))
    elif kind == "random bytes":
        data = draw.bytes(int(draw.integers(1, 5000)))
    elif kind == "an empty file":
        data = b""
    elif kind == "zeros":
        data = bytes(int(draw.integers(1, 5000)))
    elif kind == "a bomb":
        data = bomb(int(draw.integers(20_000, 90_000)), 50_000)
    elif kind == "only a header":
        data = png[: int(draw.integers(9, 33))]
    elif kind == "an empty caption":
        text = b" \n\t " * int(draw.integers(0, 4))
    elif kind == "a binary caption":
        text = b"\xff\xfe\x00" + draw.bytes(50)
    elif kind == "floating point":
        data = encoded(Image.fromarray(noise[..., 0].astype(np.float32)), "TIFF")
    return kind, data, text


DAMAGES = (
    "cut JPEG",
    "cut PNG",
    "cut WebP",
    "bytes turned over in a PNG",
    "a web page",
    "random bytes",
    "an empty file",
    "zeros",
    "a bomb",
    "only a header",
    "an empty caption",
    "a binary caption",
    "floating point",
)


def prepare_tfds(folder: pathlib.Path, number: int, first: int = 0) -> pathlib.Path:
    """A data directory of TFDS: a set in each format, several captions a picture."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import registered

    with registered.skip_registration():

        class Captions(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "image/id": tfds.features.Scalar(dtype=np.int64),
                    "captions": tfds.features.Sequence(
                        {
                            "id": tfds.features.Scalar(np.int64),
                            "text": tfds.features.Text(),
                        }
                    ),
                }
                features = tfds.features.FeaturesDict(features)
                return tfds.core.DatasetInfo(builder=self, features=features)

            def _split_generators(self, dl_manager):
                return {
                    "train": self._generate_examples(range(first, first + number)),
                    "val": self._generate_examples(range(3)),
                }

            def _generate_examples(self, numbers):
                for i in numbers:
                    image = Image.new("RGB", (80, 70), colour(i))
                    texts = [caption(i), f"again {i}"]
                    yield (
                        i,
                        {
                            "image": np.asarray(image),
                            "image/id": i,
                            "captions": [
                                {"id": k, "text": t} for k, t in enumerate(texts)
                            ],
                        },
                    )

        class CaptionsTfrecord(Captions):
            name = "captions_tfrecord"

        class CaptionsArrayRecord(Captions):
            name = "captions_array_record"

    for builder, kind in (
        (CaptionsTfrecord, "tfrecord"),
        (CaptionsArrayRecord, "array_record"),
    ):
        made = builder(data_dir=folder, file_format=kind)
        made.download_and_prepare()
    return folder
