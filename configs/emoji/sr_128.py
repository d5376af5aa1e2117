"""Super-resolution of emoji scenes, 32 -> 128: the second stage of the shipped cascade.

Expected: see docs/emoji_model.md.
Cost: about 8 minutes on two CPU cores.
Command:
  imagen-jax train --config emoji/sr_128 --workdir runs/sr_128
"""

from typing import Any

import ml_collections

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("emoji/base")
    c.name = "sr_128"
    c.stage.resolution = 128
    c.stage.low_resolution = 32
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
    # Much of x can be read off the low-resolution picture at any noise level, which
    # min-SNR weights hardly ask for where z is noisy. See docs/emoji_model.md.
    c.diffusion.weight = "uniform"
    c.data.batch_size = 32
    c.optimizer.peak_lr = 1e-3
    c.training.steps = 1000
    c.training.ema_decay = 0.997
    c.training.sample_every = 250
    c.training.sample_num = 8
    c.sampling.steps = 20
    c.sampling.w = None
    c.sampling.aug_level = 0.1
    return c
