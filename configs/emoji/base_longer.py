"""The base of the emoji cascade, trained further from the weights of `emoji/base`.

Goes on from a finished run of `emoji/base`, with its text encoder.

Expected: not measured yet.
Cost: 1,000 steps in 6 to 16 minutes on two CPU cores, by machine.
Command:
  imagen-jax train --config emoji/base_longer --workdir runs/base_longer \\
    --init_from runs/base \\
    --config.text.weights=runs/text
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("emoji/base")
    c.data.seed = 1  # other scenes than before
    c.optimizer.peak_lr = 1e-3
    c.training.steps = 15_000
    return c
