"""A recipe's guidance around a stage's denoiser, and what it costs."""

import jax.numpy as jnp

from imagen_jax.cascade.recipe import SamplingRecipe
from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import guidance, noise, prediction


def guided(
    recipe: SamplingRecipe,
    denoiser: prediction.Denoiser,
    levels: noise.NoiseLevel,
    *,
    uncond: Conditioning | None = None,
    weak: prediction.Denoiser | None = None,
) -> prediction.Denoiser:
    """The denoiser under the guidance that a recipe asks for.

    Args:
      recipe: without any weight the denoiser stays as it is.
      denoiser: the model.
      levels: those at which the run's steps begin, fields of shape [N].
      uncond: what to guide away from; None stands for `cond.null()`.
      weak: the model to guide away from, where there is `autoguidance`.

    Raises:
      ValueError: for autoguidance without a weaker model.
    """
    w, auto_w = recipe.w, recipe.autoguidance
    if auto_w is not None and weak is None:
        raise ValueError(
            "sample: autoguidance leads away from a weaker model, got none; give one "
            "(--guide, `TextToImage.guided_by`), or leave autoguidance out."
        )
    weight = None if w is None else recipe.guidance_schedule(w, levels)
    correction = guidance.Correction(
        recipe.apg_eta, recipe.apg_norm, recipe.guidance_rescale
    )
    if auto_w is not None and weak is not None:
        if weight is None:
            led = guidance.auto(denoiser, weak, auto_w, correction)
        else:
            led = guidance.combined(denoiser, weight, weak, auto_w, uncond, correction)
    elif weight is not None:
        led = guidance.classifier_free(denoiser, weight, uncond, correction)
    else:
        return denoiser
    if recipe.interval is None:
        return led
    return guidance.limited(led, denoiser, *recipe.interval)


def evaluations(recipe: SamplingRecipe, levels: noise.NoiseLevel) -> tuple[int, int]:
    """How often a picture goes through the network, and through the weaker one.

    The floating-point operations of drawing are proportional to it. A step in which a
    solver calls twice counts twice, both calls as guided as its first.

    Args:
      recipe: its numbers must be concrete.
      levels: those at which the run's steps begin, fields of shape [N].
    """
    guided_steps = recipe.steps if recipe.guided else 0
    if recipe.guided and recipe.interval is not None:
        guided_steps = int(jnp.sum(guidance.within(levels, *recipe.interval)))
    calls = recipe.solver.calls * int(recipe.resample or 1)
    without_text = guided_steps if recipe.w is not None else 0
    weak = guided_steps if recipe.autoguidance is not None else 0
    return calls * (recipe.steps + without_text), calls * weak
