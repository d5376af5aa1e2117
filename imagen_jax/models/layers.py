"""Flax layers with their logical axes: the one file of models/ that says so.

Each kernel names its axes ("embed", "mlp", ...); `imagen_jax.partitioning` maps
the names to mesh axes. The functions return ordinary Flax modules, so a parameter's
path is the `name` given here and nothing more.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import spmd
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from imagen_jax.types import Array

# Variance-scaling with fan-in and a normal of unit truncated variance is Flax's and
# T5's default; zero starts residual branches as the identity.
# What is kept for the backward pass: everything, the inputs of blocks, or the inputs of
# levels, whose blocks are then computed up to three times.
REMAT = ("none", "block", "full")

ACTIVATIONS = {"silu": nn.silu, "gelu": partial(nn.gelu, approximate=False)}

default_init = nn.initializers.lecun_normal()
zeros_init = nn.initializers.zeros_init()


def check_remat(remat: str) -> str:
    """`remat` itself.

    Raises:
      ValueError: unless it is one of `REMAT`.
    """
    if remat not in REMAT:
        raise ValueError(f"remat: must be one of {REMAT}, got {remat!r}.")
    return remat


def partitioned(init, *axes: str | None):
    """An initializer whose result carries the logical axis names `axes`."""
    return nn.with_logical_partitioning(init, axes)


def constrain(x: Array, *axes: str | None) -> Array:
    """Ask for a sharding of an activation by logical axis names.

    Outside a mesh it does nothing. An axis whose size its mesh axes do not divide
    stays whole: a batch of one, the few rows of the deepest level. Rows are split only
    where the array leaves no other mesh axis unused: XLA's partitioner (jax 0.10.2)
    multiplies convolutions, or their gradients, of an image split by rows and repeated
    along another axis by that axis' size.
    """
    mesh = jax.sharding.get_abstract_mesh()
    rules = nn.get_logical_axis_rules()
    if mesh.empty or not rules:
        return x
    spec = []
    used: set[str] = set()
    for size, names in zip(
        x.shape, spmd.logical_to_mesh_axes(axes, rules) or (), strict=True
    ):
        parts = (names,) if isinstance(names, str) else names or ()
        ways = math.prod(mesh.shape.get(part, 1) for part in parts)
        spec.append(names if size % ways == 0 else None)
        used.update(parts if size % ways == 0 else ())
    unused = {name for name, size in mesh.shape.items() if size > 1} - used
    if "height" in axes and unused:
        spec[axes.index("height")] = None
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def constrain_image(x: Array) -> Array:
    """`constrain` for a feature map [B, H, W, C]."""
    return constrain(x, "batch", "height", "width", "act_embed")


def stored(params, dtype: DTypeLike):
    """Parameters with kernels and tables in `dtype`, as layers of that dtype read them.

    What is small or summed in float32 (biases, norms, T5's position bias) stays.
    """

    def one(path, a):
        large = path[-1].key in ("kernel", "embedding")
        return a.astype(dtype) if large else a

    return jax.tree_util.tree_map_with_path(one, params)


def gathered(kernel: Array, axes: tuple[str | None, ...]) -> Array:
    """A kernel that lies in parts on the devices of the batch, whole for its use.

    Fully sharded data parallelism said aloud: the kernel is gathered before its product
    and its gradient summed straight into its parts. Left alone, XLA's partitioner turns
    such products into rings of collective permutes. Splits over other mesh axes than
    the batch's stay.

    Args:
      kernel: in the dtype of the product.
      axes: its logical axes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    rules = nn.get_logical_axis_rules()
    if mesh.empty or not rules:
        return kernel
    batch: Any = dict(rules)["batch"]
    names = spmd.logical_to_mesh_axes(axes, rules) or ()
    apart = [
        name if name and mesh.shape[name] > 1 and size % mesh.shape[name] == 0 else None
        for name, size in zip(names, kernel.shape, strict=True)
    ]
    whole = [None if name in batch else name for name in apart]
    if apart == whole:
        return kernel
    return _gather(kernel, PartitionSpec(*apart), PartitionSpec(*whole))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(kernel, apart: PartitionSpec, whole: PartitionSpec):
    kernel = jax.lax.with_sharding_constraint(kernel, apart)
    return jax.lax.with_sharding_constraint(kernel, whole)


def _gather_forward(kernel, apart, whole):
    return _gather(kernel, apart, whole), None


def _gather_backward(apart, whole, _, gradient):
    return (jax.lax.with_sharding_constraint(gradient, apart),)


_gather.defvjp(_gather_forward, _gather_backward)


def _with_gathered(product: Callable, axes: tuple[str | None, ...]) -> Callable:
    """A product (x, kernel, ...) whose kernel is gathered first."""

    def apply(x, kernel, *args, **kwargs):
        return product(x, gathered(kernel, axes), *args, **kwargs)

    return apply


def Dense(
    features: int,
    axes: tuple[str | None, str | None] = ("embed", "mlp"),
    *,
    name: str,
    dtype: DTypeLike = jnp.float32,
    use_bias: bool = True,
    kernel_init=default_init,
) -> nn.Dense:
    """A dense layer whose kernel [in, out] has the logical axes `axes`."""
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=partitioned(kernel_init, *axes),
        bias_init=partitioned(zeros_init, axes[1]),
        dot_general=_with_gathered(jax.lax.dot_general, axes),
        name=name,
    )


