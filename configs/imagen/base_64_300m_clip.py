"""The 300M base conditioned on the text encoder of OpenAI's CLIP ViT-L/14.

Source: the paper compares CLIP's text encoder with T5 (Saharia et al. 2022, section
2.1); its listing is not printed. Embeddings are those after the last block, normed;
`--config.text.encoder.layer=penultimate` takes the ones before, from the same weights.
Expected: the paper finds CLIP on a par with T5-XXL on COCO and behind it in people's
judgement on DrawBench; nothing of this size was trained here.
Cost: as imagen/base_64_300m, and a text encoder of 123M in place of 4.7B.
Command:
  imagen-jax convert --from clip clip-vit-large-patch14 --to CLIP_DIR
  imagen-jax train --config imagen/base_64_300m_clip --workdir gs://BUCKET/base_clip \
    --config.text.weights=CLIP_DIR --config.text.tokenizer_file=CLIP_DIR/vocab.json \
    --config.data.pictures.path='gs://BUCKET/tars/*.tar'
"""

from typing import Any

import ml_collections

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("imagen/base_64_300m")
    c.text = ml_collections.ConfigDict()
    c.text.tokenizer = "clip"
    c.text.tokenizer_file = ""
    c.text.tokenizer_options = ml_collections.ConfigDict({"pad": "<|endoftext|>"})
    c.text.length = 77
    c.text.weights = ""
    c.text.encoder = ml_collections.ConfigDict(
        {
            "type": "clip",
            "vocab_size": 49408,
            "d_model": 768,
            "num_layers": 12,
            "num_heads": 12,
            "d_ff": 3072,
            "max_length": 77,
            "activation": "quick_gelu",
            "epsilon": 1e-5,
            "layer": "last",
            "final_norm": True,
            "dtype": "bfloat16",
        }
    )
    return c
