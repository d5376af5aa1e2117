"""Your own captioned pictures at 64 x 64: the base of a small cascade.

Sized for one GPU or a TPU host; with dtype=float32 and a smaller batch it begins on a
laptop. No figure of it has been measured: that depends on the pictures.
Command:
  imagen-jax train --config pictures/base_64 --workdir runs/base_64 \\
    --config.text.weights=runs/text --config.data.pictures.path=FOLDER
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("emoji_1024/base_64")
    text = configs.load("pictures/text")
    c.text = text.text
    c.text.weights = ""
    c.data.task = "pictures"
    c.data.pictures = text.data.pictures
    c.data.embeddings = ""  # a folder that `imagen-jax embed` has made
    c.data.batch_size = 128
    # Photographs have many faces for one caption: Imagen's own choices.
    c.diffusion.schedule = {"type": "cosine"}
    c.sampling.steps = 64
    c.sampling.w = 3.0
    c.sampling.threshold = "dynamic"
    return c
