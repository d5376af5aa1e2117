"""BERT from Hugging Face folders, with or without the heads of its pretraining."""

from collections.abc import Mapping, Sequence
from typing import Any

from imagen_jax.checkpoints import huggingface, tensors
from imagen_jax.models import bert
from imagen_jax.published import conversion, folders

# The defaults of transformers' BertConfig, which configs omit.
DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}
# What would make it another network.
REQUIRED = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
}
# Imagen's captions have as many tokens at most (Saharia et al. 2022).
LENGTH = 128
NORM = ("weight", "bias")
# The names of the norms' parameters in checkpoints made from TensorFlow's.
OLD_NORM = ("gamma", "beta")


def text_module(config: Mapping[str, Any], where: str = "BERT") -> bert.BERT:
    """The encoder of a config.json.

    Raises:
      ValueError: naming `where`, for the config of another model.
    """
    for name, wanted in REQUIRED.items():
        got = config.get(name, None if name == "model_type" else wanted)
        if got != wanted:
            raise ValueError(
                f"{where}: the config's {name} must be {wanted!r}, got {got!r}."
            )
    values = folders.values(where, config, DEFAULTS)
    return bert.BERT(
        vocab_size=values["vocab_size"],
        d_model=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=values["num_attention_heads"],
        d_ff=values["intermediate_size"],
        max_length=values["max_position_embeddings"],
        segments=values["type_vocab_size"],
        activation=values["hidden_act"],
        epsilon=values["layer_norm_eps"],
    )


def table(
    module: bert.BERT, prefix: str = "", norm: tuple[str, str] = NORM
) -> tensors.Table:
    """The encoder's parameters from their names in a checkpoint.

    Args:
      module: the encoder.
      prefix: of the names: "bert." where heads are beside it.
      norm: the names of a norm's scale and bias.
    """
    first = f"{prefix}embeddings"
    found = {
        **folders.same("token_embedder/embedding", f"{first}.word_embeddings.weight"),
        **folders.same("position_embedding", f"{first}.position_embeddings.weight"),
        **folders.same("segment_embedding", f"{first}.token_type_embeddings.weight"),
        **folders.norm("embedding_norm", f"{first}.LayerNorm", norm),
    }
    for i in range(module.num_layers):
        theirs, ours = f"{prefix}encoder.layer.{i}", f"layers_{i}"
        for mine, name in (
            ("attention/query", "attention.self.query"),
            ("attention/key", "attention.self.key"),
            ("attention/value", "attention.self.value"),
            ("attention/out", "attention.output.dense"),
            ("mlp/wi", "intermediate.dense"),
            ("mlp/wo", "output.dense"),
        ):
            found |= folders.dense(f"{ours}/{mine}", f"{theirs}.{name}")
        for mine, name in (
            ("attention_norm", "attention.output.LayerNorm"),
            ("mlp_norm", "output.LayerNorm"),
        ):
            found |= folders.norm(f"{ours}/{mine}", f"{theirs}.{name}", norm)
    return found


def convert(
    paths: Sequence[str], *, length: int | None = None
) -> conversion.Conversion:
    """The encoder of a folder, to condition on.

    Args:
      paths: the network's folder, and the tokenizer's if it is another.
      length: tokens that a prompt may have, by default 128 or all positions.

    Raises:
      ValueError: for the folder of another model, or one that lacks a file.
    """
    folder = paths[0]
    module = text_module(huggingface.read_config(folder), str(folder))
    files = folders.tokenizer_files(paths, ("vocab.txt",), ("tokenizer.json",))
    main = next(iter(files))
    settings = folders.tokenizer_settings(files[main].removesuffix(main))
    weights = huggingface.open_folder(folder)
    names = weights.names()
    prefix = "bert." if any(name.startswith("bert.") for name in names) else ""
    old = any(name.endswith(".LayerNorm.gamma") for name in names)
    text = {
        "tokenizer": "bert",
        "tokenizer_file": main,
        "tokenizer_options": {
            "lowercase": settings.get("do_lower_case", True),
            "strip_accents": settings.get("strip_accents"),
            "split_chinese": settings.get("tokenize_chinese_chars", True),
        },
        "sentencepiece": "",
        "weights": "",
        "length": folders.text_length(str(folder), length, LENGTH, module.max_length),
        "encoder": {"type": "bert", **folders.fields(module)},
    }
    part = conversion.Part(
        name="text",
        tensors=weights,
        table=table(module, prefix, OLD_NORM if old else NORM),
        shapes=folders.text_shapes(module),
        unused=_beside,
    )
    return conversion.Conversion(stages=(), text=text, parts=(part,), files=files)


def _beside(name: str) -> bool:
    """Whether a tensor is a pooler's, a head's, or the numbers of the positions."""
    name = name.removeprefix("bert.")
    return name.startswith(("pooler.", "cls.")) or name.endswith(
        "embeddings.position_ids"
    )
