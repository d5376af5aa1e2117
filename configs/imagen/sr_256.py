"""Imagen's super-resolution 64 -> 256: ~600M (Saharia et al. 2022, appendix F.2).

Source: the listing of F.2; the width of the embedding, which it does not print, is
chosen so that the network counts 600M as section 4.1 says (docs/fidelity.md).
Expected: nothing of this size was trained here.
Cost: batch 2048 for 2.5M steps; the paper used 128 TPU-v4 chips.
Command:
  imagen-jax train --config imagen/sr_256 --workdir gs://BUCKET/sr_256 \
    --config.text.weights=T5_XXL_DIR --config.text.sentencepiece=spiece.model
"""

from typing import Any

import ml_collections

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("imagen/base_64")
    c.name = "sr_256"
    c.stage.resolution = 256
    c.stage.low_resolution = 64
    c.network = ml_collections.ConfigDict(
        {
            "type": "efficient_unet",
            "channels": (128, 256, 512, 1024),
            "num_res_blocks": (2, 4, 8, 8),
            "strides": (2, 2, 2, 2),
            "attention": ("none", "none", "none", "self"),
            "heads": 8,
            "embedding_features": 2048,
            "text_features": 1024,
            "positions": "none",
            "space_to_depth": 1,
            "remat": "block",
            "dtype": "bfloat16",
        }
    )
    # Adafactor hurt super-resolution (section 4.1).
    c.optimizer.kind = "adam"
    c.sampling.steps = 128
    c.sampling.w = 8.0
    c.sampling.aug_level = 0.1
    return c
