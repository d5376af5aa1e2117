"""Data whose perfect denoiser is known, and a variance-exploding schedule."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from imagen_jax.diffusion import noise, prediction


@pytest.fixture(autouse=True)
def strict_dtype_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Pixels drawn from N(mean, std^2) and E[x | z] for them."""

    mean: float = 0.30
    std: float = 0.20

    def __call__(self, z, level, cond):
        _, alpha, sigma = noise.broadcast(level, z)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        x = self.mean + gain * (z - alpha * self.mean)
        return prediction.from_x(x, z, level)


@dataclasses.dataclass(frozen=True)
class Exploding:
    """sigma from 50 to 0.01, geometrically (Song et al. 2021, appendix C)."""

    def __call__(self, t):
        return noise.variance_exploding(0.01 * jnp.exp(t * jnp.log(5000.0)))


@pytest.fixture
def gaussian():
    return Gaussian()


@pytest.fixture
def exploding():
    return Exploding()
