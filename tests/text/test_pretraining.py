import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagen_jax.models import t5
from imagen_jax.text import pretraining, tokenizer

ENCODER = t5.T5Encoder(384, 16, 1, 2, 8, 32)
TASK = pretraining.MaskedTokenTask(encoder=ENCODER)
KEY = jax.random.key(0)
LOSS = jax.jit(TASK.loss)


def batch_of(texts, length=16):
    ids, mask = tokenizer.ByteTokenizer().encode(texts, length)
    return {"tokens": jnp.asarray(ids), "mask": jnp.asarray(mask)}


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: nn.unbox(TASK.init(key)))(KEY)


@pytest.mark.parametrize(("rate", "mean_span"), [(0.15, 1.0), (0.3, 4.0)])
def test_spans_hide_the_asked_share_of_tokens(rate, mean_span):
    mask = jnp.arange(64)[None] < jnp.full((500, 1), 60)
    hidden = np.array(pretraining.spans(KEY, mask, rate, mean_span))
    assert not hidden[:, 60:].any()
    # Spans overlap, so that somewhat less than the rate is hidden; 500 x 60 draws.
    assert 0.8 * rate < hidden[:, 8:60].mean() < 1.05 * rate


def test_longer_spans_are_longer():
    mask = jnp.ones((300, 64), bool)

    def runs(mean_span):
        hidden = np.array(pretraining.spans(KEY, mask, 0.1, mean_span))
        return hidden.sum() / (hidden & ~np.roll(hidden, 1, 1)).sum()

    # Single tokens touch by chance: 1 / (1 - rate); spans of mean 4 touch alike.
    assert abs(runs(1.0) - 1 / 0.9) < 0.05
    assert 3.5 < runs(4.0) < 5.0


def test_chosen_tokens_are_hidden_exchanged_or_kept():
    batch = batch_of(["abcdefgh"] * 999 + ["x"], 9)
    ids = batch["tokens"]
    chosen = batch["mask"] & (jnp.arange(9)[None] < 4)
    shown = np.array(pretraining.corrupt(KEY, ids, chosen, 259))
    np.testing.assert_array_equal(shown[~chosen], ids[~chosen])
    hidden = shown[:999, :4] == 259
    # 4000 draws of 0.8: three standard deviations are 0.02.
    assert abs(hidden.mean() - 0.8) < 0.02
    other = pretraining.corrupt(KEY, ids.at[1::2].add(20), chosen, 259)
    exchanged = ~hidden & (np.array(other)[:999, :4] != shown[:999, :4])
    assert exchanged[1::2].any() and exchanged[::2].any()
    assert set(np.unique(shown)) <= {0, 1, 259, *range(100, 130)}


def test_neighbours_are_the_words_beside():
    batch = batch_of(["ab c def", "word", ""], 10)
    before, after = (
        np.array(a)
        for a in pretraining.neighbours(
            batch["tokens"], batch["mask"], (pretraining.SPACE,)
        )
    )
    np.testing.assert_array_equal(before[0, :9], [-1, -1, -1, 0, 0, 3, 3, 3, 3])
    np.testing.assert_array_equal(after[0, :9], [3, 3, 3, 5, 5, -1, -1, -1, -1])
    assert (before[1:] == -1).all() and (after[1:] == -1).all()


def test_without_separators_each_token_is_a_word():
    batch = batch_of(["abc"], 6)
    before, after = pretraining.neighbours(batch["tokens"], batch["mask"], ())
    np.testing.assert_array_equal(before[0, :4], [-1, 0, 1, 2])
    np.testing.assert_array_equal(after[0, :4], [1, 2, 3, -1])


def test_words_are_told_apart_by_their_first_tokens():
    words = ["red ", "orange", "blue", "apple", "tree", "a be", "cat"]
    ids = batch_of(words)["tokens"]
    classes = pretraining.word_hash(ids, 4, 384)[:, 0]
    assert len(set(classes.tolist())) == len(words)
    twice = batch_of(["x blueish"])["tokens"]
    assert pretraining.word_hash(twice, 4, 384)[0, 2] == classes[2]


