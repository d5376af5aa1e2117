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
    sampler,
    schedules,
    solvers,
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


def weaker(z, level, cond):
    """Another network told the same."""
    found = Model()(0.5 * z, level, cond)
    return prediction.from_x(0.7 * found.x, z, level)


def stds(x):
    return np.asarray(x).std((1, 2, 3))


CORRECTIONS = (
    guidance.PLAIN,
    guidance.Correction(eta=0.0),
    guidance.Correction(eta=0.3, norm=1.0),
    guidance.Correction(rescale=0.7),
)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_weight_one_is_the_models_x_to_the_bit_under_any_correction(inputs, correction):
    z, level, cond = inputs
    plain = Model()(z, level, cond).x
    for guided in (
        guidance.auto(Model(), weaker, 1.0, correction),
        guidance.classifier_free(Model(), 1.0, None, correction),
        guidance.combined(Model(), 1.0, weaker, 1.0, None, correction),
    ):
        np.testing.assert_array_equal(guided(z, level, cond).x, plain)


def test_rescaling_takes_the_standard_deviation_of_the_conditional_x(inputs):
    z, level, cond = inputs
    plain = Model()(z, level, cond)
    whole, none, part = (
        guidance.classifier_free(Model(), 6.0, None, guidance.Correction(rescale=phi))(
            z, level, cond
        )
        for phi in (1.0, 0.0, 0.7)
    )
    guided = guidance.classifier_free(Model(), 6.0)(z, level, cond)
    assert (np.abs(stds(guided.x) / stds(plain.x) - 1.0) > 0.05).all()
    np.testing.assert_allclose(stds(whole.x), stds(plain.x), rtol=1e-5)
    np.testing.assert_allclose(none.x, guided.x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        part.x, 0.7 * whole.x + 0.3 * none.x, rtol=1e-4, atol=1e-4
    )


def test_apg_with_eta_one_and_no_norm_is_plain_guidance(inputs):
    guided = guidance.classifier_free(Model(), 5.0)(*inputs)
    for correction in (
        guidance.Correction(eta=1.0),
        guidance.Correction(eta=1.0, norm=1e6),
    ):
        same = guidance.classifier_free(Model(), 5.0, None, correction)(*inputs)
        np.testing.assert_allclose(same.x, guided.x, rtol=1e-4, atol=1e-4)


def test_apg_drops_what_is_along_x_and_bounds_what_is_across(inputs):
    z, level, cond = inputs
    plain = np.asarray(Model()(z, level, cond).x).reshape(B, -1)
    other = np.asarray(Model()(z, level, cond.null()).x).reshape(B, -1)

    def change(w=3.0, **correction):
        x = guidance.classifier_free(
            Model(), w, None, guidance.Correction(**correction)
        )(z, level, cond).x
        return (np.asarray(x).reshape(B, -1) - plain) / (w - 1.0)

    across = change(eta=0.0)
    scale = np.linalg.norm(across, axis=1) * np.linalg.norm(plain, axis=1)
    assert (np.abs((across * plain).sum(1)) < 1e-4 * scale).all()
    # Numpy's own decomposition.
    difference = plain - other
    along = (difference * plain).sum(1) / np.square(plain).sum(1)
    expected = difference - along[:, None] * plain
    np.testing.assert_allclose(across, expected, rtol=1e-3, atol=1e-3)
    half = change(eta=0.5)
    np.testing.assert_allclose(
        half, expected + 0.5 * along[:, None] * plain, rtol=1e-3, atol=1e-3
    )
    lengths = np.linalg.norm(difference, axis=1)
    bound = np.median(lengths)
    bounded = np.linalg.norm(change(eta=1.0, norm=bound), axis=1)
    np.testing.assert_allclose(bounded, np.minimum(lengths, bound), rtol=1e-3)


