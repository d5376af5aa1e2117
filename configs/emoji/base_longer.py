"""The base of the emoji cascade, trained further from the weights of `emoji/base`.

Goes on from the released weights and their text encoder; a run of `emoji/base` will do.

Expected: not measured yet.
Cost: 1,000 steps in 6 to 16 minutes on two CPU cores, by machine.
Command:
  imagen-jax train --config emoji/base_longer --workdir runs/base_longer \\
    --init_from imagen_jax/published/emoji/base.safetensors \\
    --config.text.weights=emoji
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("emoji/base")
    c.data.seed = 1  # other scenes than before
    c.optimizer.peak_lr = 1e-3
    c.training.steps = 15_000
    return c
