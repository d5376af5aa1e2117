import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import (
    guidance,
    noise,
    prediction,
    schedules,
    thresholding,
)

B = 3


class Model:
    """A network that reads its text, and counts its calls and its batch."""

    def __init__(self, parameterization=prediction.EPS):
        self.parameterization = parameterization
        self.batches = []

    def __call__(self, z, level, cond):
        self.batches.append(z.shape[0])
        said = jnp.sum(jnp.where(cond.mask[..., None], cond.tokens, 0.0), (1, 2))
        output = jnp.tanh(z * noise.expand(1.0 + said, z)) + noise.expand(said, z)
        return self.parameterization.predict(output, z, level)


@pytest.fixture
def inputs():
    keys = jax.random.split(jax.random.key(0), 2)
    z = jax.random.normal(keys[0], (B, 4, 4, 3))
    cond = Conditioning(
        tokens=jax.random.normal(keys[1], (B, 2, 5)), mask=jnp.ones((B, 2), bool)
    )
    return z, schedules.CosineSchedule()(jnp.array([0.9, 0.5, 0.1])), cond


def test_the_network_is_called_once_on_the_doubled_batch(inputs):
    model = Model()
    guidance.classifier_free(model, 3.0)(*inputs)
    assert model.batches == [2 * B]


def test_weight_one_is_the_conditional_model(inputs):
    for parameterization in (prediction.EPS, prediction.X, prediction.V):
        model = Model(parameterization)
        guided = guidance.classifier_free(model, 1.0)(*inputs)
        plain = model(*inputs)
        np.testing.assert_allclose(guided.eps, plain.eps, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(guided.x, plain.x, rtol=1e-6, atol=1e-6)


def test_weight_zero_is_the_unconditional_model(inputs):
    z, level, cond = inputs
    guided = guidance.classifier_free(Model(), 0.0)(z, level, cond)
    plain = Model()(z, level, cond.null())
    np.testing.assert_allclose(guided.eps, plain.eps, rtol=1e-6, atol=1e-6)


def test_eps_are_mixed_and_x_follows(inputs):
    z, level, cond = inputs
    x, eps, _ = guidance.classifier_free(Model(), 4.0)(z, level, cond)
    with_text, without = Model()(z, level, cond), Model()(z, level, cond.null())
    expected = 4.0 * with_text.eps - 3.0 * without.eps
    np.testing.assert_allclose(eps, expected, rtol=1e-5, atol=1e-5)
    again = prediction.from_eps(expected, z, level).x
    np.testing.assert_allclose(x, again, rtol=1e-4, atol=1e-5)


def test_the_weight_may_differ_by_example_and_by_level(inputs):
    z, level, cond = inputs
    by_example = guidance.classifier_free(Model(), jnp.array([1.0, 2.0, 5.0]))
    by_level = guidance.classifier_free(
        Model(), lambda level: jnp.where(level.logsnr < 0, 1.0, 5.0)
    )
    # The log-SNR of the examples is negative, zero to rounding, positive.
    five = guidance.classifier_free(Model(), 5.0)(z, level, cond)
    one = Model()(z, level, cond)
    for guided in (by_example, by_level):
        eps = guided(z, level, cond).eps
        np.testing.assert_allclose(eps[0], one.eps[0], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(eps[2], five.eps[2], rtol=1e-6, atol=1e-6)


def test_a_new_weight_does_not_recompile(inputs):
    model = Model()
    run = jax.jit(lambda w, *args: guidance.classifier_free(model, w)(*args))
    first, second = run(2.0, *inputs), run(3.0, *inputs)
    assert len(model.batches) == 1
    assert np.any(first.eps != second.eps)


def test_another_null_may_be_given(inputs):
    z, level, cond = inputs
    negative = dataclasses.replace(cond, tokens=-cond.tokens)
    guided = guidance.classifier_free(Model(), 2.0, negative)(z, level, cond)
    expected = 2.0 * Model()(z, level, cond).eps - Model()(z, level, negative).eps
    np.testing.assert_allclose(guided.eps, expected, rtol=1e-5, atol=1e-5)


def test_thresholded_predictions_are_in_range_and_make_z_again(inputs):
    z, level, cond = inputs
    bounded = guidance.thresholded(
        guidance.classifier_free(Model(), 8.0), thresholding.dynamic
    )
    x, eps, _ = bounded(z, level, cond)
    assert np.abs(x).max() <= 1.0
    _, alpha, sigma = noise.broadcast(level, z)
    np.testing.assert_allclose(alpha * x + sigma * eps, z, atol=1e-5)


def test_no_threshold_changes_nothing(inputs):
    plain = Model()(*inputs)
    same = guidance.thresholded(Model(), thresholding.none)(*inputs)
    np.testing.assert_array_equal(same.x, plain.x)
    np.testing.assert_allclose(same.eps, plain.eps, rtol=1e-4, atol=1e-5)


def test_a_learned_variance_is_the_conditional_models_and_survives_the_threshold(
    inputs,
):
    z, level, cond = inputs
    model = Model()

    def learned(z, level, cond):
        found = model(z, level, cond)
        return found._replace(gamma=jnp.tanh(found.eps))

    expected = learned(z, level, cond).gamma
    guided = guidance.classifier_free(learned, 4.0)
    bounded = guidance.thresholded(guided, thresholding.static)
    for denoiser in (guided, bounded):
        np.testing.assert_allclose(denoiser(z, level, cond).gamma, expected, atol=1e-6)
    # Else the test says nothing.
    assert np.abs(learned(z, level, cond.null()).gamma - expected).max() > 0.1
