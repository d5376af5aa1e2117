"""A trained cascade and a weaker one as one model, for autoguidance."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from imagen_jax.cascade.cascade import Cascade

if TYPE_CHECKING:
    from imagen_jax.cascade.text_to_image import TextToImage


def paired(model: "TextToImage", weak: "TextToImage") -> "TextToImage":
    """`model` with the stages of `weak` beside its own of the same resolution.

    Raises:
      ValueError: if no stage has one, a pair does not fit together, or the texts are
        embedded by another encoder.
    """
    others = {s.resolution: i for i, s in enumerate(weak.cascade.stages)}
    stages, params = [], []
    for stage, reader in zip(model.cascade.stages, model.params, strict=True):
        i = others.get(stage.resolution)
        if i is not None:
            stage = dataclasses.replace(stage, weak=weak.cascade.stages[i])
            reader = functools.partial(_both, reader, weak.params[i])
        stages.append(stage)
        params.append(reader)
    if all(stage.weak is None for stage in stages):
        raise ValueError(
            "autoguidance: a weaker model with a stage of one of "
            f"{[s.resolution for s in stages]} px is required, got {sorted(others)} px."
        )
    if model.encoder.module != weak.encoder.module or not _equal(
        model.text_params(), weak.text_params()
    ):
        raise ValueError(
            "autoguidance: both models must have the same text encoder, got two; the "
            "weaker one is told the same embedding."
        )
    return dataclasses.replace(
        model, cascade=Cascade(stages=tuple(stages)), params=tuple(params)
    )


def _both(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
    return first(), second()


def _equal(first: Any, second: Any) -> bool:
    """Whether two trees hold the same numbers."""
    same = jax.tree.structure(first) == jax.tree.structure(second)
    return same and all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )
