"""Data sets that TensorFlow Datasets has prepared: where their files are.

Their files are TFRecord or ArrayRecord and are read as such.
"""

SCHEME = "tfds:"


def files(root: str, split: str) -> list[str]:
    """Return the files of a split of "tfds:NAME[/CONFIG][:VERSION][@DATA_DIR]".

    Raises:
      ValueError: if it is not prepared; nothing is downloaded here.
    """
    try:
        from tensorflow_datasets.core import read_only_builder, registered
    except ImportError as error:
        raise ValueError(
            f"data: {root} requires tensorflow-datasets, which cannot be imported "
            f'({error}). Fix: pip install "imagen_jax[seqio]".'
        ) from error
    name, _, folder = root.removeprefix(SCHEME).partition("@")
    try:
        found = read_only_builder.builder_from_files(name, data_dir=folder or None)
    except registered.DatasetNotFoundError as error:
        where = folder or "~/tensorflow_datasets (TFDS_DATA_DIR)"
        at = f", data_dir={folder!r}" if folder else ""
        raise ValueError(
            f"data: {name} is not prepared in {where}. On a machine with network run: "
            'python -c "import tensorflow_datasets as t; '
            f"t.builder({name!r}{at}).download_and_prepare("
            "file_format='array_record')\""
        ) from error
    splits = found.info.splits
    if split not in splits:
        raise ValueError(
            f"data.pictures.split: {name} has {', '.join(sorted(splits))}, got "
            f"{split!r}."
        )
    return [str(path) for path in splits[split].filepaths]
