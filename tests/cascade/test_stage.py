import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.cascade import images
from imagen_jax.diffusion import process


def batch(stage, text, size=None, count=4):
    size = size or stage.resolution
    rng = np.random.default_rng(0)
    ids, mask = text.tokenizer.encode(["a red cat"] * count, text.length)
    image = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return {
        "image": jnp.asarray(image),
        "tokens": jnp.asarray(ids),
        "mask": jnp.asarray(mask),
    }


def test_the_loss_is_one_finite_number_an_example(stages, params, text, text_params):
    for stage, tree in zip(stages, params, strict=True):
        loss, _ = jax.jit(stage.loss)(
            jax.random.key(0), tree, text_params, batch(stage, text)
        )
        assert loss.shape == (4,) and bool(jnp.isfinite(loss).all())


def test_crops_have_low_res_inputs_of_their_own_size(stages, params, text, text_params):
    up = stages[1]
    loss, _ = up.loss(
        jax.random.key(0), params[1], text_params, batch(up, text, size=8)
    )
    assert loss.shape == (4,)


def test_embeddings_brought_along_give_the_same_loss(stages, params, text, text_params):
    base, tree = stages[0], params[0]
    online = batch(base, text)
    values = base.encode(text_params, online).values
    cached = {**online, "text_values": values}
    a, _ = base.loss(jax.random.key(3), tree, text_params, online)
    b, _ = base.loss(jax.random.key(3), tree, None, cached)
    np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("unmasked", [False, True])
def test_text_encoded_in_training_is_what_is_encoded_in_sampling(
    stages, text, text_params, unmasked
):
    """At padding too: DeepFloyd IF's networks attend to it."""
    base = dataclasses.replace(stages[0], unmasked=unmasked)
    trained = base.encode(text_params, batch(base, text, count=1))
    sampled = dataclasses.replace(text, unmasked=unmasked)(text_params, ["a red cat"])
    np.testing.assert_array_equal(trained.mask, sampled.mask)
    np.testing.assert_allclose(trained.values, sampled.values, atol=1e-6)
    assert (np.abs(np.asarray(sampled.values)[0, -1]).max() > 0) == unmasked


def test_a_stage_that_knows_the_answer_has_no_loss(stages, text, text_params):
    """An oracle network that returns the true noise gives a loss of zero."""
    base = stages[0]
    seen = {}

    class Oracle:
        def apply(self, variables, z, noise_input, cond):
            return seen["eps"]

    original = process.diffuse

    def spy(key, x, level):
        z, seen["eps"] = original(key, x, level)
        return z, seen["eps"]

    known = dataclasses.replace(base, network=Oracle())
    process.diffuse = spy
    try:
        loss, _ = known.loss(jax.random.key(0), {}, text_params, batch(base, text))
    finally:
        process.diffuse = original
    np.testing.assert_allclose(loss, 0.0, atol=1e-12)


def test_a_low_resolution_that_does_not_divide_is_refused(stages):
    with pytest.raises(ValueError, match="low_resolution"):
        dataclasses.replace(stages[1], low_resolution=5)


def test_without_text_or_embedding_the_error_says_what_is_missing(stages, params):
    bare = dataclasses.replace(stages[0], encoder=None)
    images = {"image": jnp.zeros((1, 8, 8, 3), jnp.uint8)}
    with pytest.raises(ValueError, match="text_values"):
        bare.loss(jax.random.key(0), params[0], None, images)


class Spy:
    """A network that keeps what it was told."""

    def __init__(self):
        self.seen = []

    def apply(self, variables, z, noise_input, cond):
        self.seen.append(cond)
        return jnp.zeros_like(z)


def test_low_res_inputs_are_noised_up_to_aug_max(stages, text, text_params):
    spy = Spy()
    up = dataclasses.replace(stages[1], network=spy, aug_max=0.25)
    up.loss(jax.random.key(0), {}, text_params, batch(up, text, count=64))
    levels = np.asarray(spy.seen[0].aug_level)
    assert 0.2 < levels.max() <= 0.25 and levels.min() < 0.05
    with pytest.raises(ValueError, match="aug_max must be in"):
        dataclasses.replace(up, aug_max=1.5)


def test_low_res_inputs_are_blurred_up_to_blur_max(stages, text, text_params):
    spy = Spy()
    # So little noise that only the blur can change anything.
    sharp = dataclasses.replace(stages[1], network=spy, aug_max=1e-4)
    blurred = dataclasses.replace(sharp, blur_max=2.0)
    for up in (sharp, blurred):
        examples = batch(up, text, count=64)
        noise = np.random.default_rng(0).integers(0, 256, examples["image"].shape)
        examples["image"] = jnp.asarray(noise, jnp.uint8)
        up.loss(jax.random.key(0), {}, text_params, examples)
    spreads = [np.asarray(cond.planes).std((1, 2, 3)) for cond in spy.seen]
    kept = spreads[1] / spreads[0]
    assert kept.min() < 0.5 and 0.95 < kept.max() < 1.01
    with pytest.raises(ValueError, match="blur_max must be >= 0"):
        dataclasses.replace(up, blur_max=-1.0)


def test_deepfloyds_pictures_are_enlarged_before_they_are_noised(stages):
    low = jax.random.uniform(jax.random.key(1), (1, 8, 8, 3))
    up = dataclasses.replace(stages[1], enlargement="bilinear_noised")
    key = jax.random.key(2)
    level = jnp.full(1, 0.25)
    planes = up.condition(None, low, level, key, (16, 16)).planes
    noise = up.aug_schedule(level)
    fresh = jax.random.normal(key, planes.shape)
    expected = noise.alpha[0] * images.enlarge_aligned(low, (16, 16))
    np.testing.assert_allclose(planes, expected + noise.sigma[0] * fresh, atol=1e-5)


def test_wrong_kinds_of_null_and_enlargement_are_refused(stages):
    with pytest.raises(ValueError, match=r"null_text must be one of .*'ones'"):
        dataclasses.replace(stages[0], null_text="ones")
    with pytest.raises(ValueError, match=r"enlargement must be one of .*'nearest'"):
        dataclasses.replace(stages[1], enlargement="nearest")
    with pytest.raises(ValueError, match="let a share of the captions be empty"):
        dataclasses.replace(stages[0], null_text="empty_prompt", text_drop=0.1)
    led = dataclasses.replace(stages[0], null_text="empty_prompt", text_drop=0.0)
    with pytest.raises(ValueError, match="needs the embedding of the empty prompt"):
        led.unconditional(led.example_inputs()[2], None)
