import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion import noise, process

LEVELS = {
    "preserving": (
        noise.variance_preserving(jnp.array([-20.0, -5.0, 0.0, 19.0])),
        noise.variance_preserving(jnp.array([-12.0, -4.9, 3.0, 20.0])),
    ),
    "exploding": (
        noise.variance_exploding(jnp.array([50.0, 3.0, 0.5, 0.011])),
        noise.variance_exploding(jnp.array([20.0, 2.9, 0.1, 0.010])),
    ),
}
each_kind = pytest.mark.parametrize("kind", LEVELS)


def float64(level):
    return [np.asarray(field, np.float64) for field in level]


def test_z_has_the_moments_of_the_forward_process():
    level = noise.variance_preserving(jnp.array([-3.0, 0.0, 3.0]))
    x = jnp.full((3, 100, 100, 2), 0.7)
    z, eps = process.diffuse(jax.random.key(0), x, level)
    # 20,000 samples: standard errors of 0.7 % and 0.5 %.
    np.testing.assert_allclose(z.mean((1, 2, 3)), 0.7 * level.alpha, atol=0.03)
    np.testing.assert_allclose(z.std((1, 2, 3)), level.sigma, rtol=0.03)
    _, alpha, sigma = noise.broadcast(level, x)
    np.testing.assert_array_equal(z, alpha * x + sigma * eps)


@each_kind
def test_posterior_is_bayes_rule_in_float64(kind):
    level_t, level_s = LEVELS[kind]
    rng = np.random.default_rng(0)
    x, z_t = rng.standard_normal((2, 4, 5)).astype(np.float32)
    mean, var_min, var_max = process.posterior(
        jnp.asarray(z_t), jnp.asarray(x), level_t, level_s
    )
    # q(z_s | x) = N(alpha_s x, sigma_s^2), q(z_t | z_s) = N(a z_s, s2); multiply.
    _, alpha_t, sigma_t = float64(level_t)
    _, alpha_s, sigma_s = float64(level_s)
    a = alpha_t / alpha_s
    s2 = sigma_t**2 - a**2 * sigma_s**2
    variance = 1 / (1 / sigma_s**2 + a**2 / s2)
    expected = (alpha_s / sigma_s**2)[:, None] * x + (a / s2)[:, None] * z_t
    # 1 - exp(logsnr_t - logsnr_s) of neighbours 0.1 apart keeps five digits.
    np.testing.assert_allclose(var_min, variance, rtol=5e-5)
    np.testing.assert_allclose(var_max, s2, rtol=5e-5)
    np.testing.assert_allclose(mean, variance[:, None] * expected, rtol=1e-4, atol=1e-5)


@each_kind
def test_posterior_leads_back_to_the_forward_process(kind):
    # With z_t = alpha_t x + sigma_t eps, z_s must again be N(alpha_s x, sigma_s^2).
    level_t, level_s = LEVELS[kind]
    zero, one = jnp.zeros((4, 1)), jnp.ones((4, 1))
    along_x, var_min, _ = process.posterior(
        level_t.alpha[:, None], one, level_t, level_s
    )
    along_eps, _, _ = process.posterior(level_t.sigma[:, None], zero, level_t, level_s)
    np.testing.assert_allclose(along_x[:, 0], level_s.alpha, rtol=1e-5)
    np.testing.assert_allclose(
        along_eps[:, 0] ** 2 + var_min, level_s.sigma**2, rtol=1e-5
    )


def test_no_step_changes_nothing():
    level, _ = LEVELS["preserving"]
    z = jax.random.normal(jax.random.key(0), (4, 5))
    mean, var_min, var_max = process.posterior(z, 3 * z, level, level)
    np.testing.assert_array_equal(mean, z)
    np.testing.assert_array_equal(var_min, 0.0)
    np.testing.assert_array_equal(var_max, 0.0)
