"""The 300M base at 64 x 64: `imagen/base_64` with 192 channels.

Source: the paper's smaller models (Saharia et al. 2022, section 4.4 and figure A.8),
of which it prints no listing; the base's, narrower (docs/fidelity.md).
Expected: nothing of this size was trained here.
Cost: the paper's ablations ran such models at batch 2048.
Command:
  imagen-jax train --config imagen/base_64_300m --workdir gs://BUCKET/base_300m \
    --config.text.weights=T5_XXL_DIR --config.text.sentencepiece=spiece.model
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("imagen/base_64")
    c.network.channels = 192
    c.network.text_features = 768
    return c
