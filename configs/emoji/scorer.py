"""The scorer of emoji scenes: finds objects and the background in a picture.

It judges what trained cascades draw (`imagen-jax evaluate --suite composition`).
Expected (with the error of sizes weighted 1 instead of 2): loss 0.86 after 500 steps,
0.25 after 1,000, 0.057 after 2,000.
Cost: 2,000 steps took 33 minutes on two slow, shared CPU cores.
Command:
  imagen-jax train --config emoji/scorer --workdir runs/scorer
  imagen-jax export runs/scorer --out my_scorer
"""

from typing import Any

import ml_collections

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("text/byte_t5")
    c.kind = "scorer"
    c.name = "scorer"
    c.text.length = 128  # the captions come along, unread
    del c.text.encoder
    del c.pretraining
    c.network = ml_collections.ConfigDict(
        {
            "stem_channels": 32,
            "channels": 96,
            "deep_channels": 160,
            "dtype": "float32",
        }
    )
    c.stage = ml_collections.ConfigDict({"resolution": 64, "low_resolution": 0})
    c.data.task = "labelled_emoji"
    c.data.batch_size = 64
    c.optimizer.warmup_steps = 200
    c.training.steps = 2000
    c.training.ema_decay = 0.998
    c.training.save_every = 500
    c.training.evaluate_every = 250
    c.training.evaluate_num = 512  # held-out pictures
    return c
