"""Pictures drawn by a stage during its training, from captions it never saw."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import partitioning
from imagen_jax.cascade import images
from imagen_jax.cascade.contact_sheet import contact_sheet
from imagen_jax.cascade.recipe import SamplingRecipe
from imagen_jax.cascade.request import Request
from imagen_jax.cascade.stage import Stage
from imagen_jax.text.encoder import TextEmbedding

_sample = jax.jit(Stage.sample, static_argnums=(0,), static_argnames=("size",))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Fixed captions to draw, and what a stage needs to draw them.

    Attributes:
      texts: P captions.
      request: their embedding, and real pictures for a super-resolution stage.
      size: height and width to draw.
      seed: of the noise.
    """

    texts: Sequence[str]
    request: Request
    size: tuple[int, int]
    seed: int = 0


def prompts(stage: Stage, texts: Sequence[str]) -> list[str]:
    """What to embed for `examples_of`: the captions, then as many nulls if wanted."""
    empty = stage.null_text == "empty_prompt"
    return [*texts, *[""] * len(texts) * empty]


def examples_of(
    stage: Stage,
    embedding: TextEmbedding | None,
    texts: Sequence[str],
    pictures: Sequence[np.ndarray],
) -> Examples:
    """Examples whose low-resolution inputs are made from real uint8 pictures.

    `embedding` is that of `prompts(stage, texts)`.
    """
    empty, count = None, len(texts)
    if embedding is not None and len(embedding.mask) > count:
        empty = TextEmbedding(*(a[count:] for a in embedding))
        embedding = TextEmbedding(*(a[:count] for a in embedding))
    low_res, size = None, (stage.resolution, stage.resolution)
    if stage.low_resolution is not None:
        x = images.to_float(jnp.asarray(np.stack(pictures)))
        ratio = stage.resolution // stage.low_resolution
        size = (x.shape[1], x.shape[2])
        low_res = images.resize(x, (size[0] // ratio, size[1] // ratio))
    request = Request(text=embedding, empty=empty, low_res=low_res)
    return Examples(texts=texts, request=request, size=size)


def draw(
    stage: Stage, params: Any, recipe: SamplingRecipe, examples: Examples
) -> np.ndarray:
    """Draw all examples: uint8 [P, H, W, 3]."""
    fold = partial(jax.random.fold_in, jax.random.key(examples.seed))
    keys = jax.vmap(fold)(jnp.arange(len(examples.texts)))
    x = _sample(stage, keys, params, examples.request, recipe, size=examples.size)
    return partitioning.fetch(images.to_uint8(x))


def sheet(
    stage: Stage, params: Any, recipe: SamplingRecipe, examples: Examples
) -> np.ndarray:
    """Draw all examples onto one labelled sheet, uint8 [H, W, 3]."""
    drawn = draw(stage, params, recipe, examples)
    return np.asarray(contact_sheet(list(drawn), examples.texts, cell=128))
