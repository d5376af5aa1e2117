"""CLIP, OpenAI's and OpenCLIP's models, from Hugging Face folders.

A folder holds both towers (model_type "clip") or one of them ("clip_text_model",
"clip_vision_model": the `text_encoder` of a Stable Diffusion model, for example).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.checkpoints import huggingface, model_directory, tensors
from imagen_jax.models import clip
from imagen_jax.published import conversion, folders
from imagen_jax.text import clip_pieces

# The defaults of transformers' CLIPTextConfig and CLIPVisionConfig, which configs omit.
TOWER = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": 512}
TEXT = TOWER | {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
IMAGE = TOWER | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
# The eos id of configs from before transformers 4.31, which is wrong and means that the
# largest id of a text is eos.
OLD_EOS = 2

TEXT_PREFIX, IMAGE_PREFIX = "text_model.", "vision_model."
# What a tower may leave unread: the projections and the scale of both, and numbers that
# older files hold.
HEADS = ("text_projection.", "visual_projection.", "logit_scale")
BUFFERS = "embeddings.position_ids"


def text_module(
    config: Mapping[str, Any],
    *,
    layer: str = "last",
    final_norm: bool = True,
    where: str = "CLIP",
) -> clip.CLIPText:
    """The text encoder of a config.json.

    Raises:
      ValueError: naming `where`, for the config of another model.
    """
    values = _values(where, config, "text", TEXT)
    return clip.CLIPText(
        vocab_size=values["vocab_size"],
        max_length=values["max_position_embeddings"],
        layer=layer,
        final_norm=final_norm,
        **_sizes(values),
    )


def text_tower(config: Mapping[str, Any], where: str = "CLIP") -> clip.CLIPTextTower:
    """The text tower of a config.json, whose result is compared with images."""
    values = _values(where, config, "text", TEXT)
    eos = values["eos_token_id"]
    return clip.CLIPTextTower(
        text=text_module(config, where=where),
        projection=values["projection_dim"],
        eos_id=None if eos == OLD_EOS else eos,
    )


def image_tower(config: Mapping[str, Any], where: str = "CLIP") -> clip.CLIPImage:
    """The image tower of a config.json."""
    values = _values(where, config, "vision", IMAGE)
    if values["num_channels"] != 3:
        raise ValueError(
            f"{where}: num_channels must be 3, got {values['num_channels']}."
        )
    return clip.CLIPImage(
        image_size=values["image_size"],
        patch_size=values["patch_size"],
        projection=values["projection_dim"],
        **_sizes(values),
    )


def text_table(module: clip.CLIPText, prefix: str = TEXT_PREFIX) -> tensors.Table:
    """The text encoder's parameters from their names in a checkpoint."""
    embeddings = f"{prefix}embeddings"
    return {
        **folders.same(
            "token_embedder/embedding", f"{embeddings}.token_embedding.weight"
        ),
        **folders.same("position_embedding", f"{embeddings}.position_embedding.weight"),
        **_blocks(module, prefix),
        **folders.norm("final_norm", f"{prefix}final_layer_norm"),
    }


def text_tower_table(
    module: clip.CLIPTextTower, prefix: str = TEXT_PREFIX
) -> tensors.Table:
    """The text tower's parameters from their names in a checkpoint."""
    text = text_table(module.text, prefix)
    return {
        **{f"text/{name}": source for name, source in text.items()},
        **folders.dense("projection", "text_projection", bias=False),
    }


def image_table(module: clip.CLIPImage, prefix: str = IMAGE_PREFIX) -> tensors.Table:
    """The image tower's parameters from their names in a checkpoint."""
    embeddings = f"{prefix}embeddings"
    patches = tensors.Source((f"{embeddings}.patch_embedding.weight",), _patches)
    return {
        "patches/kernel": patches,
        **folders.same("class_embedding", f"{embeddings}.class_embedding"),
        **folders.same("position_embedding", f"{embeddings}.position_embedding.weight"),
        # Its name is misspelt in the checkpoints.
        **folders.norm("first_norm", f"{prefix}pre_layrnorm"),
        **_blocks(module, prefix),
        **folders.norm("final_norm", f"{prefix}post_layernorm"),
        **folders.dense("projection", "visual_projection", bias=False),
    }


