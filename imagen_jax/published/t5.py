"""Published T5 encoders: T5 1.0 and v1.1, mT5 and ByT5.

From a folder of Hugging Face (config.json and safetensors, whose linear kernels are
[out, in]) or a checkpoint of t5x, whose names and layout are ours. The decoder is never
read.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jax.typing import DTypeLike

from imagen_jax import partitioning
from imagen_jax.checkpoints import huggingface, safetensors, t5x, tensors
from imagen_jax.models import t5
from imagen_jax.published import conversion, folders, placing

SHARED, OWN = "shared.weight", "encoder.embed_tokens.weight"
SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "d_model",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "d_kv": "head_dim",
    "d_ff": "d_ff",
}
# config.json leaves out what has transformers' default.
DEFAULT_SIZES = {
    "relative_attention_num_buckets": ("relpos_buckets", 32),
    "relative_attention_max_distance": ("relpos_max_distance", 128),
}
# What a config says of its feed-forward: (gated, the activation's other name).
FEED_FORWARD = {"relu": (False, "relu"), "gated-gelu": (True, "gelu_new")}
DEFAULT_FEED_FORWARD = {"t5": "relu", "mt5": "gated-gelu"}
BYTES = 384  # ByT5's vocabulary
PIECES = "spiece.model"
# What `config.text.encoder` holds; the rest of the fields is no part of a model.
FIELDS = (
    *("vocab_size", "d_model", "num_layers", "num_heads", "head_dim", "d_ff", "gated"),
    *("relpos_buckets", "relpos_max_distance", "epsilon"),
)


class Model(NamedTuple):
    """An encoder with the checkpoint that its parameters are read from."""

    module: t5.T5Encoder
    source: tensors.Tensors
    table: tensors.Table
    unused: Callable[[str], bool]


def module_of(config: Mapping[str, Any], where: str = "config.json") -> t5.T5Encoder:
    """The encoder that a config.json of transformers describes.

    Raises:
      ValueError: naming `where` and the key that is missing, bad, or of a network that
        this encoder is not.
    """

    def refuse(key: str, wanted: str) -> ValueError:
        return ValueError(f"{where}: {key} must be {wanted}, got {config.get(key)!r}.")

    kind = config.get("model_type")
    if kind not in DEFAULT_FEED_FORWARD:
        raise refuse("model_type", f"one of {sorted(DEFAULT_FEED_FORWARD)}")
    given: dict[str, Any] = {ours: config.get(key) for key, ours in SIZES.items()}
    for key, (ours, default) in DEFAULT_SIZES.items():
        given[ours] = config.get(key, default)
    for key in (*SIZES, *DEFAULT_SIZES):
        value = given[SIZES[key] if key in SIZES else DEFAULT_SIZES[key][0]]
        most = folders.MAX_LAYERS if key == "num_layers" else folders.MAX_SIZE
        if type(value) is not int or not 0 < value <= most:
            raise refuse(key, f"an integer from 1 to {most}")
    buckets = given["relpos_buckets"]
    if buckets < 4 or given["relpos_max_distance"] <= buckets // 4:
        raise refuse(
            "relative_attention_num_buckets",
            "at least 4, and its quarter less than relative_attention_max_distance "
            f"{given['relpos_max_distance']}",
        )
    epsilon = config.get("layer_norm_epsilon", 1e-6)
    if type(epsilon) is not float or not 0.0 < epsilon < 1.0:
        raise refuse("layer_norm_epsilon", "a number in (0, 1)")
    feed = config.get("feed_forward_proj", DEFAULT_FEED_FORWARD[kind])
    if feed not in FEED_FORWARD:
        raise refuse("feed_forward_proj", f"one of {sorted(FEED_FORWARD)}")
    gated, activation = FEED_FORWARD[feed]
    if config.get("dense_act_fn", activation) != activation:
        raise refuse("dense_act_fn", f"{activation!r} beside {feed!r}")
    if config.get("is_gated_act", gated) != gated:
        raise refuse("is_gated_act", f"{gated} beside {feed!r}")
    if "quantization_config" in config:
        raise refuse("quantization_config", "absent; take the unquantised files")
    return t5.T5Encoder(**given, epsilon=epsilon, gated=gated)


def table(config: t5.T5Encoder, embedding: str = SHARED) -> tensors.Table:
    """Our parameters' names to transformers'.

    Args:
      config: the encoder.
      embedding: the table of tokens, which files hold under one of two names or both.
    """

    feed = ("wi_0", "wi_1", "wo") if config.gated else ("wi", "wo")
    first = "encoder.block.0.layer.0.SelfAttention"
    found = {
        **folders.same("token_embedder/embedding", embedding),
        "encoder/relpos_bias/rel_embedding": tensors.Source(
            (f"{first}.relative_attention_bias.weight",), np.transpose
        ),
        **_norm("encoder/encoder_norm", "encoder.final_layer_norm"),
    }
    for i in range(config.num_layers):
        ours, theirs = f"encoder/layers_{i}", f"encoder.block.{i}.layer"
        for a, b in zip("qkvo", ("query", "key", "value", "out"), strict=True):
            name = f"{theirs}.0.SelfAttention.{a}"
            found |= folders.dense(f"{ours}/attention/{b}", name, bias=False)
        for name in feed:
            kernel = f"{theirs}.1.DenseReluDense.{name}"
            found |= folders.dense(f"{ours}/mlp/{name}", kernel, bias=False)
        for n, name in enumerate(("pre_attention_layer_norm", "pre_mlp_layer_norm")):
            found |= _norm(f"{ours}/{name}", f"{theirs}.{n}.layer_norm")
    return found


def _norm(ours: str, theirs: str) -> tensors.Table:
    """A normalisation without a bias."""
    return folders.same(f"{ours}/scale", f"{theirs}.weight")


def t5x_module(source: tensors.Tensors) -> t5.T5Encoder:
    """The encoder that the shapes of a t5x checkpoint are of.

    Raises:
      ValueError: for another architecture.
    """
    names = set(source.names())
    found = [re.match(r"encoder/layers_(\d+)/", name) for name in names]
    numbers = {int(m[1]) for m in found if m}
    layer = "encoder/layers_0"
    gated = f"{layer}/mlp/wi_0/kernel" in names
    wanted = {
        "table": "token_embedder/embedding",
        "bias": "encoder/relpos_bias/rel_embedding",
        "query": f"{layer}/attention/query/kernel",
        "wi": f"{layer}/mlp/{'wi_0' if gated else 'wi'}/kernel",
    }
    shapes = {}
    for key, name in wanted.items():
        if name not in names or len(source.shape(name)) != 2:
            raise ValueError(
                f"{source.where}: no matrix {name}; a T5 of t5x whose layers are not "
                "scanned is required."
            )
        shapes[key] = source.shape(name)
    heads, buckets = shapes["bias"]
    return t5.T5Encoder(
        vocab_size=shapes["table"][0],
        d_model=shapes["table"][1],
        num_layers=len(numbers),
        num_heads=heads,
        head_dim=shapes["query"][1] // max(heads, 1),
        d_ff=shapes["wi"][1],
        relpos_buckets=buckets,
        gated=gated,
    )


def read(folder: str) -> Model:
    """The model in a folder of Hugging Face or of t5x, local or gs://.

    Headers and tables of contents are read; arrays are not.

    Raises:
      ValueError: if it is neither, damaged, or another network.
    """
    if (epath.Path(folder) / "config.json").exists():
        module = module_of(huggingface.read_config(folder), f"{folder}/config.json")
        source = huggingface.open_folder(folder)
        embedding = SHARED if SHARED in source.names() else OWN
        return Model(module, source, table(module, embedding), unused)
    source = t5x.open_folder(folder)
    module = t5x_module(source)
    names = safetensors.flatten(partitioning.unbox(boxed(module)))
    same = {name: tensors.Source((name,)) for name in names}
    return Model(module, source, same, lambda name: name.startswith("decoder/"))


def unused(name: str) -> bool:
    """Whether an encoder has no use for a tensor of transformers."""
    return name in (SHARED, OWN) or name.startswith(("decoder.", "lm_head."))


def boxed(module: t5.T5Encoder) -> Any:
    """The shapes of an encoder's parameters in their boxes."""
    ids = np.zeros((1, 1), np.int32)
    init = functools.partial(module.init, ids=ids, mask=ids == 0)
    return jax.eval_shape(init, jax.random.key(0))["params"]


