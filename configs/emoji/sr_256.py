"""Super-resolution of emoji scenes, 64 -> 256: the last stage of the emoji cascade.

Trained on 64 px crops of 256 px pictures, as Imagen's last stage is on crops (Saharia
et al. 2022, section 2.5); without self-attention it then runs on whole pictures.

Expected: loss 0.030 after 100 steps, 0.024 after 200, 0.018 after 500, 0.014 after
1,000, 0.013 after 1,500.
Cost: 8 minutes on one slow, shared CPU core.
Command:
  imagen-jax train --config emoji/sr_256 --workdir runs/sr_256 \\
    --config.text.weights=runs/text
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("emoji/sr_64")
    c.name = "sr_256"
    c.stage.resolution = 256
    c.stage.low_resolution = 64
    c.network.channels = (64, 96)
    c.network.num_res_blocks = (1, 2)
    c.network.attention = ("none", "text")
    c.network.positions = "none"
    c.network.feed_forward = 0
    c.network.text_map = 0
    c.diffusion.blur_max = 0.5
    c.data.crop = 64
    c.training.steps = 1500
    c.training.sample_every = 1000
    c.training.sample_num = 8
    return c
