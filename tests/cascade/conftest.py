"""A cascade of two tiny stages with random weights, made once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from imagen_jax.cascade import cascade, recipe, stage, text_to_image
from imagen_jax.diffusion import prediction, schedules, solvers
from imagen_jax.models import efficient_unet, t5, unet
from imagen_jax.text import encoder, tokenizer

LENGTH = 16


def alive(params):
    """Random numbers in place of the zeros that networks start from."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    return tree.unflatten(
        [
            a + 0.05 * jax.random.normal(k, a.shape)
            for k, a in zip(keys, leaves, strict=True)
        ]
    )


@pytest.fixture(scope="session")
def text():
    return encoder.TextEncoder(
        module=t5.T5Encoder(
            vocab_size=384, d_model=16, num_layers=1, num_heads=2, head_dim=8, d_ff=16
        ),
        tokenizer=tokenizer.ByteTokenizer(),
        length=LENGTH,
    )


@pytest.fixture(scope="session")
def stages(text):
    common = {
        "schedule": schedules.CosineSchedule(),
        "text_dim": 16,
        "text_length": LENGTH,
        "encoder": text.module,
    }
    base = stage.Stage(
        name="base",
        network=unet.UNet(
            channels=32,
            channel_mult=(1, 1),
            num_res_blocks=1,
            attention_levels=(1,),
            head_dim=16,
        ),
        parameterization=prediction.EPS,
        resolution=8,
        **common,
    )
    up = stage.Stage(
        name="up",
        network=efficient_unet.EfficientUNet(
            channels=(32, 32),
            num_res_blocks=(1, 1),
            strides=(1, 2),
            attention=("none", "text"),
            heads=2,
        ),
        parameterization=prediction.X,
        resolution=16,
        low_resolution=8,
        **common,
    )
    return base, up


@pytest.fixture(scope="session")
def params(stages):
    return tuple(alive(nn.unbox(jax.jit(s.init)(jax.random.key(0)))) for s in stages)


@pytest.fixture(scope="session")
def text_params(text):
    ids = jnp.zeros((1, LENGTH), jnp.int32)
    return nn.unbox(text.module.init(jax.random.key(1), ids, ids == 0)["params"])


@pytest.fixture(scope="session")
def model(stages, params, text, text_params):
    return text_to_image.TextToImage(
        cascade=cascade.Cascade(stages=stages),
        encoder=text,
        text_params=lambda: text_params,
        params=tuple((lambda p=p: p) for p in params),
        recipes=(
            recipe.SamplingRecipe(solver=solvers.Ancestral(), steps=4, w=2.0),
            recipe.SamplingRecipe(solver=solvers.DDIM(), steps=2, aug_level=0.1),
        ),
        batch=8,
    )
