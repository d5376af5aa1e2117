"""Folders of Hugging Face models: config.json beside safetensors files.

A model's arrays lie in STEM.safetensors, or in shards that STEM.safetensors.index.json
names ({"weight_map": {array: file}}); a variant (fp16) is STEM.fp16.safetensors or
STEM.safetensors.index.fp16.json. The stem is "model" for transformers and
"diffusion_pytorch_model" for diffusers.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from imagen_jax.checkpoints import safetensors, safetensors_header, tensors

MAX_JSON = 10_000_000  # bytes; the largest index of a T5 has 30,000
VARIANT = "fp16"


def open_folder(
    path: str | os.PathLike, stem: str = "model", variant: str = ""
) -> tensors.Tensors:
    """The arrays of a model's folder; headers are read now, arrays when asked for.

    Args:
      path: the folder, local or gs://.
      stem: of the files' names.
      variant: "fp16" for the half-size files beside the full ones; by default the full
        ones, or the fp16 ones where there are no others.

    Raises:
      ValueError: if there are none, or only pickles; if the index names a file outside
        the folder, or an array that is not in its file; for a damaged file.
    """
    folder = epath.Path(path)
    for chosen in [variant] if variant else ["", VARIANT]:
        infix = f".{chosen}" if chosen else ""
        index = folder / f"{stem}.safetensors.index{infix}.json"
        if index.exists():
            return Shards(index)
        single = folder / f"{stem}{infix}.safetensors"
        if single.exists():
            return safetensors.File(single)
    raise _nothing(folder, stem, variant)


def read_config(path: str | os.PathLike, name: str = "config.json") -> dict[str, Any]:
    """The JSON object of a model's folder.

    Raises:
      ValueError: if it is missing, damaged, or no object.
    """
    return _read_object(epath.Path(path) / name)


class Shards:
    """The files that an index names as one checkpoint: `Tensors`."""

    def __init__(self, index: epath.Path):
        self._index = index
        weight_map = _read_object(index).get("weight_map")
        if not isinstance(weight_map, Mapping) or not weight_map:
            raise _bad_index(index, "it has no weight_map of arrays to files")
        files = {
            name: safetensors.File(index.parent / name)
            for name in sorted({_plain(index, n, f) for n, f in weight_map.items()})
        }
        holds = {name: set(file.names()) for name, file in files.items()}
        for name, file in weight_map.items():
            if name not in holds[file]:
                raise _bad_index(index, f"{name} is not in {file}")
        for file, names in holds.items():
            for name in names:
                if weight_map.get(name) != file:
                    raise _bad_index(index, f"{name} of {file} is not there")
        self._shards = list(files)
        self._files = {name: files[file] for name, file in weight_map.items()}

    @property
    def where(self) -> str:
        """The path of the index, for messages."""
        return str(self._index)

    @property
    def files(self) -> list[epath.Path]:
        """The index and the files that it names."""
        return [self._index, *sorted(self._index.parent / f for f in self._shards)]

    def names(self) -> list[str]:
        """The names of the arrays of all files, sorted."""
        return sorted(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array."""
        return self._files[name].shape(name)

    def dtype(self, name: str) -> np.dtype:
        """The type of an array."""
        return self._files[name].dtype(name)

    def read(self, name: str) -> np.ndarray:
        """One array.

        Raises:
          ValueError: if its file has become shorter or cannot be read.
        """
        return self._files[name].read(name)


def _read_object(path: epath.Path) -> dict[str, Any]:
    if not path.exists():
        raise ValueError(f"huggingface: there is no {path}; give the model's folder.")
    try:
        with path.open("rb") as file:
            text = file.read(MAX_JSON + 1)
        if len(text) > MAX_JSON:
            raise ValueError(f"it has more than {MAX_JSON} bytes")
        value = json.loads(text, object_pairs_hook=safetensors_header.unique)
        if not isinstance(value, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"huggingface: {path} is damaged ({error}); download it again."
        ) from error
    return value


def _plain(index: epath.Path, name: str, file: Any) -> str:
    """A file's name from an index, if it can only lie in the index's own folder."""
    if (
        not isinstance(file, str)
        or not file.endswith(".safetensors")
        or "\0" in file
        or file != os.path.basename(file.replace("\\", "/"))
    ):
        raise _bad_index(
            index,
            f"{name} lies in {file!r}, which is no safetensors file of its folder",
        )
    return file


def _bad_index(index: epath.Path, why: str) -> ValueError:
    return ValueError(
        f"huggingface: {index} does not fit its files: {why}; download them again."
    )


def _nothing(folder: epath.Path, stem: str, variant: str) -> ValueError:
    if not folder.is_dir():
        return ValueError(f"huggingface: there is no folder {folder}.")
    wanted = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
    pickles = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix in safetensors_header.PICKLES or ".bin.index." in path.name
    )
    if pickles:
        return ValueError(
            f"huggingface: {folder} has {pickles[0]}, a pickle, which can run code "
            f"when read, and no {wanted}. Download the model's safetensors files (some "
            "have them in a revision refs/pr/N, opened by Hugging Face's converter), "
            "or where torch is installed and the source is trusted: "
            "transformers.AutoModel.from_pretrained(FOLDER).save_pretrained(NEW)."
        )
    return ValueError(
        f"huggingface: {folder} has neither {wanted} nor its index; give the folder "
        "that holds the model's safetensors files."
    )
