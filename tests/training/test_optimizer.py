import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from imagen_jax.training import optimizer


def constant(rate=1e-2):
    return optimizer.learning_rate(
        rate, warmup_steps=0, decay="constant", total_steps=10
    )


PARAMS = {"w": np.linspace(-1, 1, 128 * 130).reshape(128, 130), "b": np.ones(5)}
PARAMS = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), PARAMS)


def run(rule, scale=1.0):
    params, state = PARAMS, rule.init(PARAMS)
    for n in range(3):
        grads = jax.tree.map(lambda p, n=n: scale * jnp.cos(p * (n + 1)), params)
        updates, state = rule.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_adam_is_optax_adam():
    mine = optimizer.make("adam", schedule=constant(), b1=0.8, b2=0.99, eps=1e-6)
    toy.assert_identical(run(mine), run(optax.adam(1e-2, b1=0.8, b2=0.99, eps=1e-6)))


def test_adam_has_the_paper_constants_by_default():
    mine = optimizer.make("adam", schedule=constant())
    toy.assert_identical(run(mine), run(optax.adam(1e-2, b1=0.9, b2=0.999, eps=1e-8)))


def test_adafactor_is_optax_adafactor_with_its_defaults():
    mine = optimizer.make("adafactor", schedule=constant())
    toy.assert_identical(run(mine), run(optax.adafactor(1e-2)))


def test_clipping_bounds_the_global_norm():
    clipped = optimizer.make("adam", schedule=constant(), clip_norm=0.5, eps=1.0)
    grads = jax.tree.map(lambda p: 100.0 * jnp.ones_like(p), PARAMS)
    short = jax.tree.map(
        lambda g: g * 0.5 / np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(grads))),
        grads,
    )
    plain = optimizer.make("adam", schedule=constant(), eps=1.0)
    a, _ = clipped.update(grads, clipped.init(PARAMS), PARAMS)
    b, _ = plain.update(short, plain.init(PARAMS), PARAMS)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


@pytest.mark.parametrize("kind", optimizer.KINDS)
def test_weight_decay_leaves_biases_alone(kind):
    decayed = run(optimizer.make(kind, schedule=constant(), weight_decay=0.1))
    plain = run(optimizer.make(kind, schedule=constant()))
    np.testing.assert_array_equal(decayed["b"], plain["b"])
    assert not np.array_equal(decayed["w"], plain["w"])


def test_warmup_is_linear_and_cosine_ends_at_zero():
    rate = optimizer.learning_rate(
        1e-4, warmup_steps=10, decay="cosine", total_steps=110
    )
    np.testing.assert_allclose(
        [rate(n) for n in (0, 5, 10, 60, 110, 500)],
        [0, 5e-5, 1e-4, 5e-5, 0, 0],
        atol=1e-11,
    )


def test_linear_decay_and_constant_rate():
    linear = optimizer.learning_rate(2.0, warmup_steps=0, decay="linear", total_steps=4)
    np.testing.assert_allclose([linear(n) for n in range(5)], [2, 1.5, 1, 0.5, 0])
    assert constant(3.0)(10**6) == 3.0


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="kind must be one of"):
        optimizer.make("sgd", schedule=constant())
    with pytest.raises(ValueError, match="decay must be one of"):
        optimizer.learning_rate(1.0, warmup_steps=0, decay="step", total_steps=4)
    with pytest.raises(ValueError, match="warmup_steps must lie in"):
        optimizer.learning_rate(1.0, warmup_steps=5, decay="cosine", total_steps=4)
    with pytest.raises(ValueError, match="clip_norm must be positive"):
        optimizer.make("adam", schedule=constant(), clip_norm=0.0)
