"""Pictures between files and networks: uint8 and float, small and large."""

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.types import Array, Float, UInt8, typechecked


@typechecked
def to_float(image: UInt8[Array, "*B H W C"]) -> Float[Array, "*B H W C"]:
    """uint8 in [0, 255] to float32 in [-1, 1] (Saharia et al. 2022, section 2.3)."""
    return image.astype(jnp.float32) / 127.5 - 1.0


@typechecked
def to_uint8(x: Float[Array, "*B H W C"]) -> UInt8[Array, "*B H W C"]:
    """Float in [-1, 1] to uint8, rounded; values outside are clipped."""
    return jnp.round((jnp.clip(x, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)


def resize(
    x: Float[Array, "B H W C"], size: tuple[int, int], kernel: str = "cubic"
) -> Array:
    """Resize float images to (height, width), antialiased when shrinking.

    The one resize of the package: it makes the low-resolution input in training, and
    brings it to a stage's resolution in training and sampling alike.
    """
    if x.shape[1:3] == tuple(size):
        return x
    # Paper silent: the kernel. Bicubic as in GLIDE and NeMo.
    shape = (x.shape[0], *size, x.shape[3])
    return jax.image.resize(x, shape, kernel, antialias=True)


def enlarge_aligned(x: Float[Array, "B H W C"], size: tuple[int, int]) -> Array:
    """Enlarge float images bilinearly, the corners' centres staying corners.

    DeepFloyd IF's; torch calls it `align_corners=True`.
    """

    def weights(small: int, large: int) -> np.ndarray:
        places = np.arange(large) * ((small - 1) / max(large - 1, 1))
        return np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(small)[None]))

    height, width = x.shape[1:3]
    rows = weights(height, size[0]).astype(np.float32)
    columns = weights(width, size[1]).astype(np.float32)
    high = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ih,bhwc->biwc", rows, x, precision=high)
    return jnp.einsum("jw,biwc->bijc", columns, x, precision=high)
