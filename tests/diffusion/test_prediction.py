import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion import noise, prediction, process, schedules

ALL = [prediction.EPS, prediction.X, prediction.V]
LEVEL = noise.variance_preserving(jnp.array([-20.0, -3.0, 0.0, 3.0, 20.0]))


@pytest.fixture
def drawn():
    x = jax.random.uniform(jax.random.key(0), (5, 4, 4, 3), minval=-1.0)
    z, eps = process.diffuse(jax.random.key(1), x, LEVEL)
    return x, eps, z


@pytest.mark.parametrize("parameterization", ALL, ids=lambda p: p.name)
def test_a_perfect_output_gives_back_x_and_eps(parameterization, drawn):
    x, eps, z = drawn
    output = parameterization.target(x, eps, LEVEL)
    found = parameterization.predict(output, z, LEVEL)
    # z carries a rounding of 2e-7 or so; eps-prediction divides it by alpha, and
    # x-prediction by sigma, which no algebra can avoid.
    _, alpha, sigma = (np.asarray(f) for f in noise.broadcast(LEVEL, x))
    assert np.all(np.abs(found.x - x) * alpha < 1e-6)
    assert np.all(np.abs(found.eps - eps) * sigma < 1e-6)


@pytest.mark.parametrize("parameterization", ALL, ids=lambda p: p.name)
def test_x_and_eps_make_z_again_for_any_output(parameterization, drawn):
    _, _, z = drawn
    output = jax.random.normal(jax.random.key(2), z.shape).astype(jnp.bfloat16)
    x, eps, _ = parameterization.predict(output, z, LEVEL)
    assert x.dtype == eps.dtype == jnp.float32
    _, alpha, sigma = noise.broadcast(LEVEL, z)
    np.testing.assert_allclose(alpha * x + sigma * eps, z, atol=2e-6)


def test_v_is_precise_at_both_ends(drawn):
    x, eps, z = drawn
    v = prediction.V.target(x, eps, LEVEL)
    found = prediction.V.predict(v, z, LEVEL)
    np.testing.assert_allclose(found.x, x, atol=2e-6)
    np.testing.assert_allclose(found.eps, eps, atol=2e-6)


@pytest.mark.parametrize("parameterization", ALL, ids=lambda p: p.name)
def test_log_gain_relates_the_error_of_the_target_to_that_of_x(parameterization):
    level = noise.variance_preserving(jnp.array([-4.0, 0.0, 4.0]))
    z = jnp.zeros((3, 1))
    moved = parameterization.predict(jnp.ones((3, 1)), z, level).x
    still = parameterization.predict(jnp.zeros((3, 1)), z, level).x
    gain = 1.0 / np.square(moved - still)[:, 0]
    np.testing.assert_allclose(np.exp(parameterization.log_gain(level)), gain, 1e-5)


def test_eps_and_x_take_exploding_levels():
    level = noise.variance_exploding(jnp.array([0.5, 50.0]))
    x, eps = jnp.ones((2, 3)), jnp.full((2, 3), -2.0)
    z = x + level.sigma[:, None] * eps
    np.testing.assert_allclose(prediction.from_eps(eps, z, level).x, x, rtol=1e-5)
    np.testing.assert_allclose(prediction.from_x(x, z, level).eps, eps, rtol=1e-6)


def test_v_refuses_exploding_levels(exploding):
    level = noise.variance_exploding(jnp.array([0.5, 50.0]))
    z = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="alpha"):
        prediction.V.predict(z, z, level)
    with pytest.raises(ValueError, match="alpha"):
        prediction.V.target(z, z, level)
    with pytest.raises(ValueError, match="alpha"):
        jax.jit(lambda: prediction.check(prediction.V, exploding))()
    prediction.check(prediction.EPS, exploding)
    prediction.check(prediction.V, schedules.LinearSchedule())


def test_parameterizations_are_found_by_name():
    assert [prediction.by_name(n) for n in ("eps", "x", "v")] == ALL
    with pytest.raises(ValueError, match="epsilon"):
        prediction.by_name("epsilon")


def test_an_output_of_twice_the_channels_brings_a_variance():
    z = jnp.zeros((2, 4, 4, 3))
    output = jnp.concatenate([jnp.full(z.shape, 0.7), jnp.full(z.shape, -0.5)], axis=-1)
    mean, gamma = prediction.split(output, z)
    np.testing.assert_array_equal(mean, jnp.full(z.shape, 0.7))
    np.testing.assert_array_equal(gamma, jnp.full(z.shape, 0.25))
    alone, none = prediction.split(mean, z)
    assert none is None and alone is mean
    with pytest.raises(ValueError, match=r"must have 3 channels, or 6 .* got 4"):
        prediction.split(jnp.zeros((2, 4, 4, 4)), z)


def test_networks_see_unit_variance_whatever_the_schedule():
    key = jax.random.key(5)
    x = jax.random.normal(key, (5, 4096))
    t = jnp.linspace(0.0, 1.0, 5)
    for schedule in (schedules.ExplodingSchedule(), schedules.SubVPSchedule()):
        level = schedule(t)
        z, _ = process.diffuse(jax.random.key(6), x, level)
        seen = prediction.network_input(z, level, schedule)
        np.testing.assert_allclose(seen.std(axis=1), 1.0, atol=0.05)
    preserving = schedules.CosineSchedule()
    assert prediction.network_input(z, preserving(t), preserving) is z


def test_v_is_refused_on_both_schedules_that_do_not_preserve_variance():
    for schedule in (schedules.ExplodingSchedule(), schedules.SubVPSchedule()):
        with pytest.raises(ValueError, match=f"got {type(schedule).__name__}. Use EPS"):
            prediction.check(prediction.V, schedule)
        prediction.check(prediction.EPS, schedule)
