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
