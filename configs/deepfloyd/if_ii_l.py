"""DeepFloyd IF's stage II-L, 64 -> 256: 1.24 billion parameters.

Source: unet/config.json and scheduler/scheduler_config.json of DeepFloyd/IF-II-L-v1.0,
as diffusers' scripts/convert_if.py writes them; 50 steps, guidance weight 4 and noise
level 250 of 1000 are the defaults of diffusers' IFSuperResolutionPipeline.
Expected: the pictures of IF, with its weights (docs/weights.md); no training of this
size was done here.
Cost: a plan says it: imagen-jax plan --config deepfloyd/if_ii_l --program sample \
  --topology v5e:2x4
Command, to go on from converted weights:
  imagen-jax train --config deepfloyd/if_ii_l --workdir gs://BUCKET/if_256 \
    --init_from IF_DIR/if_256.safetensors --config.text.weights=IF_DIR \
    --config.text.sentencepiece=IF_DIR/spiece.model
"""

from typing import Any

import ml_collections

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("deepfloyd/if_i_xl")
    c.name = "if_256"
    c.stage.resolution = 256
    c.stage.low_resolution = 64
    c.network = ml_collections.ConfigDict(
        {
            "type": "deepfloyd",
            "channels": (160, 320, 640, 960, 1280),
            "num_res_blocks": (2, 2, 3, 5, 5),
            "attention_levels": (3, 4),
            "head_dim": 64,
            "text_features": 1280,
            "pooling_heads": 64,
            "embedding_width": 1280,
            "embedding_activation": "gelu",
            "activate_embedding": False,
            "out_channels": 6,
            "activation": "gelu",
            "residual_factor": 1 / 1.4142271248762552,
            "middle_residual_factor": 1 / 1.4142271248762552,
            "steps": 1000,
            "remat": "block",
            "dtype": "bfloat16",
        }
    )
    c.optimizer.kind = "adam"
    c.sampling.steps = 50
    c.sampling.w = 4.0
    c.sampling.threshold_cap = 1.0
    c.sampling.aug_level = 0.25
    return c
