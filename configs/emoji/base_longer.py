"""The base of the emoji cascade, trained further from the weights of `emoji/base`.

Goes on from the released weights and their text encoder; a run of `emoji/base` will do.
The released base was made so from such a run.

Expected, from 0.025: up to 0.038 after 300 steps, while the rate is high and the text
encoder new; 0.027 after 1,000, 0.023 after 1,500, 0.017 after 2,500, 0.015 after 3,600.
Cost: 90 minutes on one slow, shared CPU core.
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
    c.training.steps = 3600
    return c
