"""Keeping a predicted picture in the range of pictures, [-1, 1].

Strong guidance drives predictions out of the range that the network has seen, and the
sampler then feeds them back. Each function maps x to x, at every step, after guidance
(Saharia et al. 2022, section 2.3).
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from imagen_jax.diffusion import noise
from imagen_jax.types import Array, Float, typechecked

DIGIT_BITS = 2  # Sixteen passes over the picture, three comparisons each.


def none(x: Array) -> Array:
    """x as it is."""
    return x


@typechecked
def static(x: Float[Array, "B *data"]) -> Float[Array, "B *data"]:
    """clip(x, -1, 1), in float32."""
    return jnp.clip(x.astype(jnp.float32), -1.0, 1.0)


@typechecked
def dynamic(
    x: Float[Array, "B *data"],
    percentile: float | Float[Array, ""] = 0.995,
    cap: float | Float[Array, ""] | None = None,
) -> Float[Array, "B *data"]:
    """clip(x, -s, s) / s, where s = max(1, percentile of |x|) for each example.

    Saharia et al. 2022, section 2.3; 99.5 % is the caption's of figure A.10. The
    percentile is a fraction in [0, 1], taken over all pixels and channels. Float32.
    With a cap, as DeepFloyd IF has it, s is no more than that; a cap of 1 is `static`.
    """
    # Paper silent: over what the percentile is taken. Each example, as pictures of a
    # batch must not depend on each other.
    x = x.astype(jnp.float32)
    s = jnp.maximum(quantile(jnp.abs(x), percentile), 1.0)
    s = noise.expand(s if cap is None else jnp.minimum(s, cap), x)
    return jnp.clip(x, -s, s) / s


@typechecked
def quantile(
    values: Float[Array, "B *data"], fraction: float | Float[Array, ""]
) -> Float[Array, " B"]:
    """The quantile of each example's non-negative float32 values, as numpy defines it.

    Linear interpolation between the order statistics around (n - 1) fraction. It equals
    a sort's result, but neither sorts nor flattens: on a TPU both cost far more.
    """
    n = math.prod(values.shape[1:])
    # Counted from the top: for fractions near one, 1 - fraction is exact and small,
    # so that a traced float32 fraction still hits its place among millions of pixels.
    depth = (1.0 - fraction) * (n - 1)
    below = math.ceil(depth) if isinstance(depth, float) else jnp.ceil(depth)
    weight = jnp.asarray(below - depth, jnp.float32)
    low, high = _order_statistics(values, (n - 1) - jnp.asarray(below, jnp.int32))
    return jnp.where(weight > 0.0, low + weight * (high - low), low)


def _order_statistics(values: Array, rank: Array) -> tuple[Array, Array]:
    """The values of the given rank and of the next rank, [B] each; 0 is the lowest.

    A radix search: non-negative floats are ordered as their bits are, so that the
    answer's bits are found digit by digit, counting the values below each candidate.
    """
    axes = tuple(range(1, values.ndim))
    bits = lax.bitcast_convert_type(values, jnp.uint32)

    def count_below(*bounds):
        # One reduction with many results reads the picture once, on every backend.
        flags = [bits < bound.reshape((-1,) + (1,) * len(axes)) for bound in bounds]
        return lax.reduce(
            [flag.astype(jnp.int32) for flag in flags],
            [np.int32(0)] * len(flags),
            lambda a, b: [m + n for m, n in zip(a, b, strict=True)],
            axes,
        )

    def find_digit(i, prefix):
        shift = np.uint32(32 - DIGIT_BITS) - np.uint32(DIGIT_BITS) * i
        digits = [np.uint32(d) << shift for d in range(1, 1 << DIGIT_BITS)]
        counts = count_below(*(prefix + digit for digit in digits))
        digit = sum((count <= rank).astype(jnp.uint32) for count in counts)
        return prefix + (digit << shift)

    found = jnp.zeros(values.shape[:1], jnp.uint32)
    passes = np.uint32(32 // DIGIT_BITS)
    found = lax.fori_loop(np.uint32(0), passes, find_digit, found)
    low = lax.bitcast_convert_type(found, jnp.float32)
    # The next one is equal where there are ties, else the least of the greater values.
    greater = jnp.where(values > noise.expand(low, values), values, jnp.inf)
    high = jnp.min(greater, axis=axes)
    (at_most,) = count_below(found + np.uint32(1))
    return low, jnp.where(at_most > rank + 1, low, high)
