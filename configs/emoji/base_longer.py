"""The base of the emoji cascade, trained further from the weights of `emoji/base`.

Expected: not measured yet.
Cost: about 35 minutes on two CPU cores a 5,000 steps.
Command:
  imagen-jax train --config emoji/base_longer --workdir runs/base_longer \\
    --init_from runs/base --config.text.weights=runs/text
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("emoji/base")
    c.data.seed = 1  # other scenes than before
    c.optimizer.peak_lr = 1e-3
    c.training.steps = 15_000
    return c
