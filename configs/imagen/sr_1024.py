"""Imagen's super-resolution 256 -> 1024: ~400M (Saharia et al. 2022, appendix F.3).

Source: the listing of F.3. Trained on 256 px crops of 1024 px pictures; with text
cross-attention only it then runs on whole ones (section 2.5). The listing counts about
500M; two blocks fewer at the deepest level bring it near 400M (docs/fidelity.md).
Expected: nothing of this size was trained here.
Cost: batch 2048 for 2.5M steps; the paper used 128 TPU-v4 chips.
Command:
  imagen-jax train --config imagen/sr_1024 --workdir gs://BUCKET/sr_1024 \
    --config.text.weights=T5_XXL_DIR --config.text.sentencepiece=spiece.model
"""

from typing import Any

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("imagen/sr_256")
    c.name = "sr_1024"
    c.stage.resolution = 1024
    c.stage.low_resolution = 256
    c.network.num_res_blocks = (2, 4, 8, 6)
    c.network.attention = ("none", "none", "none", "text")
    c.network.embedding_features = 512
    c.diffusion.schedule.type = "linear"
    c.data.crop = 256
    c.sampling.steps = 64
    return c
