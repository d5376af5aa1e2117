"""Emoji scenes at 16 x 16: the base of the emoji cascade.

Text embeddings come from an encoder that `emoji/text` has pretrained.
Expected: loss 0.095 after 100 steps, 0.061 after 200, 0.045 after 500, 0.033 after
1,000, 0.027 after 1,500, 0.024 after 2,000, 0.021 after 2,500; `emoji/base_longer` goes
on from there.
Cost: 65 minutes on one slow, shared CPU core. On two its first 100 steps ran at 1.4 a
second, which makes half an hour of the whole.
Command:
  imagen-jax train --config emoji/base --workdir runs/base \\
    --config.text.weights=runs/text
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    c = ml_collections.ConfigDict()
    c.kind = "stage"
    c.name = "base"
    c.seed = 0
    c.mesh = ml_collections.ConfigDict(
        {"slices": 1, "data": -1, "fsdp": 1, "tensor": 1}
    )

    c.text = ml_collections.ConfigDict()
    c.text.tokenizer = "sentencepiece"
    c.text.sentencepiece = "captions"
    c.text.length = 32
    c.text.weights = ""
    c.text.encoder = ml_collections.ConfigDict(
        {
            "vocab_size": 512,
            "d_model": 256,
            "num_layers": 2,
            "num_heads": 4,
            "head_dim": 32,
            "d_ff": 256,
            "dtype": "float32",
        }
    )

    c.stage = ml_collections.ConfigDict({"resolution": 16, "low_resolution": 0})

    c.network = ml_collections.ConfigDict(
        {
            "type": "unet",
            "channels": 128,
            "channel_mult": (1, 1),
            "num_res_blocks": 1,
            "attention_levels": (0, 1),
            "head_dim": 32,
            "positions": "coordinates",
            "feed_forward": (4, 4),
            "text_map": 256,
            "space_to_depth": 2,
            "dtype": "float32",
        }
    )

    c.diffusion = ml_collections.ConfigDict(
        {
            "schedule": {"type": "cosine", "shift": -1.4},
            "parameterization": "x",
            "weight": "uniform",
            "stratified": True,
            "text_drop": 0.1,
            "aug_schedule": {"type": "cosine"},
            "aug_max": 1.0,
            "blur_max": 0.0,
        }
    )

    c.data = ml_collections.ConfigDict(
        {
            "task": "emoji",
            "reader": "grain",
            "batch_size": 32,
            "crop": 0,
            "seed": 0,
            "threads": 2,
        }
    )

    c.optimizer = ml_collections.ConfigDict(
        {
            "kind": "adam",
            "peak_lr": 1.2e-3,
            "warmup_steps": 100,
            "decay": "cosine",
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-8,
            "clip_norm": 1.0,
        }
    )

    c.training = ml_collections.ConfigDict(
        {
            "steps": 2500,
            "ema_decay": 0.998,
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
            "sample_every": 1000,
            "sample_num": 16,
        }
    )

    c.sampling = ml_collections.ConfigDict(
        {
            "solver": {"name": "ancestral", "gamma": 1.0},
            "steps": 20,
            "w": 1.5,
            # Flat, saturated grounds lie at the ends of [-1, 1]; dynamic thresholding,
            # which divides by what lies beyond, greys them.
            "threshold": "static",
            "percentile": 0.995,
            "aug_level": 0.0,
        }
    )
    return c
