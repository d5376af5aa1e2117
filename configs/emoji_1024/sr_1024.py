"""Super-resolution of emoji scenes, 256 -> 1024, for one GPU, trained on 256 px crops.

Not trained yet: no figure of it has been measured.
Command, in pieces of ten minutes:
  imagen-jax train --config emoji_1024/sr_1024 --workdir runs/sr_1024 --max_minutes 9
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("emoji_1024/sr_256")
    c.name = "sr_1024"
    c.stage.resolution = 1024
    c.stage.low_resolution = 256
    c.network.channels = (64, 96, 160)
    c.network.attention = ("none", "none", "text")
    c.network.positions = "none"
    c.data.crop = 256
    c.training.steps = 20_000
    c.training.sample_num = 2
    c.sampling.steps = 8
    return c
