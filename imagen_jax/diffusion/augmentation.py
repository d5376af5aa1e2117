"""Noise conditioning augmentation of the low-resolution picture."""

from imagen_jax.diffusion import noise, process
from imagen_jax.types import Array, Float, Key, typechecked


@typechecked
def augment(
    key: Key[Array, "*keys"], low_res: Float[Array, "B *data"], level: noise.NoiseLevel
) -> Float[Array, "B *data"]:
    """alpha low_res + sigma n, with n ~ N(0, I) (Saharia et al. 2022, section 2.4).

    In training the level is that of aug_level ~ U(0, 1), independent of t; in sampling
    aug_level is fixed and the picture is noised once, before the first step. The
    network is told aug_level. One key, or one per example [B]. Float32.
    """
    # Paper silent: which schedule turns aug_level into noise. The caller's level
    # decides; Stage takes the cosine schedule.
    noisy, _ = process.diffuse(key, low_res, level)
    return noisy