def convert(
    paths: Sequence[str],
    *,
    layer: str = "last",
    final_norm: bool = True,
    length: int | None = None,
) -> conversion.Conversion:
    """The text encoder of a folder, to condition on.

    Args:
      paths: the network's folder, and the tokenizer's if it is another.
      layer, final_norm: which embeddings, see `clip.CLIPText`.
      length: tokens that a prompt may have, by default all of the model's positions.

    Raises:
      ValueError: for the folder of another model, or one that lacks a file.
    """
    folder = paths[0]
    module = text_module(
        huggingface.read_config(folder),
        layer=layer,
        final_norm=final_norm,
        where=str(folder),
    )
    files = folders.tokenizer_files(
        paths, ("vocab.json", "merges.txt"), ("tokenizer.json",)
    )
    main = next(iter(files))
    settings = folders.tokenizer_settings(files[main].removesuffix(main))
    weights = huggingface.open_folder(folder)
    text = {
        "tokenizer": "clip",
        "tokenizer_file": main,
        "tokenizer_options": {"pad": settings.get("pad_token") or clip_pieces.END},
        "sentencepiece": "",
        "weights": "",
        "length": folders.text_length(
            str(folder), length, module.max_length, module.max_length
        ),
        "encoder": {"type": "clip", **folders.fields(module)},
    }
    part = conversion.Part(
        name="text",
        tensors=weights,
        table=text_table(module, _prefix(weights, TEXT_PREFIX)),
        shapes=folders.text_shapes(module),
        unused=_beside_text,
    )
    return conversion.Conversion(stages=(), text=text, parts=(part,), files=files)


def load_text_tower(folder: str) -> tuple[clip.CLIPTextTower, Any]:
    """The text tower of a folder and its parameters, float32 on the host."""
    module = text_tower(huggingface.read_config(folder), str(folder))
    weights = huggingface.open_folder(folder)
    return module, tensors.transfer(
        weights,
        text_tower_table(module, _prefix(weights, TEXT_PREFIX)),
        folders.text_shapes(module),
        model_directory.float32,
        _beside_text,
    )


def load_image_tower(folder: str) -> tuple[clip.CLIPImage, Any]:
    """The image tower of a folder and its parameters, float32 on the host."""
    module = image_tower(huggingface.read_config(folder), str(folder))
    weights = huggingface.open_folder(folder)
    images = jax.ShapeDtypeStruct((1, *2 * (module.image_size,), 3), jnp.float32)
    return module, tensors.transfer(
        weights,
        image_table(module, _prefix(weights, IMAGE_PREFIX)),
        folders.shapes(module, images),
        model_directory.float32,
        _beside_image,
    )


def _values(
    where: str, config: Mapping[str, Any], side: str, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """One tower's values from the config of both or of that one."""
    kind = config.get("model_type")
    if kind not in ("clip", f"clip_{side}_model"):
        raise ValueError(
            f"{where}: the config's model_type must be 'clip' or 'clip_{side}_model', "
            f"got {kind!r}."
        )
    if kind == "clip":
        tower = {
            **(config.get(f"{side}_config") or {}),
            # What the first versions of transformers wrote goes before.
            **(config.get(f"{side}_config_dict") or {}),
            "projection_dim": config.get("projection_dim", TOWER["projection_dim"]),
        }
    else:
        tower = config
    return folders.values(where, tower, defaults)


def _sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "d_model": values["hidden_size"],
        "num_layers": values["num_hidden_layers"],
        "num_heads": values["num_attention_heads"],
        "d_ff": values["intermediate_size"],
        "activation": values["hidden_act"],
        "epsilon": values["layer_norm_eps"],
    }


def _blocks(module: clip.CLIPText | clip.CLIPImage, prefix: str) -> tensors.Table:
    table: dict[str, tensors.Source] = {}
    for i in range(module.num_layers):
        theirs, ours = f"{prefix}encoder.layers.{i}", f"layers_{i}"
        for mine, name in (
            ("attention/query", "self_attn.q_proj"),
            ("attention/key", "self_attn.k_proj"),
            ("attention/value", "self_attn.v_proj"),
            ("attention/out", "self_attn.out_proj"),
            ("mlp/wi", "mlp.fc1"),
            ("mlp/wo", "mlp.fc2"),
        ):
            table |= folders.dense(f"{ours}/{mine}", f"{theirs}.{name}")
        for mine, name in (
            ("attention_norm", "layer_norm1"),
            ("mlp_norm", "layer_norm2"),
        ):
            table |= folders.norm(f"{ours}/{mine}", f"{theirs}.{name}")
    return table


def _patches(kernel: np.ndarray) -> np.ndarray:
    """A convolution [D, 3, P, P] as a product with flat patches [P * P * 3, D]."""
    return kernel.transpose(2, 3, 1, 0).reshape(-1, len(kernel))


def _prefix(weights: tensors.Tensors, prefix: str) -> str:
    """The prefix of a tower's names: transformers 5 saves a tower alone without it."""
    return prefix if any(n.startswith(prefix) for n in weights.names()) else ""


def _beside_text(name: str) -> bool:
    return name.startswith((IMAGE_PREFIX, *HEADS)) or name.endswith(BUFFERS)


def _beside_image(name: str) -> bool:
    return name.startswith((TEXT_PREFIX, *HEADS)) or name.endswith(BUFFERS)