def test_autoguidance_by_the_same_model_is_the_model(inputs):
    plain = Model()(*inputs)
    same = guidance.auto(Model(), Model(), 3.0)(*inputs)
    np.testing.assert_allclose(same.x, plain.x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(same.eps, plain.eps, rtol=1e-4, atol=1e-4)


def test_autoguidance_leads_away_from_the_weaker_model(inputs):
    strong, weak = Model()(*inputs).x, weaker(*inputs).x
    guided = guidance.auto(Model(), weaker, 2.5)(*inputs).x
    np.testing.assert_allclose(guided, 2.5 * strong - 1.5 * weak, rtol=1e-4, atol=1e-4)


def test_both_guidances_add_and_are_each_alone_at_weight_one(inputs):
    both = guidance.combined(Model(), 3.0, weaker, 2.0)(*inputs).x
    first = guidance.classifier_free(Model(), 3.0)(*inputs).x
    second = guidance.auto(Model(), weaker, 2.0)(*inputs).x
    plain = Model()(*inputs).x
    np.testing.assert_allclose(both, first + second - plain, rtol=1e-4, atol=1e-3)
    for weights, alone in (((3.0, 1.0), first), ((1.0, 2.0), second)):
        w, auto_w = weights
        x = guidance.combined(Model(), w, weaker, auto_w)(*inputs).x
        np.testing.assert_allclose(x, alone, rtol=1e-4, atol=1e-4)


def test_a_negative_prompt_equal_to_the_null_is_classifier_free_guidance(inputs):
    z, level, cond = inputs
    negative = dataclasses.replace(cond, tokens=jnp.zeros_like(cond.tokens))
    same = guidance.classifier_free(Model(), 4.0, negative)(z, level, cond)
    guided = guidance.classifier_free(Model(), 4.0)(z, level, cond)
    np.testing.assert_array_equal(same.x, guided.x)
    np.testing.assert_array_equal(same.eps, guided.eps)


def test_gamma_stays_the_conditional_models_in_and_outside_the_interval(inputs):
    z, _, cond = inputs

    def learned(z, level, cond):
        found = Model()(z, level, cond)
        return found._replace(gamma=jnp.tanh(found.eps))

    corrected = guidance.Correction(eta=0.0, rescale=0.5)
    guided = guidance.combined(learned, 4.0, weaker, 2.0, None, corrected)
    bounded = guidance.limited(guided, learned, 0.5, 2.0)
    for t in (0.9, 0.5, 0.1):
        level = schedules.CosineSchedule()(jnp.full(B, t))
        expected = learned(z, level, cond).gamma
        found = bounded(z, level, cond).gamma
        np.testing.assert_allclose(found, expected, atol=1e-6)


def counted(model):
    """The model, and the batches that went through it when the program ran."""
    ran = []

    def denoiser(z, level, cond):
        jax.debug.callback(lambda: ran.append(z.shape[0]), ordered=True)
        return model(z, level, cond)

    return denoiser, ran


@pytest.mark.parametrize("exploding_levels", [False, True])
def test_outside_the_interval_nothing_unconditional_is_computed(
    exploding_levels, exploding
):
    schedule = exploding if exploding_levels else schedules.CosineSchedule()
    denoiser, ran = counted(Model(prediction.X))
    guided = guidance.classifier_free(denoiser, 3.0)
    bounded = guidance.limited(guided, denoiser, 0.28, 2.9)
    s = sampler.Sampler(schedule=schedule, solver=solvers.DDIM(), steps=10)
    levels = s.levels()[0]
    sigma = np.asarray(levels.sigma / levels.alpha)
    inside = (sigma > 0.28) & (sigma <= 2.9)
    assert 0 < inside.sum() < 10
    keys = jax.random.split(jax.random.key(3), B)
    cond = Conditioning(tokens=jnp.ones((B, 2, 5)), mask=jnp.ones((B, 2), bool))
    jax.block_until_ready(
        jax.jit(lambda z: s(keys, bounded, z, cond))(s.prior(keys, (2, 2, 3)))
    )
    jax.effects_barrier()
    assert ran == [2 * B if i else B for i in inside]


def test_the_interval_is_open_below_closed_above_and_decides_what_is_drawn(inputs):
    z, _, cond = inputs
    level = noise.variance_exploding(jnp.full(B, 2.0))
    guided = guidance.classifier_free(Model(), 3.0)
    inside, outside = guided(z, level, cond).x, Model()(z, level, cond).x
    assert np.abs(inside - outside).max() > 0.1
    exact = float(jnp.exp(-0.5 * level.logsnr[0]))
    for low, high, expected in (
        (0.0, np.inf, inside),
        (1.0, exact, inside),
        (exact, 3.0, outside),
        (0.1, 1.9, outside),
    ):
        bounded = guidance.limited(guided, Model(), low, high)(z, level, cond)
        np.testing.assert_allclose(bounded.x, expected, rtol=1e-6, atol=1e-6)


def test_new_bounds_weights_and_corrections_do_not_recompile(inputs):
    model = Model()

    @jax.jit
    def run(w, auto_w, low, high, correction):
        guided = guidance.combined(model, w, weaker, auto_w, None, correction)
        return guidance.limited(guided, model, low, high)(*inputs).x

    run(2.0, 3.0, 0.1, 9.0, guidance.Correction(0.5, 2.0, 0.7))
    traced = len(model.batches)
    run(3.0, 1.5, 0.2, 5.0, guidance.Correction(0.2, 9.0, 0.1))
    assert len(model.batches) == traced


def test_a_limited_guidance_stays_sharded_and_draws_the_same(inputs):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    s = sampler.Sampler(
        schedule=schedules.CosineSchedule(), solver=solvers.DDIM(), steps=4
    )
    keys = jax.random.split(jax.random.key(5), 8)
    z = s.prior(keys, (2, 2, 3))
    cond = Conditioning(
        tokens=jax.random.normal(jax.random.key(6), (8, 2, 5)),
        mask=jnp.ones((8, 2), bool),
    )
    guided = guidance.classifier_free(Model(prediction.X), 3.0)
    bounded = guidance.limited(guided, Model(prediction.X), 0.5, 2.0)
    draw = jax.jit(lambda keys, z, cond: s(keys, bounded, z, cond))
    whole = draw(keys, z, cond)
    placed = jax.device_put((keys, z, cond), split)
    parts = draw(*placed)
    assert parts.sharding.is_equivalent_to(split, parts.ndim)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-5)
    assert "all-gather" not in draw.lower(*placed).compile().as_text()
