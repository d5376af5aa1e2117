"""Text is projected once per sampled picture: read off the compiled loop."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from imagen_jax.models import efficient_unet, unet

BASE = unet.UNet(
    channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_levels=(1,),
    head_dim=8,
    text_features=24,
)
MAPPED = BASE.clone(feed_forward=2, text_map=8)
SELF = efficient_unet.EfficientUNet(
    channels=(8, 16),
    num_res_blocks=(1, 1),
    strides=(2, 2),
    attention=("text", "self"),
    heads=2,
    text_features=24,
    feed_forward=2,
    text_map=8,
)
# What a network does with text before any pixel is involved.
TEXT = re.compile(
    r'op_name="[^"]*/(text_kv|text_map|text/dense|embedding/text)[^"]*/dot_general'
)


def computations(hlo: str) -> dict[str, str]:
    """The named computations of an HLO module's text."""
    found = re.split(r"\n(?=%|ENTRY )", hlo)
    return {
        match.group(1): text
        for text in found
        if (match := re.match(r"(?:ENTRY )?%?([\w.\-]+) ", text))
    }


def projections_in_loops(hlo: str) -> list[str]:
    """Dots of text projections in the bodies of while loops and what they call."""
    named = computations(hlo)
    todo = re.findall(r"body=%?([\w.\-]+)", hlo)
    assert todo, "the program has no loop"
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            calls = r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)"
            todo += re.findall(calls, named[name])
    lines = [line for name in seen for line in named[name].splitlines()]
    dots = [line for line in lines if re.search(r" (dot|custom-call)\(", line)]
    assert [line for line in dots if "/out/" in line], "the loop has no attention"
    return [line for line in dots if TEXT.search(line)]


def compiled_loop(net, cond, *, follow: bool) -> str:
    """Three steps of a loop; `follow` lets the text depend on the state."""

    def sample(params, z, cond):
        def step(z, t):
            told = cond
            if follow:
                told = dataclasses.replace(cond, tokens=cond.tokens + z.mean())
            return z - net.apply(params, z, jnp.full(z.shape[:1], t), told), None

        return jax.lax.scan(step, z, jnp.linspace(1.0, 0.1, 3))[0]

    z = jnp.zeros((2, 8, 8, 3))
    params = jax.eval_shape(net.init, jax.random.key(0), z, jnp.zeros(2), cond)
    return jax.jit(sample).lower(params, z, cond).compile().as_text()


@pytest.mark.parametrize(
    "net", [BASE, MAPPED, SELF], ids=["unet", "unet_map", "efficient_unet"]
)
def test_text_is_projected_outside_the_loop(net, make_cond):
    cond = make_cond(8, 8, planes=net is SELF)
    assert projections_in_loops(compiled_loop(net, cond, follow=False)) == []


def test_the_detection_sees_a_projection_inside_the_loop(make_cond):
    found = projections_in_loops(compiled_loop(BASE, make_cond(8, 8), follow=True))
    # The shared projection, the pooling's layers and one text_kv for each attention.
    assert len(found) >= 5
