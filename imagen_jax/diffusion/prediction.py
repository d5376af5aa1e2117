"""What a network's output says about the picture and the noise.

Every output becomes a `Prediction(x, eps)`: two views of one thing, tied by
z = alpha x + sigma eps. Samplers, guidance and thresholding read only these.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import noise, schedules
from imagen_jax.types import Array, Float, typechecked


class Prediction(NamedTuple):
    """A picture and the noise that together make z, both float32 like z.

    Attributes:
      x: the predicted picture.
      eps: the predicted noise.
      gamma: where the network says how much noise a step renews: the share of the way,
        in logarithms, from the posterior's variance to the forward process's (Nichol &
        Dhariwal 2021, eq. 15). None: the solver says it.
    """

    x: Float[Array, "B *data"]
    eps: Float[Array, "B *data"]
    gamma: Float[Array, "B *data"] | None = None


@typechecked
def split(
    output: Float[Array, "B ..."], z: Float[Array, "B ..."]
) -> tuple[Float[Array, "B ..."], Float[Array, "B ..."] | None]:
    """A network's output apart: what has the channels of z, and gamma.

    Of twice as many channels, the second half is a learned range of variances: v in
    about [-1, 1] means gamma = (v + 1) / 2 (Dhariwal & Nichol 2021's code). Gamma is
    None where there are none.

    Raises:
      ValueError: unless there are the channels of z, or twice as many.
    """
    channels = z.shape[-1]
    if output.shape[-1] == channels:
        return output, None
    if output.shape[-1] != 2 * channels:
        raise ValueError(
            f"Prediction: the network's output must have {channels} channels, or "
            f"{2 * channels} with a learned variance, got {output.shape[-1]}."
        )
    return output[..., :channels], 0.5 * (
        output[..., channels:].astype(jnp.float32) + 1.0
    )


# denoiser(z, level, cond) -> Prediction
Denoiser = Callable[[Array, noise.NoiseLevel, Conditioning], Prediction]


@typechecked
def from_x(
    x: Float[Array, "B *data"], z: Float[Array, "B *data"], level: noise.NoiseLevel
) -> Prediction:
    """eps = (z - alpha x) / sigma."""
    x, z = x.astype(jnp.float32), z.astype(jnp.float32)
    _, alpha, sigma = noise.broadcast(level, z)
    return Prediction(x, (z - alpha * x) / sigma)


@typechecked
def from_eps(
    eps: Float[Array, "B *data"], z: Float[Array, "B *data"], level: noise.NoiseLevel
) -> Prediction:
    """x = (z - sigma eps) / alpha (Saharia et al. 2022, appendix A)."""
    eps, z = eps.astype(jnp.float32), z.astype(jnp.float32)
    _, alpha, sigma = noise.broadcast(level, z)
    return Prediction((z - sigma * eps) / alpha, eps)


@typechecked
def from_v(
    v: Float[Array, "B *data"], z: Float[Array, "B *data"], level: noise.NoiseLevel
) -> Prediction:
    """x = alpha z - sigma v, eps = sigma z + alpha v (Salimans & Ho 2022, appendix D).

    Both need alpha^2 + sigma^2 = 1, which is checked when the level is concrete.
    """
    _require_variance_preserving(level)
    v, z = v.astype(jnp.float32), z.astype(jnp.float32)
    _, alpha, sigma = noise.broadcast(level, z)
    return Prediction(alpha * z - sigma * v, sigma * z + alpha * v)


@runtime_checkable
class Parameterization(Protocol):
    """What the network's output means, and what it is trained towards."""

    name: ClassVar[str]
    needs_variance_preserving: ClassVar[bool]

    def target(self, x: Array, eps: Array, level: noise.NoiseLevel) -> Array:
        """The output of a perfect network."""
        ...

    def predict(self, output: Array, z: Array, level: noise.NoiseLevel) -> Prediction:
        """Reads the network's output at z."""
        ...

    def log_gain(self, level: noise.NoiseLevel) -> Float[Array, " B"]:
        """log of the squared error of the target over the squared error of x."""
        ...


@dataclasses.dataclass(frozen=True)
class Epsilon:
    """The network predicts the noise: Imagen (Saharia et al. 2022, appendix A)."""

    name: ClassVar[str] = "eps"
    needs_variance_preserving: ClassVar[bool] = False

    def target(self, x: Array, eps: Array, level: noise.NoiseLevel) -> Array:
        """The noise."""
        return eps

    def predict(self, output: Array, z: Array, level: noise.NoiseLevel) -> Prediction:
        """`from_eps`."""
        return from_eps(output, z, level)

    def log_gain(self, level: noise.NoiseLevel) -> Float[Array, " B"]:
        """|eps error|^2 = SNR |x error|^2."""
        return level.logsnr


@dataclasses.dataclass(frozen=True)
class Data:
    """The network predicts the picture."""

    name: ClassVar[str] = "x"
    needs_variance_preserving: ClassVar[bool] = False

    def target(self, x: Array, eps: Array, level: noise.NoiseLevel) -> Array:
        """The picture."""
        return x

    def predict(self, output: Array, z: Array, level: noise.NoiseLevel) -> Prediction:
        """`from_x`."""
        return from_x(output, z, level)

    def log_gain(self, level: noise.NoiseLevel) -> Float[Array, " B"]:
        """0: the target is x."""
        return jnp.zeros_like(level.logsnr)


@dataclasses.dataclass(frozen=True)
class Velocity:
    """The network predicts v = alpha eps - sigma x (Salimans & Ho 2022, appendix D)."""

    name: ClassVar[str] = "v"
    needs_variance_preserving: ClassVar[bool] = True

    def target(self, x: Array, eps: Array, level: noise.NoiseLevel) -> Array:
        """v = alpha eps - sigma x."""
        _require_variance_preserving(level)
        _, alpha, sigma = noise.broadcast(level, x)
        return alpha * eps - sigma * x

    def predict(self, output: Array, z: Array, level: noise.NoiseLevel) -> Prediction:
        """`from_v`."""
        return from_v(output, z, level)

    def log_gain(self, level: noise.NoiseLevel) -> Float[Array, " B"]:
        """|v error|^2 = (SNR + 1) |x error|^2, since x = alpha z - sigma v."""
        return jax.nn.softplus(level.logsnr)


EPS = Epsilon()
X = Data()
V = Velocity()


def by_name(name: str) -> Parameterization:
    """The parameterization called "eps", "x" or "v".

    Raises:
      ValueError: for another name.
    """
    for parameterization in (EPS, X, V):
        if parameterization.name == name:
            return parameterization
    raise ValueError(f'Parameterization: "eps", "x" or "v" is required, got "{name}".')


def check(
    parameterization: Parameterization, schedule: schedules.NoiseSchedule
) -> None:
    """Refuses a parameterization that the schedule's levels do not allow.

    Raises:
      ValueError: for v on a schedule that does not preserve variance.
    """
    # Asked of every schedule: the answer, which is kept, is needed again while programs
    # are traced, perhaps for devices that are not here, where nothing can be computed.
    preserving = schedules.preserves_variance(schedule)
    if parameterization.needs_variance_preserving and not preserving:
        raise ValueError(
            "V: a schedule with alpha^2 + sigma^2 = 1 is required, got "
            f"{type(schedule).__name__}. Use EPS or X with it."
        )


def network_input(
    z: Float[Array, "B *data"],
    level: noise.NoiseLevel,
    schedule: schedules.NoiseSchedule,
) -> Float[Array, "B *data"]:
    """z at the size that networks are made for: z / sqrt(alpha^2 + sigma^2).

    That has unit variance for data of unit variance (c_in of Karras et al. 2022, table
    1, where alpha is 1). On a schedule that preserves variance it is z itself, to the
    bit.
    """
    # Paper silent: Song et al. 2021 give their networks the z of sigma = 50 as it is.
    if schedules.preserves_variance(schedule):
        return z
    _, alpha, sigma = noise.broadcast(level, z)
    return z * lax.rsqrt(jnp.square(alpha) + jnp.square(sigma))


def _require_variance_preserving(level: noise.NoiseLevel) -> None:
    try:
        preserving = noise.is_variance_preserving(level)
    except jax.errors.TracerArrayConversionError:
        return  # Under jit the numbers are not known; `check` looks at the schedule.
    if not preserving:
        raise ValueError(
            f"V: alpha^2 + sigma^2 = 1 is required, got alpha {level.alpha} and sigma "
            f"{level.sigma}. Use EPS or X with such levels."
        )
