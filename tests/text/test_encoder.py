import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from imagen_jax import embed
from imagen_jax.models import t5
from imagen_jax.text import encoder, tokenizer

MODULE = t5.T5Encoder(384, 8, 1, 2, 4, 16)
ENCODER = encoder.TextEncoder(
    module=MODULE, tokenizer=tokenizer.ByteTokenizer(), length=12
)


@pytest.fixture(scope="module")
def params():
    ids, mask = jnp.zeros((1, 4), int), jnp.ones((1, 4), bool)
    init = jax.jit(lambda key: nn.unbox(MODULE.init(key, ids, mask)["params"]))
    return init(jax.random.key(0))


def test_padding_is_zero_and_text_is_not(params):
    values, mask = ENCODER(params, ["red", ""])
    assert values.shape == (2, 12, 8) and values.dtype == jnp.float32
    np.testing.assert_array_equal(mask.sum(1), [4, 1])
    assert (values[~mask] == 0).all()
    assert (jnp.abs(values[mask]).max(-1) > 0).all()


def test_a_prompt_is_embedded_alike_in_any_company(params):
    together = ENCODER(params, ["red", "a longer"])
    alone = ENCODER.encode(params, ["red"])
    np.testing.assert_allclose(together.values[:1], alone.values, atol=1e-6)


def test_a_prompt_too_long_is_refused(params):
    with pytest.raises(ValueError, match="may have 11 tokens"):
        ENCODER(params, ["twelve bytes"])


def test_the_vocabulary_must_fit():
    with pytest.raises(ValueError, match="384 ids, got 20"):
        encoder.TextEncoder(
            module=MODULE.clone(vocab_size=20),
            tokenizer=tokenizer.ByteTokenizer(),
            length=12,
        )


def test_unmasked_keeps_padding_and_says_that_all_is_text(params):
    plain = ENCODER(params, ["red", ""])
    full = dataclasses.replace(ENCODER, unmasked=True)(params, ["red", ""])
    assert full.mask.shape == (2, 12) and full.mask.all()
    np.testing.assert_array_equal(full.values[plain.mask], plain.values[plain.mask])
    ids, mask = ENCODER.tokenizer.encode(["red", ""], 12)
    # The encoder's own attention still masks padding.
    exact = jax.jit(MODULE.apply)({"params": params}, ids, mask)
    np.testing.assert_array_equal(full.values, exact)
    assert (jnp.abs(full.values[~plain.mask]).max(-1) > 0).all()


def test_any_network_of_ids_and_mask_fits():
    class Twice(nn.Module):
        vocab_size: int = 384
        d_model: int = 2
        dtype: Any = jnp.float32

        def __call__(self, ids, mask):
            return jnp.stack([ids, 2 * ids], -1).astype(jnp.float32)

    module = Twice()
    assert isinstance(module, encoder.TextNetwork)
    got = dataclasses.replace(ENCODER, module=module, length=3)({}, ["a"])
    np.testing.assert_array_equal(got.values, [[[100, 200], [1, 2], [0, 0]]])


def test_unmasked_embeddings_cannot_be_kept_in_files(tmp_path):
    config = ml_collections.ConfigDict({"text": {"unmasked": True}})
    with pytest.raises(ValueError, match=r"text\.unmasked: must be False"):
        embed.embed(config, str(tmp_path), dtype="int8", batch_size=1)
