import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import losses, noise, prediction, schedules

ALL = [prediction.EPS, prediction.X, prediction.V]
COSINE = schedules.CosineSchedule()


@pytest.mark.parametrize("parameterization", ALL, ids=lambda p: p.name)
@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_equals_its_formula(parameterization, gamma):
    logsnr = np.linspace(-20.0, 20.0, 81)
    snr = np.exp(logsnr)
    clipped = np.minimum(snr, gamma)
    expected = {"eps": clipped / snr, "x": clipped, "v": clipped / (snr + 1.0)}
    level = noise.variance_preserving(jnp.asarray(logsnr, jnp.float32))
    found = losses.min_snr(gamma)(level, parameterization)
    # float32 rounds a log-SNR of 20 by 1e-6.
    np.testing.assert_allclose(found, expected[parameterization.name], rtol=5e-6)


def test_truncated_snr_is_clipped_at_both_ends():
    logsnr = np.linspace(-20.0, 20.0, 81)
    level = noise.variance_preserving(jnp.asarray(logsnr, jnp.float32))
    found = losses.truncated_snr(5.0)(level, prediction.X)
    np.testing.assert_allclose(found, np.clip(np.exp(logsnr), 1.0, 5.0), rtol=5e-6)


@pytest.mark.parametrize("weight", [losses.min_snr(), losses.truncated_snr()])
def test_it_is_one_weight_on_the_error_of_x(weight):
    level = noise.variance_preserving(jnp.linspace(-6.0, 6.0, 13))
    on_x = [weight(level, p) * jnp.exp(p.log_gain(level)) for p in ALL]
    np.testing.assert_allclose(on_x[0], on_x[1], rtol=1e-5)
    np.testing.assert_allclose(on_x[2], on_x[1], rtol=1e-5)


@pytest.mark.parametrize("parameterization", ALL, ids=lambda p: p.name)
def test_a_perfect_network_has_no_loss(parameterization):
    x = jnp.full((4, 5, 5, 3), 0.25)

    def perfect(z, level, cond):
        eps = prediction.from_x(x, z, level).eps
        return parameterization.target(x, eps, level)

    loss = losses.diffusion_loss(
        jax.random.key(0),
        x,
        Conditioning(),
        perfect,
        COSINE,
        parameterization=parameterization,
    )
    assert loss.shape == (4,)
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)


def test_a_silent_network_loses_the_variance_of_the_noise():
    def silent(z, level, cond):
        return jnp.zeros_like(z, jnp.bfloat16)

    loss = losses.diffusion_loss(
        jax.random.key(0),
        jnp.zeros((4, 50, 50, 3)),
        Conditioning(),
        silent,
        COSINE,
        parameterization=prediction.EPS,
    )
    assert loss.dtype == jnp.float32
    # 7,500 squared normals: a standard error of 1.6 %.
    np.testing.assert_allclose(loss, 1.0, atol=0.08)


def test_the_gradient_of_a_biased_network_points_back():
    x = jnp.full((8, 4, 4, 3), 0.25)

    def mean_loss(bias):
        def network(z, level, cond):
            return x + bias

        return losses.diffusion_loss(
            jax.random.key(0),
            x,
            Conditioning(),
            network,
            COSINE,
            parameterization=prediction.X,
        ).mean()

    # d/db of b^2 at 0.5.
    np.testing.assert_allclose(jax.jit(jax.grad(mean_loss))(0.5), 1.0, rtol=1e-5)


def test_stratified_times_are_spread_over_the_batch():
    t = losses.times(jax.random.key(0), 64, stratified=True)
    assert np.all((t >= 0.0) & (t < 1.0))
    np.testing.assert_allclose(np.diff(np.sort(t)), 1 / 64, atol=1e-6)


def test_times_are_uniform():
    t = np.asarray(losses.times(jax.random.key(0), 4096))
    np.testing.assert_allclose([t.mean(), t.std()], [0.5, 12**-0.5], atol=0.02)


def test_v_on_an_exploding_schedule_is_refused(exploding):
    with pytest.raises(ValueError, match="alpha"):
        jax.eval_shape(
            lambda key: losses.diffusion_loss(
                key,
                jnp.zeros((2, 4)),
                Conditioning(),
                lambda z, level, cond: z,
                exploding,
                parameterization=prediction.V,
            ),
            jax.random.key(0),
        )


def test_a_bad_gamma_is_refused():
    with pytest.raises(ValueError, match="gamma"):
        losses.min_snr(0.0)
    with pytest.raises(ValueError, match="floor must lie in"):
        losses.MinSNR(gamma=5.0, floor=6.0)


def test_a_learned_variance_is_left_alone():
    x = jnp.full((4, 5, 5, 3), 0.25)
    arguments = (jax.random.key(0), x, Conditioning())

    def loss(variance):
        def output(z, level, cond):
            return jnp.concatenate([0.1 * z, variance + z], axis=-1)

        return losses.diffusion_loss(
            *arguments, output, COSINE, parameterization=prediction.EPS
        ).sum()

    value, gradient = jax.value_and_grad(loss)(jnp.zeros(()))
    plain = losses.diffusion_loss(
        *arguments, lambda z, *_: 0.1 * z, COSINE, parameterization=prediction.EPS
    ).sum()
    np.testing.assert_allclose(value, plain, rtol=1e-6)
    assert gradient == 0


def test_weights_are_found_by_name():
    assert losses.by_name("uniform") is losses.uniform
    assert losses.by_name("min_snr") == losses.min_snr()
    assert losses.by_name("truncated_snr") == losses.truncated_snr()
    with pytest.raises(ValueError, match=r"Weight: must be one of .* got 'snr'"):
        losses.by_name("snr")
