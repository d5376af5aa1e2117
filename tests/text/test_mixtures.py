import numpy as np
import pytest

from imagen_jax.text import mixtures
from imagen_jax.text.encoder import TextEmbedding


def embedding(seed, tokens):
    mask = np.arange(4)[None] < tokens
    values = np.random.default_rng(seed).normal(size=(1, 4, 3)).astype(np.float32)
    return TextEmbedding(np.where(mask[..., None], values, 0.0), mask)


SHORT, LONG = embedding(0, 2), embedding(1, 3)


@pytest.mark.parametrize(("share", "end"), [(0.0, SHORT), (1.0, LONG)])
def test_the_ends_are_the_prompts_to_the_bit(share, end):
    found = mixtures.between(SHORT, LONG, [share])
    np.testing.assert_array_equal(found.values, end.values)
    np.testing.assert_array_equal(found.mask, end.mask)


def test_between_the_ends_tokens_are_mixed_and_all_are_read():
    found = mixtures.between(SHORT, LONG, [0.25])
    expected = 0.75 * SHORT.values + 0.25 * LONG.values
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    np.testing.assert_array_equal(found.mask, LONG.mask)
    assert found.values.dtype == np.float32


def test_what_is_written_is_read_and_plain_prompts_lie_at_themselves():
    assert mixtures.way("a fox", "a red cat", 3) == [
        "a fox ~> a red cat @ 0",
        "a fox ~> a red cat @ 0.5",
        "a fox ~> a red cat @ 1",
    ]
    assert mixtures.parts("a fox ~> a red cat @ 0.5") == ("a fox", "a red cat", 0.5)
    for plain in ("a fox", "me @ 3", "a ~> b", ""):
        assert mixtures.parts(plain) == (plain, plain, 0.0)


@pytest.mark.parametrize("share", ["1.5", "0.1.2", "."])
def test_shares_outside_the_way_are_refused(share):
    with pytest.raises(ValueError, match=r"SHARE in \[0, 1\]"):
        mixtures.parts(f"a ~> b @ {share}")
