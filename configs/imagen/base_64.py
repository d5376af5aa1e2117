"""Imagen's base model at 64 x 64: 2B parameters (Saharia et al. 2022, appendix F.1).

Source: the listing of F.1 and section 4.1. What the paper leaves open (text length, EMA
decay, clipping, sampling steps) is listed in docs/fidelity.md.
Expected: with the two super-resolution stages and ~860M pairs, zero-shot COCO FID-30K
7.27 (the paper's figure; nothing of this size was trained here).
Cost: batch 2048 for 2.5M steps; the paper used 256 TPU-v4 chips.
Command:
  imagen-jax train --config imagen/base_64 --workdir gs://BUCKET/base \
    --config.text.weights=T5_XXL_DIR --config.text.sentencepiece=spiece.model \
    --config.data.pictures.path='gs://BUCKET/tars/*.tar'
"""

import ml_collections

from imagen_jax.commands import configs


def get_config() -> ml_collections.ConfigDict:
    c = ml_collections.ConfigDict()
    c.kind = "stage"
    c.name = "base"
    c.seed = 0
    # Parts of kernels in more ways are smaller than the TPU's tiles, and cannot be
    # gathered as they lie (docs/scaling.md). Fewer than 16 chips: --config.mesh.fsdp=4.
    c.mesh = ml_collections.ConfigDict(
        {"slices": 1, "data": -1, "fsdp": 16, "tensor": 1}
    )

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

    c.stage = ml_collections.ConfigDict({"resolution": 64, "low_resolution": 0})

    c.network = ml_collections.ConfigDict(
        {
            "type": "unet",
            "channels": 512,
            "channel_mult": (1, 2, 3, 4),
            "num_res_blocks": 3,
            "attention_levels": (1, 2, 3),
            "head_dim": 64,
            "text_features": 2048,
            "positions": "none",
            "space_to_depth": 1,
            "remat": "block",
            "dtype": "bfloat16",
        }
    )

    c.diffusion = ml_collections.ConfigDict(
        {
            "schedule": {"type": "cosine"},
            "parameterization": "eps",
            "weight": "uniform",
            "stratified": False,
            "text_drop": 0.1,
            "aug_schedule": {"type": "cosine"},
            "aug_max": 1.0,
            "blur_max": 0.0,
        }
    )

    c.data = ml_collections.ConfigDict(
        {
            "task": "pictures",
            # --config.data.pictures.path says where; see docs/data.md.
            "pictures": configs.load("pictures/text").data.pictures,
            "embeddings": "",
            "reader": "seqio",
            "batch_size": 2048,
            "crop": 0,
            "seed": 0,
            "threads": 16,
        }
    )

    c.optimizer = ml_collections.ConfigDict(
        {
            "kind": "adafactor",
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
            "kernel_dtype": "bfloat16",
            "max_replicated": 0.02,
            "on_nonfinite": "stop",
            "max_skipped": 100,
            "tensorboard": "auto",
            "wandb": "",
            "stuck_seconds": 300.0,
            "profile_from": 0,
            "profile_steps": 3,
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
            "steps": 256,
            "w": 5.0,
            "threshold": "dynamic",
            "percentile": 0.995,
            "aug_level": 0.0,
        }
    )
    return c