def load(
    folder: str, mesh: Mesh, dtype: DTypeLike = jnp.bfloat16
) -> tuple[t5.T5Encoder, Any]:
    """An encoder with its parameters on the devices, read one by one.

    Host memory holds one array at a time beside what has been placed: its bytes as
    stored, and as `dtype`.

    Args:
      folder: as for `read`.
      mesh: each device gets its part of every kernel.
      dtype: of kernels, the embedding table and activations: bfloat16, float16 on
        devices without it, or float32.

    Raises:
      ValueError: as `read` and `tensors.transfer` do; for a number that float16 does
        not hold.
    """
    model = read(folder)
    params = tensors.transfer(
        model.source,
        model.table,
        partitioning.unbox(boxed(model.module)),
        placing.placing(mesh, boxed(model.module), dtype),
        model.unused,
    )
    return model.module.clone(dtype=dtype), params


def convert(
    paths: Sequence[str], *, length: int = 128, dtype: str = "bfloat16"
) -> conversion.Conversion:
    """A text encoder in our terms.

    Args:
      paths: the folder of the weights, then, where that is another, the folder or file
        of the tokenizer's pieces.
      length: tokens a prompt may have.
      dtype: of the activations.

    Raises:
      ValueError: as `read` does; if the tokenizer's pieces are not there.
    """
    model = read(paths[0])
    module = model.module
    tokens, files = _tokenizer(module, paths)
    encoder = {name: getattr(module, name) for name in FIELDS}
    text = {**tokens, "length": length, "weights": "", "cleaning": ""}
    part = conversion.Part(
        name="text",
        tensors=model.source,
        table=model.table,
        shapes=partitioning.unbox(boxed(module)),
        unused=model.unused,
    )
    return conversion.Conversion(
        stages=(),
        text={**text, "unmasked": False, "encoder": {**encoder, "dtype": dtype}},
        parts=(part,),
        files=files,
    )