def test_neighbours_do_not_depend_on_padding():
    found = []
    for length in (13, 16):
        batch = batch_of(["a red circle", "ab"], length)
        places = pretraining.neighbours(
            batch["tokens"], batch["mask"], (pretraining.SPACE,)
        )
        there = [np.where(batch["mask"], place, -1)[:, :13] for place in places]
        found.append(np.stack(there))
    np.testing.assert_array_equal(*found)


def test_an_untrained_model_guesses(params):
    batch = batch_of(["a red circle", "ab", "", "a"])
    losses, metrics = LOSS(KEY, params, None, batch)
    assert losses.shape == (4,) and np.isfinite(losses).all()
    assert set(metrics) == {"masked", "accuracy", "neighbours"}
    # ln 384 = 5.95 for even guesses, more for confident wrong ones.
    assert 4 < metrics["masked"] < 9 and metrics["accuracy"] < 0.2


def test_neighbours_can_be_left_out(params):
    task = pretraining.MaskedTokenTask(encoder=ENCODER, neighbours=0.0)
    batch = batch_of(["a red circle"] * 4)
    losses, metrics = jax.jit(task.loss)(KEY, params, None, batch)
    both, _ = LOSS(KEY, params, None, batch)
    assert set(metrics) == {"masked", "accuracy"}
    assert (both > losses).all()


def test_training_finds_hidden_letters_and_neighbours(params):
    batch = batch_of(["a red cat", "a blue dog", "one red dog", "a green cat"] * 8, 13)
    optimizer = optax.adam(1e-2, b2=0.99)

    def graded(key, params):
        def mean(params):
            losses, metrics = TASK.loss(key, params, None, batch)
            return losses.mean(), metrics

        return jax.grad(mean, has_aux=True)(params)

    @jax.jit
    def train(params):
        def step(carry, key):
            params, state = carry
            grads, metrics = graded(key, params)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), metrics

        carry = params, optimizer.init(params)
        return jax.lax.scan(step, carry, jax.random.split(KEY, 200))

    (trained, _), metrics = train(params)
    assert metrics["accuracy"][-20:].mean() > 0.6
    assert metrics["neighbours"][-20:].mean() > 0.8
    assert metrics["masked"][-20:].mean() < metrics["masked"][0] / 4
    values = ENCODER.apply(
        {"params": trained["encoder"]}, batch["tokens"], batch["mask"]
    )
    assert values.shape == (32, 13, 16)


def test_the_same_key_gives_the_same_loss(params):
    batch = batch_of(["a red circle"] * 4)
    one, _ = LOSS(KEY, params, None, batch)
    np.testing.assert_array_equal(one, LOSS(KEY, params, None, batch)[0])
    assert (one != LOSS(jax.random.key(1), params, None, batch)[0]).any()


@pytest.mark.parametrize(
    "bad",
    [
        {"rate": 0.0},
        {"rate": 1.0},
        {"mean_span": 0.5},
        {"neighbours": -1.0},
        {"word_tokens": 0},
        {"mask_id": 384},
    ],
)
def test_impossible_settings_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        pretraining.MaskedTokenTask(encoder=ENCODER, **bad)


def pairs_of(texts, others, length=16):
    batch, other = batch_of(texts, length), batch_of(others, length)
    return {**batch, **{f"reworded_{name}": other[name] for name in other}}


def test_contrast_is_the_cross_entropy_of_cosines():
    task = pretraining.ContrastiveTask(encoder=ENCODER, temperature=0.2)
    params = nn.unbox(task.init(KEY))
    batch = pairs_of(["a cat", "two red dogs", ""], ["one cat", "2 dogs", "nothing"])
    losses, metrics = jax.jit(task.loss)(KEY, params, None, batch)

    def directions(prefix):
        ids, mask = batch[f"{prefix}tokens"], np.array(batch[f"{prefix}mask"])
        values = ENCODER.apply({"params": params["encoder"]}, ids, mask)
        means = [row[m].mean(0) for row, m in zip(np.array(values), mask, strict=True)]
        return np.stack([mean / np.linalg.norm(mean) for mean in means])

    cosines = directions("") @ directions("reworded_").T / 0.2
    expected = [
        np.log(np.exp(cosines[i]).sum()) + np.log(np.exp(cosines[:, i]).sum())
        for i in range(3)
    ]
    expected = (np.array(expected) - 2 * np.diag(cosines)) / 2
    np.testing.assert_allclose(losses, expected, rtol=1e-3, atol=1e-4)
    found = (cosines.argmax(0) == range(3)).mean() + (
        cosines.argmax(1) == range(3)
    ).mean()
    np.testing.assert_allclose(metrics["found"], found / 2, rtol=1e-6)


