import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.diffusion import noise, schedules
from tests import deepfloyd

ALL = [
    schedules.CosineSchedule(),
    schedules.LinearSchedule(),
    schedules.ShiftedCosineSchedule(resolution=256),
]
T = jnp.linspace(0.0, 1.0, 1001)


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_logsnr_decreases_with_t_and_is_finite(schedule):
    level = schedule(T)
    assert np.all(np.diff(level.logsnr) < 0)
    assert all(np.all(np.isfinite(field)) for field in level)
    assert noise.is_variance_preserving(level)


def test_cosine_equals_its_formula_in_float64():
    t = np.asarray(T, np.float64)
    first, last = np.arctan(np.exp([-10.0, 10.0]))
    expected = -2 * np.log(np.tan(first + t * (last - first)))
    # t itself carries a float32 rounding, which the tangent magnifies little.
    np.testing.assert_allclose(ALL[0](T).logsnr, expected, atol=2e-5)


def test_cosine_ends_at_its_limits():
    logsnr = schedules.CosineSchedule(logsnr_min=-15.0, logsnr_max=12.0)(T).logsnr
    np.testing.assert_allclose([logsnr[0], logsnr[-1]], [12.0, -15.0], atol=1e-5)


def test_cosine_time_inverts_the_cosine_schedule():
    # The cut at +-20 moves the ends by arctan(exp(-10)) = 4.5e-5.
    np.testing.assert_allclose(noise.cosine_time(ALL[0](T)), T, atol=5e-5)


def test_linear_is_the_continuous_twin_of_ddpm():
    alpha_squared = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    logsnr = np.log(alpha_squared / (1 - alpha_squared))
    t = np.arange(1, 1001) / 1000
    twin = schedules.LinearSchedule()(jnp.asarray(t, jnp.float32)).logsnr
    # The sum of log(1 - beta) and the integral of beta differ by beta^2 / 2 a step,
    # and the first few steps by where in the step beta is taken.
    np.testing.assert_allclose(twin, logsnr, atol=0.12)
    np.testing.assert_allclose(twin[-1], -10.05, atol=0.01)


def test_linear_is_capped_at_zero():
    level = schedules.LinearSchedule(logsnr_max=12.0)(jnp.zeros(1))
    np.testing.assert_allclose(level.logsnr, 12.0, rtol=1e-6)


def test_a_shifted_picture_averaged_down_is_as_noisy_as_a_small_one():
    # The mean of 4 x 4 pixels has the noise's variance divided by 16.
    _, alpha, sigma = schedules.ShiftedCosineSchedule(resolution=256)(T)
    small = schedules.CosineSchedule()(T)
    snr_of_mean = alpha**2 / (sigma**2 / 16)
    np.testing.assert_allclose(np.log(snr_of_mean), small.logsnr, atol=1e-4)


def test_schedules_are_hashable_and_compare_by_value():
    assert hash(schedules.CosineSchedule()) == hash(schedules.CosineSchedule())
    assert schedules.LinearSchedule() == schedules.LinearSchedule()


def test_bad_limits_are_refused():
    with pytest.raises(ValueError, match="logsnr_min"):
        schedules.CosineSchedule(logsnr_min=5.0, logsnr_max=-5.0)
    with pytest.raises(ValueError, match="positive"):
        schedules.ShiftedCosineSchedule(resolution=0)
    with pytest.raises(ValueError, match="beta_min"):
        schedules.LinearSchedule(beta_min=0.0)


def test_discrete_levels_are_those_of_diffusers():
    # The cosine's betas are rounded alike; linear ones are spaced in float32 there, and
    # a thousand roundings are in the product.
    steps = jnp.arange(1000, dtype=jnp.float32) / 1000
    for row, betas in enumerate(schedules.BETAS):
        tolerance = 3e-7 if betas == "squaredcos_cap_v2" else 2e-6
        level = schedules.DiscreteSchedule(betas=betas)(steps)
        squared = deepfloyd.GOLDEN["alphas"][row].astype(np.float64)
        np.testing.assert_allclose(level.alpha, np.sqrt(squared), rtol=tolerance)
        np.testing.assert_allclose(level.sigma, np.sqrt(1 - squared), rtol=tolerance)
        logsnr = np.log(squared / (1 - squared))
        np.testing.assert_allclose(level.logsnr, logsnr, rtol=tolerance, atol=tolerance)


