"""Trained models from disk: cascades to draw with, and the scorer that judges them."""

import hashlib
import json
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np

from imagen_jax import build, hub
from imagen_jax.cascade import cascade, stage, text_to_image
from imagen_jax.checkpoints import model_directory, safetensors
from imagen_jax.data import emoji, sprites
from imagen_jax.evaluation import composition
from imagen_jax.models import layers
from imagen_jax.text import encoder

# Of the networks of stages.
DTYPES = ("float32", "bfloat16", "float16")
# Keys of the group `text` that name a file of the model directory.
TOKENIZERS = ("sentencepiece", "tokenizer_file")


def load(
    model: str, dtype: str | None = None, **fields: Any
) -> text_to_image.TextToImage:
    """A trained cascade from a shipped model's name, a model directory or hf://...

    Args:
      model: where it is.
      dtype: of the stages' activations and of their kernels in memory, one of `DTYPES`;
        by default as each was trained. The text encoder keeps its own: T5 overflows
        float16.
      **fields: of `TextToImage`, such as `batch` and `mesh`.

    Raises:
      ValueError: if the directory is damaged, or holds a text encoder alone.
    """
    if dtype not in (None, *DTYPES):
        raise ValueError(f"load: dtype must be one of {DTYPES}, got {dtype!r}.")
    folder = hub.model_folder(model)
    configs, words = stage_configs(folder), model_directory.read(folder).words
    if not configs:
        raise ValueError(
            f"model: {model} is a text encoder without stages, which draws nothing; "
            f"train a stage with --config.text.weights={model}."
        )
    for config in configs if dtype else ():
        config.network.dtype = dtype
    stages = tuple(build.make_stage(config) for config in configs)
    text = build.make_text_encoder(configs[0])
    return text_to_image.TextToImage(
        cascade=cascade.Cascade(stages=stages),
        encoder=text,
        text_params=partial(text_params, folder, text),
        params=tuple(partial(stage_params, folder, module) for module in stages),
        recipes=tuple(build.make_recipe(config) for config in configs),
        words=words,
        name=model,
        **fields,
    )


def stage_configs(folder: pathlib.Path) -> list[build.Config]:
    """The configs of a model directory's stages, in order."""
    configs: list[build.Config] = [
        ml_collections.ConfigDict(values)
        for values in model_directory.read(folder).stages
    ]
    for config in configs:
        for name in TOKENIZERS:
            if config.text.get(name):
                config.text[name] = str(folder / config.text[name])
    return configs


def stage_params(folder: pathlib.Path, module: stage.Stage) -> Any:
    """One stage's parameters from a model directory."""
    place = kept(getattr(module.network, "dtype", np.float32))
    reader = model_directory.parameters(folder, module.name, place)
    return reader(build.shapes_of(module.init))


def text_params(folder: pathlib.Path, text: encoder.TextEncoder) -> Any:
    """The text encoder's parameters from a model directory."""
    place = kept(getattr(text.module, "dtype", np.float32))
    return model_directory.parameters(folder, "text", place)(build.shapes_of(text.init))


def kept(dtype: Any) -> Callable[[str, np.ndarray], np.ndarray]:
    """How a parameter is kept for a network of this dtype: kernels in it, rest float32.

    It is what the layers make of it in each call; so it takes half the memory.
    """

    def place(name: str, array: np.ndarray) -> np.ndarray:
        tree = safetensors.unflatten({name: array.astype(np.float32, copy=False)})
        return safetensors.flatten(layers.stored(tree, jnp.dtype(dtype)))[name]

    return place


def model_hash(model: str) -> str:
    """A hash of all files of a model directory or shipped model."""
    digest = hashlib.sha256()
    for path in sorted(hub.model_folder(model).iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def load_scorer(folder: str = "") -> tuple[composition.Scorer, dict[str, Any]]:
    """The scorer of emoji scenes, the shipped one by default, and its own accuracy.

    Raises:
      ValueError: if there is none, or it knows other objects than this version.
    """
    where = pathlib.Path(folder or hub.PUBLISHED / "emoji_scorer")
    path = where / "scorer.json"
    if not path.is_file():
        raise ValueError(
            f"--scorer: {where} has no scorer.json; give a directory that "
            "`imagen-jax export` made of a config of kind scorer."
        )
    stored = json.loads(path.read_text())
    if stored["names"] != scorer_names():
        raise ValueError(
            f"--scorer: {where} was trained on other objects or backgrounds than those "
            "of this version; train it again (config emoji/scorer)."
        )
    task = build.make_detection_task(ml_collections.ConfigDict(stored["config"]))
    params = model_directory.parameters(where, "scorer")(build.shapes_of(task.init))
    recorded = {name: tuple(value) for name, value in stored["accuracy"].items()}
    return composition.Scorer(task, params), recorded


def scorer_names() -> list[list[str]]:
    """The objects and the backgrounds that a scorer tells apart."""
    return [list(sprites.names()), list(emoji.BACKGROUNDS)]
