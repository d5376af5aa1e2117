"""Super-resolution of emoji scenes, 32 -> 128: the second stage of the shipped cascade.

Expected: see docs/emoji_model.md.
Cost: about 8 minutes on two CPU cores.
Command:
  imagen-jax train --config emoji/sr_128 --workdir runs/sr_128
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    c = ml_collections.ConfigDict()
    c.kind = "stage"
    c.name = "sr_128"
    c.seed = 0
    c.mesh = ml_collections.ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})

    c.text = ml_collections.ConfigDict()
    c.text.tokenizer = "bytes"
    c.text.sentencepiece = ""
    c.text.length = 80
    c.text.weights = "emoji"
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

    c.stage = ml_collections.ConfigDict({"resolution": 128, "low_resolution": 32})

    c.network = ml_collections.ConfigDict(
        {
            "type": "efficient_unet",
            "channels": (48, 96, 128),
            "num_res_blocks": (1, 1, 1),
            "strides": (1, 2, 2),
            "attention": ("none", "none", "self"),
            "heads": 4,
            "positions": "coordinates",
            "space_to_depth": 4,
            "dtype": "float32",
        }
    )

    c.diffusion = ml_collections.ConfigDict(
        {
            "schedule": {"type": "cosine"},
            "parameterization": "x",
            "weight": "uniform",
            "stratified": True,
            "text_drop": 0.1,
            "aug_schedule": {"type": "cosine"},
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
            "peak_lr": 1e-3,
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
            "steps": 1000,
            "ema_decay": 0.997,
            "ema_warmup": True,
            "accumulation": 1,
            "on_nonfinite": "stop",
            "max_skipped": 100,
            "tensorboard": "auto",
            "log_every": 50,
            "save_every": 250,
            "keep": 2,
            "sample_every": 250,
            "sample_num": 8,
        }
    )

    c.sampling = ml_collections.ConfigDict(
        {
            "solver": {"name": "ancestral", "gamma": 0.3},
            "steps": 20,
            "w": None,
            "threshold": "static",
            "percentile": 0.995,
            "aug_level": 0.1,
        }
    )
    return c
