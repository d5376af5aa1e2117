"""Imagen's super-resolution 256 -> 1024: ~400M (Saharia et al. 2022, appendix F.3).

Source: the listing of F.3. Trained on 256 px crops of 1024 px pictures; with text
cross-attention only it then runs on whole ones (section 2.5). The listing counts about
500M; two blocks fewer at the deepest level bring it near 400M (docs/fidelity.md).
Expected: nothing of this size was trained here.
Cost: batch 2048 for 2.5M steps; the paper used 128 TPU-v4 chips.
Command:
  imagen-jax train --config imagen/sr_1024 --workdir gs://BUCKET/sr_1024 \
    --config.text.weights=T5_XXL_DIR --config.text.sentencepiece=spiece.model
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    c = ml_collections.ConfigDict()
    c.kind = "stage"
    c.name = "sr_1024"
    c.seed = 0
    c.mesh = ml_collections.ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})

    c.text = ml_collections.ConfigDict()
    c.text.tokenizer = "sentencepiece"
    c.text.sentencepiece = ""
    c.text.length = 128
    c.text.weights = ""
    c.text.encoder = ml_collections.ConfigDict(
        {
            "vocab_size": 32128,
            "d_model": 4096,
            "num_layers": 24,
            "num_heads": 64,
            "head_dim": 64,
            "d_ff": 10240,
            "dtype": "bfloat16",
        }
    )

    c.stage = ml_collections.ConfigDict({"resolution": 1024, "low_resolution": 256})

    c.network = ml_collections.ConfigDict(
        {
            "type": "efficient_unet",
            "channels": (128, 256, 512, 1024),
            "num_res_blocks": (2, 4, 8, 6),
            "strides": (2, 2, 2, 2),
            "attention": ("none", "none", "none", "text"),
            "heads": 8,
            "embedding_features": 512,
            "text_features": 1024,
            "positions": "none",
            "space_to_depth": 1,
            "remat": "block",
            "dtype": "bfloat16",
        }
    )

    c.diffusion = ml_collections.ConfigDict(
        {
            "schedule": {"type": "linear"},
            "parameterization": "eps",
            "weight": "uniform",
            "stratified": False,
            "text_drop": 0.1,
            "aug_schedule": {"type": "cosine"},
        }
    )

    c.data = ml_collections.ConfigDict(
        {
            # Stands in until a data set of one's own is named; see docs/data.md.
            "task": "emoji",
            "reader": "seqio",
            "batch_size": 2048,
            "crop": 256,
            "seed": 0,
            "threads": 16,
        }
    )

    c.optimizer = ml_collections.ConfigDict(
        {
            "kind": "adam",
            "peak_lr": 1e-4,
            "warmup_steps": 10_000,
            "decay": "cosine",
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "clip_norm": 1.0,
        }
    )

    c.training = ml_collections.ConfigDict(
        {
            "steps": 2_500_000,
            "ema_decay": 0.9999,
            "accumulation": 1,
            "on_nonfinite": "stop",
            "max_skipped": 100,
            "tensorboard": "auto",
            "ema_warmup": False,
            "log_every": 100,
            "save_every": 5_000,
            "keep": 3,
            "sample_every": 10_000,
            "sample_num": 16,
        }
    )

    c.sampling = ml_collections.ConfigDict(
        {
            "solver": {"name": "ancestral", "gamma": 0.3},
            "steps": 64,
            "w": 8.0,
            "threshold": "dynamic",
            "percentile": 0.995,
            "aug_level": 0.1,
        }
    )
    return c
