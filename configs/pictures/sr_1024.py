"""Your own captioned pictures, super-resolution 256 -> 1024, on crops of 256.

Pictures whose shorter side is under 1024 are left out.
Command:
  imagen-jax train --config pictures/sr_1024 --workdir runs/sr_1024 \\
    --config.text.weights=runs/text --config.data.pictures.path=FOLDER
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("emoji_1024/sr_1024")
    base = configs.load("pictures/base_64")
    c.text = base.text
    c.data.task = "pictures"
    c.data.pictures = base.data.pictures
    c.data.embeddings = ""
    c.data.batch_size = 32
    c.sampling.threshold = "dynamic"
    return c