def test_a_discrete_level_knows_its_time():
    schedule = schedules.DiscreteSchedule()
    t = jnp.arange(1000, dtype=jnp.float32) / 1000
    np.testing.assert_array_equal(schedule.time(schedule(t)), t)
    # Between two steps the nearer one; beyond the ends, the end.
    logsnr = schedule(t).logsnr
    near = noise.variance_preserving(
        logsnr[jnp.array([3, 500])] + jnp.array([0.0, 1e-3])
    )
    np.testing.assert_array_equal(schedule.time(near), t[jnp.array([3, 500])])
    ends = noise.variance_preserving(jnp.array([30.0, -30.0]))
    np.testing.assert_array_equal(schedule.time(ends), t[jnp.array([0, 999])])


def test_discrete_time_is_a_step_up_to_the_next():
    schedule = schedules.DiscreteSchedule(steps=10, betas="linear")
    t = jnp.array([0.0, 0.09, 0.3, 0.39, 1.0], jnp.float32)
    found = schedule.time(schedule(t)) * 10
    np.testing.assert_allclose(found, [0, 0, 3, 3, 9], atol=1e-5)


def test_discrete_tables_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"betas must be one of .*'sigmoid'"):
        schedules.DiscreteSchedule(betas="sigmoid")
    with pytest.raises(ValueError, match="steps must be >= 1"):
        schedules.DiscreteSchedule(steps=0)
    with pytest.raises(ValueError, match="beta_first <= beta_last"):
        schedules.DiscreteSchedule(betas="linear", beta_first=0.5)


def test_the_exploding_schedule_is_geometric():
    logsnr, alpha, sigma = schedules.ExplodingSchedule()(T)
    expected = 0.01 * 5000.0 ** np.asarray(T, np.float64)
    np.testing.assert_allclose(sigma, expected, rtol=1e-5)
    np.testing.assert_array_equal(alpha, 1.0)
    np.testing.assert_allclose(logsnr, -2.0 * np.log(expected), atol=1e-5)


def test_the_sub_vp_schedule_has_the_linear_ones_alpha_and_its_own_noise():
    logsnr, alpha, sigma = schedules.SubVPSchedule()(T)
    linear = schedules.LinearSchedule()(T)
    np.testing.assert_allclose(alpha[1:], linear.alpha[1:], rtol=1e-5)
    np.testing.assert_allclose(sigma, 1.0 - np.square(alpha, dtype=np.float64), 2e-3)
    np.testing.assert_allclose(logsnr, np.log(np.square(alpha / sigma)), atol=1e-4)
    # Always less noise than the preserving SDE's.
    assert np.all(np.asarray(sigma)[1:] < np.asarray(linear.sigma)[1:])
    np.testing.assert_allclose(logsnr[0], 20.0, atol=1e-4)
    assert np.all(np.diff(logsnr) < 0)


def test_schedules_know_whether_they_preserve_variance():
    kept = {
        name: schedules.preserves_variance(kind(**more))
        for name, kind in schedules.KINDS.items()
        for more in [{"resolution": 64} if name == "shifted_cosine" else {}]
    }
    assert [name for name, keeps in kept.items() if not keeps] == ["sub_vp", "ve"]


def test_bad_limits_of_the_score_sdes_are_refused():
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        schedules.ExplodingSchedule(sigma_min=1.0, sigma_max=0.5)
    with pytest.raises(ValueError, match="SubVPSchedule: 0 < beta_min"):
        schedules.SubVPSchedule(beta_min=-1.0)
