"""The 300M base conditioned on BERT-Large, uncased.

Source: the paper explores BERT as a text encoder beside T5 and CLIP (Saharia et al.
2022, section 2.1) and prints no listing.
Expected: nothing of this size was trained here.
Cost: as imagen/base_64_300m, and a text encoder of 334M in place of 4.7B.
Command:
  imagen-jax convert --from bert bert-large-uncased --to BERT_DIR
  imagen-jax train --config imagen/base_64_300m_bert --workdir gs://BUCKET/base_bert \
    --config.text.weights=BERT_DIR --config.text.tokenizer_file=BERT_DIR/vocab.txt \
    --config.data.pictures.path='gs://BUCKET/tars/*.tar'
"""

from typing import Any

import ml_collections

from imagen_jax.commands import configs


def get_config() -> Any:
    c = configs.load("imagen/base_64_300m")
    c.text = ml_collections.ConfigDict()
    c.text.tokenizer = "bert"
    c.text.tokenizer_file = ""
    c.text.tokenizer_options = ml_collections.ConfigDict({"lowercase": True})
    c.text.length = 128
    c.text.weights = ""
    c.text.encoder = ml_collections.ConfigDict(
        {
            "type": "bert",
            "vocab_size": 30522,
            "d_model": 1024,
            "num_layers": 24,
            "num_heads": 16,
            "d_ff": 4096,
            "max_length": 512,
            "segments": 2,
            "activation": "gelu",
            "epsilon": 1e-12,
            "dtype": "bfloat16",
        }
    )
    return c
