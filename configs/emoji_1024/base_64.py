"""Emoji scenes at 64 x 64 for one GPU: the base of a cascade that ends at 1024 px.

Not trained yet: no figure of it has been measured.
Command, in pieces of ten minutes, with a text encoder from `emoji/text`:
  imagen-jax train --config emoji_1024/base_64 --workdir runs/base_64 \\
    --config.text.weights=runs/text --max_minutes 9
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("emoji/base")
    c.name = "base_64"
    c.stage.resolution = 64
    c.network.space_to_depth = 4
    c.network.channels = 160
    c.network.num_res_blocks = 2
    c.network.dtype = "bfloat16"
    c.data.batch_size = 256
    c.data.threads = 16
    c.optimizer.peak_lr = 1e-3
    c.optimizer.warmup_steps = 500
    c.training.steps = 60_000
    c.training.ema_decay = 0.9995
    c.training.log_every = 100
    c.training.save_every = 2000
    c.training.sample_every = 5000
    return c
