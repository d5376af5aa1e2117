"""The base of the emoji cascade, trained further from the weights of `emoji/base`.

The weights of 2,591 steps come with the repository, with their text encoder.

Expected: not measured yet.
Cost: 1,000 steps in 6 to 16 minutes on two CPU cores, by machine.
Command:
  imagen-jax train --config emoji/base_longer --workdir runs/base_longer \\
    --init_from imagen_jax/published/emoji_base/base.safetensors \\
    --config.text.weights=emoji_base
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("emoji/base")
    c.data.seed = 1  # other scenes than before
    c.optimizer.peak_lr = 1e-3
    c.training.steps = 15_000
    return c
