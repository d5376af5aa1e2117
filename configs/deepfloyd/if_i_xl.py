"""DeepFloyd IF's stage I-XL, 64 x 64: 4,304,695,110 parameters.

Source: unet/config.json and scheduler/scheduler_config.json of DeepFloyd/IF-I-XL-v1.0;
100 steps and guidance weight 7 are the defaults of diffusers' IFPipeline. The text
encoder is T5 v1.1 XXL's, 77 places, all of them attended to.
Expected: the pictures of IF, with its weights (docs/weights.md); no training of this
size was done here.
Cost: a plan says it: imagen-jax plan --config deepfloyd/if_i_xl --program sample \
  --topology v5e:2x4
Command, to go on from converted weights:
  imagen-jax train --config deepfloyd/if_i_xl --workdir gs://BUCKET/if \
    --init_from IF_DIR/if_64.safetensors --config.text.weights=IF_DIR \
    --config.text.sentencepiece=IF_DIR/spiece.model
"""

from typing import Any

import ml_collections

from imagen_jax.commands import configs

TABLE = {"type": "discrete", "betas": "squaredcos_cap_v2", "steps": 1000}


def get_config() -> Any:
    c = configs.load("imagen/base_64")
    c.name = "if_64"
    c.text.length = 77
    c.text.unmasked = True
    c.text.cleaning = "deepfloyd"
    c.network = ml_collections.ConfigDict(
        {
            "type": "deepfloyd",
            "channels": (704, 1408, 2112, 2816),
            "num_res_blocks": 3,
            "attention_levels": (1, 2, 3),
            "head_dim": 64,
            "text_features": 2816,
            "pooling_heads": 64,
            "out_channels": 6,
            "activation": "gelu",
            "steps": 1000,
            "remat": "block",
            "dtype": "bfloat16",
        }
    )
    c.diffusion.schedule = ml_collections.ConfigDict(TABLE)
    c.diffusion.aug_schedule = ml_collections.ConfigDict(TABLE)
    # Its null is the empty prompt, which no batch brings.
    c.diffusion.text_drop = 0.0
    c.diffusion.enlargement = "bilinear_noised"
    c.diffusion.null_text = "empty_prompt"
    c.sampling = ml_collections.ConfigDict(
        {
            # gamma is the network's, whose variance is learned.
            "solver": {"name": "ancestral", "gamma": 0.0},
            "grid": "leading",
            "steps": 100,
            "w": 7.0,
            "threshold": "dynamic",
            "percentile": 0.95,
            "threshold_cap": 1.5,
            "aug_level": 0.0,
        }
    )
    return c
