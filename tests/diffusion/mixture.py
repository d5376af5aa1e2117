"""Two Gaussians whose perfect denoiser, density and quantiles are known."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.diffusion import noise, prediction

WEIGHTS, MEANS, STDS = (0.3, 0.7), (-0.6, 0.4), (0.1, 0.2)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Each pixel is drawn from the mixture alone, or (joint) all of a picture are."""

    joint: bool = False

    def log_densities(self, z, level):
        """Of both components with their weights; summed over pixels if joint."""
        _, alpha, sigma = noise.broadcast(level, z)
        found = []
        for weight, mean, std in zip(WEIGHTS, MEANS, STDS, strict=True):
            variance = alpha**2 * std**2 + sigma**2
            each = -0.5 * (z - alpha * mean) ** 2 / variance
            each = each - 0.5 * jnp.log(2.0 * math.pi * variance)
            if self.joint:
                each = each.sum(tuple(range(1, z.ndim)), keepdims=True)
            found.append(math.log(weight) + each)
        return jnp.stack(found)

    def __call__(self, z, level, cond):
        _, alpha, sigma = noise.broadcast(level, z)
        share = jax.nn.softmax(self.log_densities(z, level), axis=0)
        x = jnp.zeros_like(z)
        for k, (mean, std) in enumerate(zip(MEANS, STDS, strict=True)):
            gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
            x += share[k] * (mean + gain * (z - alpha * mean))
        return prediction.from_x(x, z, level)


def distance(x) -> float:
    """Between pixels and the mixture: the mean distance of their quantiles (W1)."""
    x = np.sort(np.asarray(x, np.float64).ravel())
    places = np.linspace(-2.0, 2.0, 4001)
    cdf = np.zeros_like(places)
    for weight, mean, std in zip(WEIGHTS, MEANS, STDS, strict=True):
        scaled = (places - mean) / (std * math.sqrt(2.0))
        cdf += weight * 0.5 * (1.0 + np.array([math.erf(a) for a in scaled]))
    truth = np.interp((np.arange(x.size) + 0.5) / x.size, cdf, places)
    return float(np.abs(x - truth).mean())
