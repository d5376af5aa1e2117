"""Make t5.npz: a tiny random T5 v1.1 encoder of transformers, its input and output.

Not run by the tests. In an environment of its own:

    pip install torch==2.13.0 transformers==5.23.0 && python tests/golden/make_t5.py

The weights are renamed and laid out as imagen_jax.models.t5 has them.
"""

import pathlib

import numpy as np
import torch
import transformers

# Two cases: subwords with N * K unlike D and more tokens than relpos_max_distance;
# ByT5's vocabulary with short texts.
CASES = {
    "t5": {"vocab": 99, "length": 150, "heads": 3, "head_dim": 10},
    "byt5": {"vocab": 384, "length": 24, "heads": 2, "head_dim": 12},
}
D_MODEL, D_FF, LAYERS = 24, 40, 2


def renamed(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """The encoder's parameters under t5x's names; torch kernels are transposed."""
    weights = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    relative = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    out = {
        "token_embedder/embedding": weights["shared.weight"],
        "encoder/encoder_norm/scale": weights["encoder.final_layer_norm.weight"],
        "encoder/relpos_bias/rel_embedding": weights[relative].T,
    }
    for i in range(LAYERS):
        theirs, ours = f"encoder.block.{i}.layer", f"encoder/layers_{i}"
        for a, b in zip("qkvo", ("query", "key", "value", "out"), strict=True):
            kernel = weights[f"{theirs}.0.SelfAttention.{a}.weight"].T
            out[f"{ours}/attention/{b}/kernel"] = kernel
        for a in ("wi_0", "wi_1", "wo"):
            kernel = weights[f"{theirs}.1.DenseReluDense.{a}.weight"].T
            out[f"{ours}/mlp/{a}/kernel"] = kernel
        for n, a in enumerate(("pre_attention_layer_norm", "pre_mlp_layer_norm")):
            out[f"{ours}/{a}/scale"] = weights[f"{theirs}.{n}.layer_norm.weight"]
    return out


def make(name: str, vocab: int, length: int, heads: int, head_dim: int) -> dict:
    """The arrays of one case, their names beginning with the case's."""
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=vocab,
        d_model=D_MODEL,
        d_kv=head_dim,
        d_ff=D_FF,
        num_layers=LAYERS,
        num_heads=heads,
        feed_forward_proj="gated-gelu",
    )
    model = transformers.T5EncoderModel(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "norm" in key:
                weight.copy_(torch.empty_like(weight).uniform_(0.5, 1.5))
            elif "relative" in key:
                weight.normal_()
        ids = torch.randint(3, vocab, (2, length))
        mask = torch.arange(length)[None] < torch.tensor([[length], [length - 7]])
        ids = torch.where(mask, ids, 0)
        output = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    arrays = {f"params/{k}": v for k, v in renamed(model).items()}
    arrays |= {"ids": ids.numpy().astype(np.int32), "mask": mask.numpy()}
    arrays["output"] = output.numpy()
    return {f"{name}/{k}": v for k, v in arrays.items()}


if __name__ == "__main__":
    arrays = {
        "made_with": f"transformers {transformers.__version__}, torch "
        + (torch.__version__)
    }
    for case, sizes in CASES.items():
        arrays |= make(case, **sizes)
    np.savez_compressed(pathlib.Path(__file__).with_name("t5.npz"), **arrays)
