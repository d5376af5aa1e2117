"""Keeping the colours of the picture that super-resolution starts from."""

import jax.numpy as jnp

from imagen_jax.cascade import images
from imagen_jax.diffusion import augmentation, prediction
from imagen_jax.types import Array, Float


def matched(
    denoiser: prediction.Denoiser,
    low_res: Float[Array, "B h w C"],
    width: float | Array,
) -> prediction.Denoiser:
    """Adds to x what its own shrunken picture lacks of `low_res`, blurred, enlarged.

    x + up(blur(low_res - down(x))): super-resolution that drifts in colour, as it does
    where few steps or tiles are used, keeps its details and gets the low frequencies of
    its input. StableSR exchanges them at the end (Wang et al. 2023, colour correction);
    here it is done at every step, as in ILVR (Choi et al. 2021), the last of which is
    the picture.

    Args:
      denoiser: (z, level, cond) -> Prediction, around guidance and thresholding.
      low_res: the clean picture that the stage enlarges, in [-1, 1].
      width: of the blur, the standard deviation of a Gaussian in low-resolution pixels.
        0 matches every low-resolution pixel, a few match the colours of regions, much
        more than the picture its mean colour alone.
    """

    def corrected(z, level, cond):
        found = denoiser(z, level, cond)
        lacking = low_res - images.resize(found.x, (low_res.shape[1], low_res.shape[2]))
        widths = jnp.broadcast_to(jnp.asarray(width, jnp.float32), z.shape[:1])
        lacking = augmentation.blur(lacking, widths)
        x = found.x + images.resize(lacking, (z.shape[1], z.shape[2]))
        return prediction.from_x(x, z, level)._replace(gamma=found.gamma)

    return corrected
