"""A small byte-level T5 encoder, pretrained on captions alone and then frozen.

Expected: loss 0.28 (hidden bytes and neighbouring words together) after 1,200 steps.
Cost: about 8 minutes on two CPU cores.
Command:
  imagen-jax train --config text/byte_t5 --workdir runs/text
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    c = ml_collections.ConfigDict()
    c.kind = "text"
    c.name = "text"
    c.seed = 0
    c.mesh = ml_collections.ConfigDict(
        {"slices": 1, "data": -1, "fsdp": 1, "tensor": 1}
    )

    c.text = ml_collections.ConfigDict()
    c.text.tokenizer = "bytes"
    c.text.sentencepiece = ""
    c.text.length = 112
    c.text.encoder = ml_collections.ConfigDict(
        {
            "vocab_size": 384,
            "d_model": 128,
            "num_layers": 3,
            "num_heads": 4,
            "head_dim": 32,
            "d_ff": 256,
            "dtype": "float32",
        }
    )

    c.pretraining = ml_collections.ConfigDict(
        {
            "objective": "masked_tokens",
            "rate": 0.15,
            "mean_span": 1.0,
            "neighbours": 0.5,
        }
    )

    c.data = ml_collections.ConfigDict(
        {
            "task": "captions",
            "reader": "grain",
            "batch_size": 128,
            "crop": 0,
            "seed": 0,
            "threads": 2,
        }
    )

    c.optimizer = ml_collections.ConfigDict(
        {
            "kind": "adam",
            "peak_lr": 2e-3,
            "warmup_steps": 50,
            "decay": "cosine",
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-8,
            "clip_norm": 1.0,
        }
    )

    c.training = ml_collections.ConfigDict(
        {
            "steps": 1200,
            "ema_decay": 0.99,
            "ema_warmup": True,
            "accumulation": 1,
            "on_nonfinite": "stop",
            "max_skipped": 100,
            "tensorboard": "auto",
            "wandb": "",
            "stuck_seconds": 300.0,
            "profile_from": 0,
            "profile_steps": 3,
            "log_every": 50,
            "save_every": 500,
            "keep": 2,
        }
    )

    return c
