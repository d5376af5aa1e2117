"""Print the table of docs/weights.md: sizes of published models, computed from shapes.

    python docs/make_weights.py

Nothing is downloaded or allocated. The configs are those of the models' config.json;
of DeepFloyd IF only I-XL's and II-L's are public in full (configs/deepfloyd).
"""

import math
from collections.abc import Iterator
from typing import Any

import jax

from imagen_jax import build, partitioning
from imagen_jax.checkpoints import model_directory, safetensors
from imagen_jax.commands import configs
from imagen_jax.published import bert, clip, folders, t5

# d_model, d_ff, layers, heads, d_kv, vocabulary, feed-forward.
T5 = {
    "t5-v1_1-small": (512, 1024, 8, 6, 64, 32128, "gated-gelu"),
    "t5-v1_1-base": (768, 2048, 12, 12, 64, 32128, "gated-gelu"),
    "t5-v1_1-large": (1024, 2816, 24, 16, 64, 32128, "gated-gelu"),
    "t5-v1_1-xl": (2048, 5120, 24, 32, 64, 32128, "gated-gelu"),
    "t5-v1_1-xxl": (4096, 10240, 24, 64, 64, 32128, "gated-gelu"),
    "byt5-small": (1472, 3584, 12, 6, 64, 384, "gated-gelu"),
    "byt5-base": (1536, 3968, 18, 12, 64, 384, "gated-gelu"),
    "byt5-large": (1536, 3840, 36, 16, 64, 384, "gated-gelu"),
    "byt5-xl": (2560, 6720, 36, 32, 64, 384, "gated-gelu"),
    "byt5-xxl": (4672, 12352, 36, 64, 64, 384, "gated-gelu"),
    "t5-small": (512, 2048, 6, 8, 64, 32128, "relu"),
    "t5-base": (768, 3072, 12, 12, 64, 32128, "relu"),
    "t5-large": (1024, 4096, 24, 16, 64, 32128, "relu"),
    "t5-3b": (1024, 16384, 24, 32, 128, 32128, "relu"),
    "t5-11b": (1024, 65536, 24, 128, 128, 32128, "relu"),
}
T5_KEYS = ("d_model", "d_ff", "num_layers", "num_heads", "d_kv", "vocab_size")
CLIP = {
    "clip-vit-base-patch32, text": (512, 2048, 12, 8),
    "clip-vit-large-patch14, text": (768, 3072, 12, 12),
}
BERT = {
    "bert-base-uncased": (768, 3072, 12, 12),
    "bert-large-uncased": (1024, 4096, 24, 16),
}
KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
IF = {"IF-I-XL": "deepfloyd/if_i_xl", "IF-II-L": "deepfloyd/if_ii_l"}


def models() -> Iterator[tuple[str, Any]]:
    """Names and trees of shapes, one model at a time."""
    for name, values in T5.items():
        config = dict(zip(T5_KEYS, values, strict=False))
        config |= {"model_type": "t5", "feed_forward_proj": values[-1]}
        yield name, folders.text_shapes(t5.module_of(config))
    for name, values in CLIP.items():
        config = dict(zip(KEYS, values, strict=True))
        kind = {"model_type": "clip_text_model"}
        yield name, folders.text_shapes(clip.text_module(config | kind))
    for name, values in BERT.items():
        config = dict(zip(KEYS, values, strict=True)) | {"model_type": "bert"}
        yield name, folders.text_shapes(bert.text_module(config))
    for name, config in IF.items():
        init = build.make_stage(configs.load(config)).init
        yield name, partitioning.unbox(jax.eval_shape(init, jax.random.key(0)))


def row(name: str, shapes: Any) -> str:
    """One line of the table."""
    sizes = {k: v.shape for k, v in safetensors.flatten(shapes).items()}

    def gigabytes(dtype: str) -> float:
        stored = (
            model_directory.layout(k, s, dtype).values() for k, s in sizes.items()
        )
        return sum(math.prod(s) * d.itemsize for each in stored for d, s in each) / 1e9

    counts = [math.prod(shape) for shape in sizes.values()]
    cells = [
        name,
        f"{sum(counts):,}",
        *(f"{gigabytes(dtype):.2f}" for dtype in ("float32", "bfloat16", "int8")),
        f"{4 * max(counts) / 1e9:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    print("| model | parameters | float32 GB | bfloat16 GB | int8 GB | largest GB |")
    print("|" + "---|" * 6)
    for name, shapes in models():
        print(row(name, shapes), flush=True)


if __name__ == "__main__":
    main()
