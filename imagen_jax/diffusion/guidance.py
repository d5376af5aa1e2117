"""Denoiser -> Denoiser: what is done to a prediction before the sampler sees it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import noise, prediction
from imagen_jax.types import Array, Float

Weight = float | Float[Array, "*B"] | Callable[[noise.NoiseLevel], Array]


def classifier_free(
    denoiser: prediction.Denoiser, w: Weight, uncond: Conditioning | None = None
) -> prediction.Denoiser:
    """eps = w eps(z, cond) + (1 - w) eps(z, uncond).

    Saharia et al. 2022, eq. 2; Ho & Salimans 2022 write 1 + w for this w. w = 1 is the
    conditional model. The network is called once, on the batch doubled with each
    example's pair side by side ([2B]), so that a sharded batch stays in its place.

    As x is affine in eps at a given z, the guided x is the same combination of the
    two x. It is taken so because at high noise dividing the guided eps by alpha would
    lose digits. A learned gamma is the conditional model's.

    Args:
      denoiser: the conditional model.
      w: scalar, [B], or a function of the noise level giving either.
      uncond: what to guide away from; by default the condition without its text.
    """

    def guided(z, level, cond):
        other = cond.null() if uncond is None else uncond
        both = denoiser(
            _double(z), jax.tree.map(_double, level), cond.interleave(other)
        )
        weight = jnp.asarray(w(level) if callable(w) else w, jnp.float32)
        if weight.ndim:
            weight = noise.expand(weight, z)

        def apart(pairs):
            pairs = pairs.reshape((*z.shape[:1], 2, *pairs.shape[1:]))
            return pairs[:, 0], pairs[:, 1]

        def combine(pairs):
            first, second = apart(pairs)
            return weight * first + (1.0 - weight) * second

        gamma = None if both.gamma is None else apart(both.gamma)[0]
        return prediction.Prediction(combine(both.x), combine(both.eps), gamma)

    return guided


def thresholded(
    denoiser: prediction.Denoiser, threshold: Callable[[Array], Array]
) -> prediction.Denoiser:
    """Thresholds x and recomputes eps from z and the new x.

    Saharia et al. 2022, section 2.3. Goes around guidance, never inside it.
    """

    def bounded(z, level, cond):
        found = denoiser(z, level, cond)
        bounds = prediction.from_x(threshold(found.x), z, level)
        return bounds._replace(gamma=found.gamma)

    return bounded


def _double(a: Array) -> Array:
    """[B, ...] -> [2B, ...], each example followed by its copy."""
    return jnp.repeat(a, 2, axis=0)
