"""DeepFloyd IF, stages I and II, from folders as diffusers saves them.

A stage's folder has unet/ and scheduler/ (stage II image_noising_scheduler/ too); stage
I's also text_encoder/ and tokenizer/. Every number comes from their config files; the
numbers of steps and guidance weights are those of diffusers' IFPipeline and
IFSuperResolutionPipeline.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from imagen_jax.checkpoints import huggingface, safetensors, tensors
from imagen_jax.conditioning import Conditioning
from imagen_jax.models import deepfloyd_unet
from imagen_jax.published import conversion, deepfloyd_config, folders, t5

NOTICE = """\
DeepFloyd IF's weights come under the DeepFloyd IF License Agreement: for research
only, not for commercial use. You may not redistribute them, nor this conversion of
them. The agreement reaches the pictures that you draw with them.
DeepFloyd is licensed under the DeepFloyd License, Copyright (c) Stability AI Ltd. All
Rights Reserved.
"""
TEXT_LENGTH = 77


def convert(paths: Sequence[str], *, dtype: str = "bfloat16") -> conversion.Conversion:
    """IF in our terms: stage I, and stage II where its folder is given.

    Args:
      paths: the stages' folders, I first; the first also has the text encoder.
      dtype: of the activations.

    Raises:
      ValueError: for a folder that is no such stage.
    """
    first = epath.Path(paths[0])
    encoder = t5.convert(
        [str(first / "text_encoder"), str(first / "tokenizer")],
        length=TEXT_LENGTH,
        dtype=dtype,
    )
    text = {**encoder.text, "unmasked": True, "cleaning": "deepfloyd"}
    stages, parts = [], list(encoder.parts)
    for path in paths:
        low = stages[-1]["stage"]["resolution"] if stages else None
        config = deepfloyd_config.stage_config(path, text, low)
        stages.append(config)
        parts.append(part(path, config))
    return conversion.Conversion(
        stages=stages, text=text, parts=parts, files=encoder.files, notice=NOTICE
    )


def part(folder: str, config: Mapping[str, Any]) -> conversion.Part:
    """A stage's network and its file."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config["network"].items()
        if name != "type"
    }
    network = deepfloyd_unet.DeepFloydUNet(**values)
    shapes = shapes_of(
        network,
        config["text"]["encoder"]["d_model"],
        low_res=bool(config["stage"]["low_resolution"]),
    )
    stem = "diffusion_pytorch_model"
    source = huggingface.open_folder(epath.Path(folder) / "unet", stem)
    return conversion.Part(
        name=config["name"],
        tensors=source,
        table=table(network, shapes),
        shapes=shapes,
    )


def shapes_of(
    network: deepfloyd_unet.DeepFloydUNet, text_dim: int, *, low_res: bool
) -> Any:
    """The tree of the network's shapes."""

    def float32(shape: tuple[int, ...]) -> Any:  # abstract, as every array here
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    side = network.size_multiple
    z = float32((1, side, side, deepfloyd_config.CHANNELS))
    cond = Conditioning(
        tokens=float32((1, 1, text_dim)),
        planes=z if low_res else None,
        aug_level=float32((1,)) if low_res else None,
    )
    return folders.shapes(network, z, float32((1,)), cond)


# Our modules' paths to diffusers': the first pattern that matches a path's beginning.
# Numbers of levels on the way up are counted from the other end.
PLACES: tuple[tuple[str, str], ...] = (
    (r"stem/conv", "conv_in"),
    (r"head/norm", "conv_norm_out"),
    (r"head/conv", "conv_out"),
    (r"text/dense", "encoder_hid_proj"),
    (r"embedding/noise/dense_0", "time_embedding.linear_1"),
    (r"embedding/noise/dense_1", "time_embedding.linear_2"),
    (r"embedding/aug_level/dense_0", "class_embedding.linear_1"),
    (r"embedding/aug_level/dense_1", "class_embedding.linear_2"),
    (r"embedding/text/norm", "add_embedding.norm1"),
    (r"embedding/text/(query|key|value)", "add_embedding.pool.{0[0]}_proj"),
    (r"embedding/text/dense_norm", "add_embedding.norm2"),
    (r"embedding/text/dense", "add_embedding.proj"),
    (r"middle_0/res_0", "mid_block.resnets.0"),
    (r"middle_0/attention_0", "mid_block.attentions.0"),
    (r"middle_1/res_0", "mid_block.resnets.1"),
    (r"(down|up)_(\d+)/res_(\d+)", "{0}_blocks.{1}.resnets.{2}"),
    (r"(down|up)_(\d+)/attention_(\d+)", "{0}_blocks.{1}.attentions.{2}"),
    (r"(down|up)_(\d+)/(?:down|up)sample", "{0}_blocks.{1}.{0}samplers.0"),
)
# What stands in a block or an attention layer.
LAYERS = {
    "norm_0": ("norm1",),
    "conv_0": ("conv1",),
    "embedding/dense": ("time_emb_proj",),
    "norm_1": ("norm2",),
    "conv_1": ("conv2",),
    "shortcut": ("conv_shortcut",),
    "norm": ("group_norm",),
    "text_norm": ("norm_cross",),
    "query": ("to_q",),
    "qkv": ("to_q", "to_k", "to_v"),
    "text_kv": ("add_k_proj", "add_v_proj"),
    "out": ("to_out.0",),
}


def table(network: deepfloyd_unet.DeepFloydUNet, shapes: Any) -> tensors.Table:
    """Our parameters' names to diffusers'.

    Args:
      network: whose parameters they are.
      shapes: `shapes_of` it.
    """
    return {
        name: _source(network, name, len(leaf.shape))
        for name, leaf in safetensors.flatten(shapes).items()
    }


def _source(
    network: deepfloyd_unet.DeepFloydUNet, name: str, rank: int
) -> tensors.Source:
    if name == "embedding/text/position":
        return tensors.Source(("add_embedding.pool.positional_embedding",))
    path, leaf = name.rsplit("/", 1)
    theirs = "bias" if leaf == "bias" else "weight"
    place, rest, level = _place(path, len(network.channels) - 1)
    if not rest:
        return tensors.Source((f"{place}.{theirs}",), _turned(rank))
    parts = LAYERS[rest]
    names = tuple(f"{place}.{part}.{theirs}" for part in parts)
    if len(parts) == 1:
        return tensors.Source(names, _turned(rank))
    head_dim = network.head_dim_at(level, up=path.startswith("up_"))
    return tensors.Source(names, functools.partial(joined, head_dim=head_dim))


def _place(path: str, last: int) -> tuple[str, str, int]:
    """Their module of our path, what of ours is left within it, and its level."""
    for pattern, place in PLACES:
        found = re.match(f"{pattern}(?:/|$)", path)
        if found:
            groups, level = list(found.groups()), last
            if len(groups) > 1:
                level = int(groups[1])
                groups[1] = level if groups[0] == "down" else last - level
            return place.format(*groups), path[found.end() :], level
    raise ValueError(f"DeepFloyd IF: no place for the parameter {path}.")


def _turned(rank: int) -> Callable[[np.ndarray], np.ndarray]:
    """Their layout to ours: dense [out, in], convolutions [out, in, h, w]."""
    order = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[rank]
    return functools.partial(np.transpose, axes=order)


def joined(*arrays: np.ndarray, head_dim: int) -> np.ndarray:
    """Queries, keys and values as one kernel, or bias, a head's parts together."""
    split = [np.transpose(a).reshape(*a.shape[1:], -1, head_dim) for a in arrays]
    return np.stack(split, axis=-2).reshape(*arrays[0].shape[1:], -1)