def Conv(
    features: int,
    kernel: int = 3,
    *,
    name: str,
    stride: int = 1,
    dtype: DTypeLike = jnp.float32,
    kernel_init=default_init,
    axes: tuple[str | None, str | None] = ("conv_in", "conv_out"),
) -> nn.Conv:
    """A square convolution with "SAME" padding; kernel [k, k, in, out]."""
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        dtype=dtype,
        kernel_init=partitioned(kernel_init, None, None, *axes),
        bias_init=partitioned(zeros_init, axes[1]),
        conv_general_dilated=_with_gathered(
            jax.lax.conv_general_dilated, (None, None, *axes)
        ),
        name=name,
    )


def Embed(
    size: int, features: int, *, name: str, dtype: DTypeLike = jnp.float32
) -> nn.Embed:
    """A table [size, features] of learned vectors."""
    return nn.Embed(
        size,
        features,
        dtype=dtype,
        embedding_init=partitioned(nn.initializers.normal(1.0), "vocab", "embed"),
        name=name,
    )


class GroupNorm(nn.Module):
    """Group normalisation; statistics in float32 whatever `dtype` is.

    As `nn.GroupNorm`, but from the sums of each channel, without an array of five
    axes: XLA's CPU backend reduces such sums faster.

    Attributes:
      num_groups: divides the channels.
      dtype: of the result.
      epsilon: added to the variance.
    """

    num_groups: int
    dtype: DTypeLike = jnp.float32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x):
        """[B, ..., C] -> the same shape."""
        channels = x.shape[-1]
        ones = partitioned(nn.initializers.ones_init(), "norm")
        scale: Any = self.param("scale", ones, (channels,))
        bias: Any = self.param("bias", partitioned(zeros_init, "norm"), (channels,))
        wide = x.astype(jnp.float32)
        axes = tuple(range(1, x.ndim - 1))

        def mean(a):
            a = a.mean(axes).reshape(-1, self.num_groups, channels // self.num_groups)
            return jnp.repeat(a.mean(-1), a.shape[-1], axis=-1)

        center = mean(wide)
        variance = jnp.maximum(mean(jnp.square(wide)) - jnp.square(center), 0.0)
        factor = jax.lax.rsqrt(variance + self.epsilon) * scale[None]
        offset = bias[None] - center * factor
        wide = wide * jnp.expand_dims(factor, axes) + jnp.expand_dims(offset, axes)
        return wide.astype(self.dtype)


def LayerNorm(
    *, name: str, dtype: DTypeLike = jnp.float32, epsilon: float = 1e-5
) -> nn.LayerNorm:
    """Layer normalisation over the last axis; statistics in float32."""
    return nn.LayerNorm(
        epsilon=epsilon,
        dtype=dtype,
        scale_init=partitioned(nn.initializers.ones_init(), "norm"),
        bias_init=partitioned(zeros_init, "norm"),
        name=name,
    )


def RMSNorm(
    *, name: str, dtype: DTypeLike = jnp.float32, epsilon: float = 1e-6
) -> nn.RMSNorm:
    """T5's normalisation: no mean, no bias; statistics in float32."""
    return nn.RMSNorm(
        epsilon=epsilon,
        dtype=dtype,
        scale_init=partitioned(nn.initializers.ones_init(), "norm"),
        name=name,
    )


def space_to_depth(x: Array, factor: int) -> Array:
    """[B, H, W, C] -> [B, H/f, W/f, f*f*C], exact and invertible."""
    b, h, w, c = x.shape
    if h % factor or w % factor:
        raise ValueError(
            f"space_to_depth: height and width must be multiples of {factor}, "
            f"got {h} x {w}."
        )
    x = x.reshape(b, h // factor, factor, w // factor, factor, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // factor, w // factor, -1)


def depth_to_space(x: Array, factor: int) -> Array:
    """The inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, factor, factor, c // factor**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * factor, w * factor, -1)


def average_pool(x: Array, side: int = 2) -> Array:
    """[B, H, W, C] -> [B, H/side, W/side, C], the mean of each square."""
    b, h, w, c = x.shape
    return x.reshape(b, h // side, side, w // side, side, c).mean((2, 4))


def nearest_up(x: Array) -> Array:
    """[B, H, W, C] -> [B, 2H, 2W, C], each pixel four times."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def residual(x: Array, h: Array, scaled: bool | float) -> Array:
    """x + h; over sqrt(2) if `scaled` (Song et al. 2021, appendix H).

    A number is the factor itself.
    """
    if isinstance(scaled, bool):
        scaled = 0.5**0.5 if scaled else 1.0
    return x + h if scaled == 1.0 else (x + h) * scaled


def groups(channels: int) -> int:
    """Groups of a GroupNorm: 32, or fewer so that each has four channels or more.

    A power of two that divides `channels`. Smaller groups would take each channel's
    own mean away, which narrow networks need.
    """
    return math.gcd(32, channels, 2 ** max(0, (channels // 4).bit_length() - 1))