def _tokenizer(
    module: t5.T5Encoder, paths: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The keys of `config.text` about the tokenizer, and the file that it needs."""
    place = epath.Path(paths[-1])
    pieces = place if place.is_file() else place / PIECES
    settings = {}
    if (pieces.parent / "tokenizer_config.json").exists():
        settings = huggingface.read_config(pieces.parent, "tokenizer_config.json")
    kind = str(settings.get("tokenizer_class", ""))
    if kind.startswith("ByT5") or (module.vocab_size == BYTES and not pieces.exists()):
        return {"tokenizer": "bytes", "sentencepiece": "", "extra_ids": 0}, {}
    if not pieces.is_file():
        raise ValueError(
            f"T5: there is no {pieces}; give the folder or file of the tokenizer's "
            "SentencePiece model after the weights' folder."
        )
    # Of T5's 32,128 rows 32,000 are pieces and 100 stand for what was cut out in its
    # training; mT5 has none.
    extra = settings.get("extra_ids", 100 if module.vocab_size == 32128 else 0)
    if type(extra) is not int or not 0 <= extra <= module.vocab_size:
        raise ValueError(
            f"{pieces.parent}/tokenizer_config.json: extra_ids must be an integer from "
            f"0 to {module.vocab_size}, got {extra!r}."
        )
    tokens = {"tokenizer": "sentencepiece", "sentencepiece": PIECES, "extra_ids": extra}
    return tokens, {PIECES: str(pieces)}
