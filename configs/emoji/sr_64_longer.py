"""Super-resolution 16 -> 64 from the weights of `emoji/sr_64` on.

Expected: not measured yet.
Cost: as `emoji/sr_64`.
Command:
  imagen-jax train --config emoji/sr_64_longer --workdir runs/sr_64_longer \\
    --init_from imagen_jax/published/emoji/sr_64.safetensors \\
    --config.text.weights=emoji
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("emoji/sr_64")
    c.data.seed = 1  # other scenes than before
    c.optimizer.peak_lr = 7e-4
    c.training.steps = 10_000
    return c