def test_contrast_training_finds_what_says_the_same():
    task = pretraining.ContrastiveTask(encoder=ENCODER)
    one = [f"a {c} {o}" for c in ("red", "blue") for o in ("cat", "dog", "bun")]
    other = [f"one {text[2:]}" for text in one]
    batch, optimizer = pairs_of(one, other), optax.adam(1e-2)

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            mean = lambda p: task.loss(KEY, p, None, batch)[0].mean()  # noqa: E731
            loss, grads = jax.value_and_grad(mean)(params)
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(step, (params, optimizer.init(params)), length=100)

    (trained, _), losses = train(nn.unbox(task.init(KEY)))
    assert task.loss(KEY, trained, None, batch)[1]["found"] == 1.0
    assert losses[-1] < losses[0] / 4


def test_grounding_is_the_error_of_looks_and_of_where_they_are():
    plain = pretraining.ContrastiveTask(encoder=ENCODER)
    task = dataclasses.replace(plain, grounding=2.0)
    params = nn.unbox(task.init(KEY))
    batch = pairs_of(["a cat", "two red dogs"], ["one cat", "2 dogs"])
    draw = np.random.default_rng(0).normal
    looks = draw(size=(2, 5)).astype(np.float32)
    layout = draw(size=(2, 3, 4)).astype(np.float32)
    told = {**batch, "looks": looks, "layout": layout}
    losses, metrics = jax.jit(task.loss)(KEY, params, None, told)
    of_looks, of_layout = [], []
    for prefix in ("", "reworded_"):
        ids, mask = batch[f"{prefix}tokens"], np.array(batch[f"{prefix}mask"])
        values = np.array(ENCODER.apply({"params": params["encoder"]}, ids, mask))
        look, where = np.zeros((2, 5)), np.zeros((2, 3, 4))
        for text, place in zip(*np.nonzero(mask), strict=True):
            token = values[text, place]
            look[text] += token[:5]
            where[text] += np.outer(token[:3], token[5:9])
        of_looks.append(((look - looks) ** 2).mean(1))
        of_layout.append(((where - layout) ** 2).mean((1, 2)))
    errors = np.sum(of_looks, axis=0) + np.sum(of_layout, axis=0)
    expected = plain.loss(KEY, params, None, batch)[0] + errors
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["looks"], np.mean(of_looks), rtol=1e-5)
    np.testing.assert_allclose(metrics["layout"], np.mean(of_layout), rtol=1e-5)


def test_impossible_grounding_is_refused():
    with pytest.raises(ValueError, match="grounding must be >= 0"):
        pretraining.ContrastiveTask(encoder=ENCODER, grounding=-1.0)
    tokens = jnp.zeros((4, 3, 8))
    with pytest.raises(ValueError, match="takes 5 \\+ 4 channels"):
        pretraining.grounding_errors(tokens, jnp.zeros((2, 5)), jnp.zeros((2, 3, 4)))


def test_a_text_without_tokens_has_no_direction():
    tokens, mask = jnp.ones((2, 3, 4)), jnp.array([[True, True, False], [False] * 3])
    got = pretraining.mean_direction(tokens.at[0, 2].set(9.0), mask)
    np.testing.assert_allclose(got, [[0.5] * 4, [0.0] * 4], atol=1e-6)


def test_a_temperature_of_nothing_is_refused():
    with pytest.raises(ValueError, match="temperature must be positive"):
        pretraining.ContrastiveTask(encoder=ENCODER, temperature=0.0)
