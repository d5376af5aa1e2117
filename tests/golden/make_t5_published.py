"""Make t5_published.npz: tiny random T5s of transformers as their files hold them.

Not run by the tests. In an environment of its own:

    pip install torch==2.13.0 transformers==5.24.0 safetensors
    python tests/golden/make_t5_published.py

For each case: config.json, the encoder's tensors under their own names, the names of
all other tensors, ids, mask, and the encoder's output.
"""

import json
import pathlib
import tempfile

import numpy as np
import safetensors.numpy
import torch
import transformers

CASES = {
    "v1_1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "v1_0": {"relative_attention_num_buckets": 16},
    "byt5": {
        "feed_forward_proj": "gated-gelu",
        "vocab_size": 384,
        "relative_attention_max_distance": 20,
        "layer_norm_epsilon": 1e-3,
    },
}
SIZES = {
    "vocab_size": 99,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": 3,
}
LENGTH = 40


def make(changes: dict) -> dict:
    """The arrays of one case."""
    torch.manual_seed(0)
    config = transformers.T5Config(**{**SIZES, **changes}, decoder_start_token_id=0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "norm" in key:
                weight.copy_(torch.empty_like(weight).uniform_(0.5, 1.5))
            elif "relative" in key:
                weight.normal_()
        ids = torch.randint(3, config.vocab_size, (3, LENGTH))
        sizes = torch.tensor([[LENGTH], [LENGTH - 7], [1]])
        mask = torch.arange(LENGTH)[None] < sizes
        ids = torch.where(mask, ids, 0)
        encoded = model.get_encoder()(input_ids=ids, attention_mask=mask.long())
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = pathlib.Path(folder)
        told = json.loads((path / "config.json").read_text())
        stored = safetensors.numpy.load_file(path / "model.safetensors")
    read = {k: a for k, a in stored.items() if not k.startswith(("decoder", "lm_head"))}
    arrays = {f"tensor/{name}": array for name, array in read.items()}
    return {
        **arrays,
        "config": json.dumps(told),
        "others": sorted(stored.keys() - read.keys()),
        "ids": ids.numpy().astype(np.int32),
        "mask": mask.numpy(),
        "output": encoded.last_hidden_state.numpy(),
    }


if __name__ == "__main__":
    arrays = {
        "made_with": f"transformers {transformers.__version__}, "
        f"torch {torch.__version__}"
    }
    for case, changes in CASES.items():
        arrays |= {f"{case}/{k}": v for k, v in make(changes).items()}
    path = pathlib.Path(__file__).with_name("t5_published.npz")
    np.savez_compressed(path, **arrays)
