"""The text encoder of `shapes/base`: `text/byte_t5` on shapes captions alone, shorter.

Expected: loss 0.21 after 500 steps.
Cost: 70 s on two CPU cores.
Command:
  imagen-jax train --config shapes/text --workdir runs/shapes_text
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("text/byte_t5")
    c.text.length = 48
    c.data.task = "shapes_captions"
    c.training.steps = 500
    return c
