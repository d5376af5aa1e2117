"""Denoiser -> Denoiser: what is done to a prediction before the sampler sees it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import noise, prediction
from imagen_jax.types import Array, Float

TINY = 1e-12  # a norm that may be divided by

Weight = float | Float[Array, "*B"] | Callable[[noise.NoiseLevel], Array]
# (z, level, cond) -> the prediction that is led, and those that it is led away from.
Predictions = Callable[
    [Array, noise.NoiseLevel, Conditioning], list[prediction.Prediction]
]


class Correction(NamedTuple):
    """What keeps strong guidance from saturated colours; None leaves a part out.

    Its numbers may be traced, their presence is static. eta and norm are adaptive
    projected guidance (Sadat et al. 2024), without its momentum: that would be a state,
    which a denoiser has not.

    Attributes:
      eta: share of each difference of two x that is kept along the led x, in [0, 1];
        what is across it stays. 1 is plain guidance.
      norm: the largest L2 norm of a difference, over all pixels and channels, the
        paper's r.
      rescale: phi, how far the guided x takes the standard deviation of the led x, in
        [0, 1] (Lin et al. 2023, section 3.4).
    """

    eta: float | Array | None = None
    norm: float | Array | None = None
    rescale: float | Array | None = None


PLAIN = Correction()


def classifier_free(
    denoiser: prediction.Denoiser,
    w: Weight,
    uncond: Conditioning | None = None,
    correction: Correction = PLAIN,
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
      uncond: what to guide away from, such as a negative prompt; by default the
        condition without its text.
      correction: of what guidance adds.
    """
    return _led(_pair(denoiser, uncond), [w], correction)


def auto(
    denoiser: prediction.Denoiser,
    weak: prediction.Denoiser,
    w: Weight,
    correction: Correction = PLAIN,
) -> prediction.Denoiser:
    """x = w x_strong(z, cond) + (1 - w) x_weak(z, cond): autoguidance.

    Karras et al. 2024, eq. 3, of a model and a smaller or less trained one, both told
    the same. w = 1 is the strong model.
    """

    def predictions(z, level, cond):
        return [denoiser(z, level, cond), weak(z, level, cond)]

    return _led(predictions, [w], correction)


def combined(
    denoiser: prediction.Denoiser,
    w: Weight,
    weak: prediction.Denoiser,
    auto_w: Weight,
    uncond: Conditioning | None = None,
    correction: Correction = PLAIN,
) -> prediction.Denoiser:
    """Classifier-free guidance and autoguidance at once.

    x = x_1 + (w - 1) (x_1 - x_1(uncond)) + (auto_w - 1) (x_1 - x_weak), where x_1 is
    the model's x given the condition (Karras et al. 2024, appendix B.2, who write the
    two weights as shares of one). w = 1 is `auto`, auto_w = 1 `classifier_free`.
    """
    pair = _pair(denoiser, uncond)

    def predictions(z, level, cond):
        return [*pair(z, level, cond), weak(z, level, cond)]

    return _led(predictions, [w, auto_w], correction)


def limited(
    guided: prediction.Denoiser,
    plain: prediction.Denoiser,
    low: float | Float[Array, ""] = 0.0,
    high: float | Float[Array, ""] = jnp.inf,
) -> prediction.Denoiser:
    """`guided` at noise levels `within` low and high, elsewhere `plain`.

    Kynkaanniemi et al. 2024. Only the one that is needed is computed: outside the
    interval a step costs what it costs without guidance. Both are in the program,
    which is that much longer to compile. The whole batch must be at one level, as in
    sampling: the first example's decides.
    """

    def denoise(z, level, cond):
        inside = within(jax.tree.map(lambda a: a[0], level), low, high)
        return lax.cond(inside, guided, plain, z, level, cond)

    return denoise


def within(
    level: noise.NoiseLevel,
    low: float | Float[Array, ""],
    high: float | Float[Array, ""],
) -> Array:
    """Whether low < sigma / alpha <= high.

    sigma / alpha is the paper's sigma: the noise where the picture has scale 1.
    """
    sigma = jnp.exp(-0.5 * level.logsnr)
    return jnp.logical_and(low < sigma, sigma <= high)


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


def _pair(denoiser: prediction.Denoiser, uncond: Conditioning | None) -> Predictions:
    """The predictions with and without the condition, of one call."""

    def predictions(z, level, cond):
        other = cond.null() if uncond is None else uncond
        both = denoiser(
            _double(z), jax.tree.map(_double, level), cond.interleave(other)
        )
        pairs = jax.tree.map(lambda a: a.reshape((*z.shape[:1], 2, *a.shape[1:])), both)
        return [jax.tree.map(lambda a, i=i: a[:, i], pairs) for i in range(2)]

    return predictions


def _led(
    predictions: Predictions, weights: Sequence[Weight], correction: Correction
) -> prediction.Denoiser:
    """The first prediction led away from each other one by its weight."""

    def guided(z, level, cond):
        first, *others = predictions(z, level, cond)
        numbers = [_number(w, level, z) for w in weights]
        if all(part is None for part in correction):
            x, eps = (
                _combined([getattr(p, view) for p in (first, *others)], numbers)
                for view in ("x", "eps")
            )
            return prediction.Prediction(x, eps, first.gamma)
        x = _corrected(first.x, [p.x for p in others], numbers, correction)
        return prediction.from_x(x, z, level)._replace(gamma=first.gamma)

    return guided


def _number(w: Weight, level: noise.NoiseLevel, z: Array) -> Array:
    weight = jnp.asarray(w(level) if callable(w) else w, jnp.float32)
    return noise.expand(weight, z) if weight.ndim else weight


def _combined(views: Sequence[Array], weights: Sequence[Array]) -> Array:
    """w a + (1 - w) b; of more, a + sum of (w_i - 1) (a - b_i)."""
    total = weights[0]
    for weight in weights[1:]:
        total = total + (weight - 1.0)
    result = total * views[0]
    for weight, other in zip(weights, views[1:], strict=True):
        result = result + (1.0 - weight) * other
    return result


def _corrected(
    x: Array, others: Sequence[Array], weights: Sequence[Array], correction: Correction
) -> Array:
    axes = tuple(range(1, x.ndim))
    guided = x
    for weight, other in zip(weights, others, strict=True):
        change = x - other
        if correction.norm is not None:
            length = jnp.sqrt(jnp.sum(jnp.square(change), axes, keepdims=True))
            change = change * jnp.minimum(
                1.0, correction.norm / jnp.maximum(length, TINY)
            )
        if correction.eta is not None:
            along = jnp.sum(change * x, axes, keepdims=True) / jnp.maximum(
                jnp.sum(jnp.square(x), axes, keepdims=True), TINY
            )
            change = change + (correction.eta - 1.0) * along * x
        guided = guided + (weight - 1.0) * change
    if correction.rescale is None:
        return guided
    # Differs: the paper rescales the network's v; here x, which saturates, whatever
    # the network predicts.
    gain = jnp.std(x, axes, keepdims=True) / jnp.maximum(
        jnp.std(guided, axes, keepdims=True), TINY
    )
    return guided * (1.0 + correction.rescale * (gain - 1.0))


def _double(a: Array) -> Array:
    """[B, ...] -> [2B, ...], each example followed by its copy."""
    return jnp.repeat(a, 2, axis=0)
