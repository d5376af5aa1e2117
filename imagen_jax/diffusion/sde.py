"""Score SDEs backwards in time: one-call predictors (Song et al. 2021).

The forward process is dz = f z dt + g dw with f = d log alpha / dt and g^2 = d sigma^2
/ dt - 2 f sigma^2 = -sigma^2 d logsnr / dt, for any schedule. Its reverse is dz = (f z
- g^2 score) dt + g dw, its probability flow dz = (f z - g^2 score / 2) dt, and the
score is -eps / sigma. A step from t to s knows the two levels, which give the integrals
of f and g^2 / sigma^2 over it: log(alpha_t / alpha_s) and logsnr_s - logsnr_t.

The ancestral predictor is `solvers.Ancestral` with gamma = 0; for variance-exploding
levels it is the paper's (appendix F), and with gamma = 1 it is `ReverseDiffusion`.
"""

import dataclasses
from functools import partial

import jax.numpy as jnp

from imagen_jax import pytrees
from imagen_jax.diffusion import noise, solvers
from imagen_jax.types import Array, Float, Key


def score(eps: Float[Array, "B *data"], level: noise.NoiseLevel) -> Array:
    """grad log p(z) = -eps / sigma, by Tweedie's formula."""
    return -eps / noise.broadcast(level, eps).sigma


@partial(pytrees.register_dataclass, data_fields=[], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class EulerMaruyama(solvers.Solver):
    """Euler-Maruyama's step of the reverse SDE (Song et al. 2021, appendix E).

    With h = logsnr_s - logsnr_t, the SDE's coefficients as they are at t:

      z_s = z_t + log(alpha_s / alpha_t) z_t + sigma_t^2 h score + sigma_t sqrt(h) xi

    A step needs h well below 2. The cosine schedule's first step, uniform in t, has h
    about 10: its noise is thrown wide and has the other steps to come back; a grid
    uniform in log-SNR, or `ReverseDiffusion`, does without that.
    """

    def update(
        self,
        keys: Key[Array, " B"],
        state: solvers.State,
        denoise: solvers.Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> solvers.State:
        """One step from level t to level s, with fresh noise from `keys`."""
        x, eps, _ = denoise(state.z, level_t)
        growth, h = _rates(level_t, level_s, x)
        sigma = noise.broadcast(level_t, x).sigma
        fresh = noise.normal(keys, x.shape)
        z = growth * state.z - sigma * h * eps + sigma * jnp.sqrt(h) * fresh
        return solvers.State(z, x)


@partial(pytrees.register_dataclass, data_fields=[], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class ReverseDiffusion(solvers.Solver):
    """The reverse SDE, discretised as the forward one is (Song et al. 2021, eq. 46).

    Forward, z_t = a z_s + G xi with a = alpha_t / alpha_s and G^2 = sigma_t^2 - a^2
    sigma_s^2 (`process.posterior`'s larger variance). Backward,

      z_s = (2 - a) z_t + G^2 score + G xi
    """

    def update(
        self,
        keys: Key[Array, " B"],
        state: solvers.State,
        denoise: solvers.Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> solvers.State:
        """One step from level t to level s, with fresh noise from `keys`."""
        x, eps, _ = denoise(state.z, level_t)
        a = noise.expand(level_t.alpha / level_s.alpha, x)
        share = noise.expand(-jnp.expm1(level_t.logsnr - level_s.logsnr), x)
        sigma = noise.broadcast(level_t, x).sigma
        fresh = noise.normal(keys, x.shape)
        z = (2.0 - a) * state.z - sigma * share * eps
        return solvers.State(z + sigma * jnp.sqrt(share) * fresh, x)


@partial(pytrees.register_dataclass, data_fields=[], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbabilityFlow(solvers.Solver):
    """Euler's step of the probability-flow ODE (Song et al. 2021, eq. 13).

    z_s = z_t + log(alpha_s / alpha_t) z_t + sigma_t^2 h score / 2 with h = logsnr_s -
    logsnr_t: deterministic, of order one, as `solvers.DDIM`, which takes the linear
    part exactly and is the better alone. As in the paper, a predictor for a corrector.
    """

    def update(
        self,
        keys: Key[Array, " B"],
        state: solvers.State,
        denoise: solvers.Denoise,
        level_t: noise.NoiseLevel,
        level_s: noise.NoiseLevel,
    ) -> solvers.State:
        """One step from level t to level s; `keys` are not used."""
        x, eps, _ = denoise(state.z, level_t)
        growth, h = _rates(level_t, level_s, x)
        sigma = noise.broadcast(level_t, x).sigma
        return solvers.State(growth * state.z - 0.5 * sigma * h * eps, x)


def _rates(level_t: noise.NoiseLevel, level_s: noise.NoiseLevel, like: Array):
    """1 + log(alpha_s / alpha_t), and logsnr_s - logsnr_t, for data like `like`."""
    growth = 1.0 + jnp.log(level_s.alpha / level_t.alpha)
    h = level_s.logsnr - level_t.logsnr
    return noise.expand(growth, like), noise.expand(h, like)
