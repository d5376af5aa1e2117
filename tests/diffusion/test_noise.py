import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion import noise

LOGSNR = jnp.linspace(-20.0, 20.0, 401)


def test_variance_is_preserved():
    _, alpha, sigma = noise.variance_preserving(LOGSNR)
    # Two roundings of float32 numbers of order one.
    np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, atol=3e-7)


def test_alpha_and_sigma_are_precise_at_both_ends():
    _, alpha, sigma = noise.variance_preserving(LOGSNR)
    logsnr = np.asarray(LOGSNR, np.float64)
    np.testing.assert_allclose(alpha, (1 + np.exp(-logsnr)) ** -0.5, rtol=2e-6)
    np.testing.assert_allclose(sigma, (1 + np.exp(logsnr)) ** -0.5, rtol=2e-6)


def test_exploding_levels_have_alpha_one():
    logsnr, alpha, sigma = noise.variance_exploding(jnp.array([0.01, 1.0, 50.0]))
    np.testing.assert_array_equal(alpha, 1.0)
    np.testing.assert_allclose(logsnr, -2 * np.log(sigma), rtol=1e-6)


def test_only_preserving_levels_are_called_preserving():
    assert noise.is_variance_preserving(noise.variance_preserving(LOGSNR))
    assert not noise.is_variance_preserving(noise.variance_exploding(jnp.ones(2)))


def test_broadcast_levels_multiply_data_example_by_example():
    level = noise.variance_exploding(jnp.array([2.0, 3.0]))
    data = jnp.ones((2, 4, 5, 3))
    scaled = noise.broadcast(level, data).sigma * data
    np.testing.assert_array_equal(scaled[0], 2.0)
    np.testing.assert_array_equal(scaled[1], 3.0)


def test_cosine_time_inverts_the_unclipped_cosine():
    t = jnp.linspace(0.01, 0.99, 99)
    level = noise.variance_preserving(-2 * jnp.log(jnp.tan(0.5 * jnp.pi * t)))
    np.testing.assert_allclose(noise.cosine_time(level), t, atol=1e-6)


def test_noise_of_an_example_depends_on_its_key_only():
    keys = jax.random.split(jax.random.key(0), 4)
    together = noise.normal(keys, (4, 3, 3, 2))
    alone = noise.normal(keys[2:3], (1, 3, 3, 2))
    np.testing.assert_array_equal(together[2:3], alone)


def test_a_wrong_number_of_keys_is_refused():
    with pytest.raises(ValueError, match="one per example"):
        noise.normal(jax.random.split(jax.random.key(0), 3), (4, 2))
