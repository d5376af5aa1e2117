import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.diffusion import augmentation, schedules


def test_level_zero_leaves_the_picture_and_level_one_only_noise():
    low_res = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1.0)
    level = schedules.CosineSchedule()(jnp.array([0.0, 1.0]))
    noisy = augmentation.augment(jax.random.key(1), low_res, level)
    np.testing.assert_allclose(noisy[0], low_res[0], atol=5e-4)
    other = augmentation.augment(jax.random.key(1), -low_res, level)
    np.testing.assert_allclose(noisy[1], other[1], atol=5e-4)


def test_unit_variance_is_preserved():
    low_res = jax.random.normal(jax.random.key(0), (1, 100, 100, 3))
    level = schedules.CosineSchedule()(jnp.array([0.3]))
    noisy = augmentation.augment(jax.random.key(1), low_res, level)
    np.testing.assert_allclose(noisy.std(), 1.0, rtol=0.02)


def test_one_key_per_example_makes_examples_independent_of_the_batch():
    keys = jax.random.split(jax.random.key(0), 3)
    low_res = jnp.zeros((3, 4, 4, 3))
    level = schedules.CosineSchedule()(jnp.full(3, 0.2))
    together = augmentation.augment(keys, low_res, level)
    one = jax.tree.map(lambda a: a[1:2], level)
    alone = augmentation.augment(keys[1:2], low_res[1:2], one)
    np.testing.assert_array_equal(together[1:2], alone)


def test_blur_is_a_gaussian_of_each_pictures_own_width():
    point = jnp.zeros((3, 33, 33, 1)).at[:, 16, 16].set(1.0)
    sigma = np.array([0.0, 0.8, 1.5], np.float32)
    blurred = np.asarray(augmentation.blur(point, jnp.asarray(sigma)))
    np.testing.assert_array_equal(blurred[0], point[0])
    offsets = np.arange(33) - 16
    for i in (1, 2):
        line = np.exp(-0.5 * (offsets / sigma[i]) ** 2)
        line /= line.sum()
        np.testing.assert_allclose(blurred[i, ..., 0], np.outer(line, line), atol=1e-6)


def test_blur_keeps_what_is_flat_up_to_the_border():
    flat = jnp.full((1, 6, 9, 3), 0.7)
    blurred = augmentation.blur(flat, jnp.array([1.2]))
    np.testing.assert_allclose(blurred, flat, atol=1e-6)
