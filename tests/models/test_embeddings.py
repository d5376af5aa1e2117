import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.models import embeddings


def test_sinusoidal_is_the_formula():
    got = embeddings.sinusoidal(jnp.array([0.0, 3.0, 1000.0]), 8)
    angles = np.array([0.0, 3.0, 1000.0])[:, None] * 10_000.0 ** (-np.arange(4) / 4)
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    # Float32 angles of a thousand are known to 6e-5.
    np.testing.assert_allclose(got, expected, atol=2e-4)


def test_odd_features_are_refused():
    with pytest.raises(ValueError, match="features must be even"):
        embeddings.sinusoidal(jnp.zeros(1), 7)


def test_coordinates_mean_the_same_place_at_every_size():
    small = np.asarray(embeddings.coordinates(4, 4)).reshape(4, 4, -1)
    large = np.asarray(embeddings.coordinates(12, 12)).reshape(12, 12, -1)
    # Every pixel of the small grid is the middle of a 3 x 3 square of the large one.
    np.testing.assert_allclose(small, large[1::3, 1::3], atol=1e-5)


def test_coordinates_do_not_squeeze_a_wide_picture():
    # In a 4 x 16 picture half the geometric mean is 4: one pixel is a quarter either
    # way, and the first octave's sine is that of pi/2 times it.
    grid = np.asarray(embeddings.coordinates(4, 16)).reshape(4, 16, 20)
    sines = grid[..., 10:].reshape(4, 16, 2, 5)[..., 0]
    rows = (np.arange(4) - 1.5) / 4 * np.pi / 2
    columns = (np.arange(16) - 7.5) / 4 * np.pi / 2
    np.testing.assert_allclose(sines[:, 0, 0], np.sin(rows), atol=1e-6)
    np.testing.assert_allclose(sines[0, :, 1], np.sin(columns), atol=1e-5)


def test_every_position_has_other_coordinates():
    grid = np.asarray(embeddings.coordinates(16, 16))
    distance = np.abs(grid[:, None] - grid[None]).max(-1) + np.eye(256)
    assert distance.min() > 0.1


def test_pooling_ignores_masked_tokens(normal, randomised, run):
    pooling = embeddings.TextPooling(8, head_dim=4)
    tokens = normal((2, 6, 12), 0)
    mask = jnp.asarray(np.arange(6)[None] < np.array([[6], [2]]))
    params = randomised(pooling, tokens, mask)
    got = run(pooling, params, tokens, mask)
    alone = run(pooling, params, tokens[:, :2])
    np.testing.assert_allclose(got[1], alone[1], atol=1e-5)
    assert np.abs(got[0] - alone[0]).max() > 1e-2


def test_each_condition_moves_the_embedding(make_cond, randomised, run):
    module = embeddings.ConditionEmbedding(8, 16)
    cond = make_cond(planes=True)
    t, vector = jnp.array([0.2, 0.9]), jnp.ones((2, 7))

    def inputs(t=t, text=cond.tokens, **changes):
        fields = {"mask": cond.mask, "aug_level": cond.aug_level, "vector": vector}
        return t, Conditioning(**{**fields, **changes}), text

    params = randomised(module, *inputs())
    here = run(module, params, *inputs())
    assert here.shape == (2, 16) and here.dtype == np.float32
    for other in (
        inputs(t=t + 0.05),
        inputs(text=cond.tokens * jnp.asarray(np.arange(12.0)[None, None])),
        inputs(aug_level=cond.aug_level + 0.05),
        inputs(vector=jnp.zeros((2, 7))),
    ):
        assert np.abs(here - run(module, params, *other)).max() > 1e-2
