"""How much memory a training step will need, estimated without compiling it.

State, gradients and batch are exact. Activations are what the traced backward pass
keeps of the forward pass, and an allowance for what lives while one block is computed
again. XLA often betters that, by recomputing norms and softmax where they are used; so
this is an estimate on the safe side for choosing what to compile (docs/scaling.md has
both for what was compiled).
"""

import copy
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from imagen_jax import build
from imagen_jax.models import layers

# Feature maps of the largest size, at two bytes a value, that live at once while a
# block is differentiated: its input, two convolutions' inputs and outputs, norms, their
# gradients. Fitted to compiled steps of the 2B base, kept by blocks.
LIVE = 12
# What XLA keeps of a float32 intermediate of a bfloat16 network: its bfloat16.
BYTES = 2


@dataclasses.dataclass(frozen=True)
class Kept:
    """What one example costs between the forward and the backward pass.

    Attributes:
      bytes: of all that is kept.
      largest: of the largest array among it.
    """

    bytes: int
    largest: int


def kept(config: build.Config, remat: str) -> Kept:
    """Trace the backward pass of a config's loss under a remat policy."""
    config = copy.deepcopy(config)
    config.network.remat = remat
    stage = build.make_stage(config)
    params = jax.eval_shape(
        lambda p: layers.stored(p, config.training.get("kernel_dtype", "float32")),
        build.shapes_of(stage.init),
    )
    one, two = (_residuals(config, stage, params, batch) for batch in (1, 2))
    # What does not grow with the batch are the parameters themselves.
    grown = [b - a for a, b in zip(one, two, strict=True)]
    return Kept(sum(grown), max(grown))


def _residuals(config: build.Config, stage: Any, params: Any, batch: int) -> list[int]:
    side = config.data.crop or stage.resolution
    length, width = config.text.length, build.make_text_module(config).d_model
    shape = jax.ShapeDtypeStruct
    examples = {
        "image": shape((batch, side, side, 3), jnp.uint8),
        "text_values": shape((batch, length, width), jnp.float32),
        "mask": shape((batch, length), jnp.bool_),
    }

    def backward(params, key, examples):
        def loss(params):
            return stage.loss(key, params, None, examples)[0].mean()

        return jax.vjp(loss, params)[1]

    key = jax.eval_shape(lambda: jax.random.key(0))
    leaves = jax.tree.leaves(jax.eval_shape(backward, params, key, examples))
    return [leaf.size * min(leaf.dtype.itemsize, BYTES) for leaf in leaves]


def activations(kept_by_remat: dict[str, Kept], remat: str, examples: float) -> int:
    """Bytes a chip for `examples` at once on it (a fraction, if rows are split)."""
    here = kept_by_remat[remat]
    live = LIVE * kept_by_remat["none"].largest
    if remat == "full":
        # One level at a time keeps its blocks' inputs; the largest is about half.
        live += (kept_by_remat["block"].bytes - here.bytes) // 2
    return int((here.bytes + live) * examples)
