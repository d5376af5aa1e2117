"""A small text encoder for your own captions, for machines too small for a T5.

It reads bytes, so that any language will do, and learns to fill in hidden ones.
Command:
  imagen-jax train --config pictures/text --workdir runs/text \\
    --config.data.pictures.path=FOLDER
"""

from typing import Any

import ml_collections

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("text/byte_t5")
    c.text.encoder.d_model = 192
    c.data.task = "pictures"
    c.data.pictures = pictures()
    return c


def pictures() -> ml_collections.ConfigDict:
    """The group `data.pictures`; `imagen_jax/data/picture_task.py` explains each."""
    return ml_collections.ConfigDict(
        {
            "path": "",
            "weights": (),
            "split": "train",
            "index": "",
            "picture": "",
            "caption": "",
            "crop": "center",
            "buckets": (),
            "shuffle": "global",
            "caption_drop": 0.0,
            "heldout": 0.01,
            "max_bad": 0.05,
            "min_side": 0,
            "max_aspect": 0.0,
            "min_caption": 0,
            "max_caption": 0,
            "column": "",
            "at_least": 0.0,
        }
    )
