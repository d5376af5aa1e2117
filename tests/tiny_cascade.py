"""A cascade of two stages whose networks are one convolution: it compiles at once."""

import flax.linen as nn
import jax

from imagen_jax.cascade import cascade, recipe, stage, text_to_image
from imagen_jax.diffusion import prediction, schedules, solvers
from imagen_jax.models import layers, t5
from imagen_jax.text import encoder, tokenizer

LENGTH = 16
ENCODER = encoder.TextEncoder(
    module=t5.T5Encoder(
        vocab_size=384, d_model=16, num_layers=1, num_heads=2, head_dim=8, d_ff=16
    ),
    tokenizer=tokenizer.ByteTokenizer(),
    length=LENGTH,
)


class Net(nn.Module):
    """Looks at its neighbours, the planes and the mean of the text."""

    @nn.compact
    def __call__(self, z, noise_input, cond):
        shown = cond.tokens * cond.mask[..., None]
        text = layers.Dense(8, ("embed", "mlp"), name="text")(shown.mean(1))
        x = z if cond.planes is None else z + cond.planes
        x = layers.Conv(8, name="first")(x) + 8 * text[:, None, None]
        return layers.Conv(3, name="last")(x)


def stages() -> tuple[stage.Stage, ...]:
    common = {
        "network": Net(),
        "schedule": schedules.CosineSchedule(),
        "parameterization": prediction.X,
        "text_dim": 16,
        "text_length": LENGTH,
        "encoder": ENCODER.module,
    }
    return (
        stage.Stage(name="base", resolution=8, **common),
        stage.Stage(name="up", resolution=16, low_resolution=8, **common),
    )


def model(**changes) -> text_to_image.TextToImage:
    """Draws 4 pictures at once on one device, however many there are."""
    parts = stages()
    inits = [ENCODER.init, *(part.init for part in parts)]
    trees = [nn.unbox(init(jax.random.key(i))) for i, init in enumerate(inits)]
    readers = [lambda tree=tree: tree for tree in trees]
    values = {
        "cascade": cascade.Cascade(stages=parts),
        "encoder": ENCODER,
        "text_params": readers[0],
        "params": tuple(readers[1:]),
        "recipes": (
            recipe.SamplingRecipe(solver=solvers.Ancestral(), steps=4, w=2.0),
            recipe.SamplingRecipe(solver=solvers.DDIM(), steps=2, aug_level=0.1),
        ),
        "batch": 8,
        "name": "tiny",
    }
    return text_to_image.TextToImage(**values | changes)
