"""Super-resolution of emoji scenes, 64 -> 256, for one GPU.

Not trained yet: no figure of it has been measured.
Command, in pieces of ten minutes:
  imagen-jax train --config emoji_1024/sr_256 --workdir runs/sr_256 --max_minutes 9
"""

from typing import Any

import ml_collections

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("emoji_1024/base_64")
    c.name = "sr_256"
    c.stage.resolution = 256
    c.stage.low_resolution = 64
    c.network = ml_collections.ConfigDict(
        {
            "type": "efficient_unet",
            "channels": (96, 128, 160),
            "num_res_blocks": (1, 1, 2),
            "strides": (1, 2, 2),
            "attention": ("none", "none", "self"),
            "heads": 4,
            "positions": "coordinates",
            "input_skip": True,
            "space_to_depth": 4,
            "dtype": "bfloat16",
        }
    )
    c.diffusion.weight = "uniform"
    c.diffusion.aug_max = 0.5
    c.data.batch_size = 64
    c.training.steps = 40_000
    c.training.sample_num = 8
    c.sampling.steps = 16
    c.sampling.w = None
    c.sampling.aug_level = 0.1
    return c
