"""Which kind of files a data set has; one module of `formats/` for each."""

from types import ModuleType

from imagen_jax.data import records
from imagen_jax.data.formats import (
    array_record,
    folder,
    parquet,
    tars,
    tfds,
    tfrecord,
)

# In the order in which a folder is asked: pictures in folders last.
FORMATS: dict[str, ModuleType] = {
    "webdataset": tars,
    "parquet": parquet,
    "tfrecord": tfrecord,
    "array_record": array_record,
    "folder": folder,
}


def find(root: str, split: str = "train") -> tuple[ModuleType, list[str]]:
    """Return the format of a data set and its shards, in order.

    Raises:
      ValueError: if there is nothing that is known, saying what is.
    """
    if root.startswith(tfds.SCHEME):
        files = tfds.files(root, split)
        kind = array_record if ".array_record" in files[0] else tfrecord
        return kind, files
    files = records.files(root)
    fs, path = records.filesystem(root)
    for kind in FORMATS.values():
        shards = kind.shards(files)
        # A pattern of pictures would take their neighbours too.
        if shards and (kind is not folder or fs.isdir(path)):
            return kind, shards
    raise ValueError(
        f"data: {root!r} has no tar, parquet, TFRecord or ArrayRecord files and no "
        "pictures. Give a folder that holds such files, one file, a pattern, or "
        "tfds:NAME."
    )
