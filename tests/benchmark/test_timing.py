"""`imagen-jax bench` on a tiny config."""

import json

import pytest

from imagen_jax.benchmark import timing
from imagen_jax.commands import configs, main

TINY = (
    "--config.network.channels=16",
    "--config.network.channel_mult=(1,)",
    "--config.network.num_res_blocks=1",
    "--config.network.attention_levels=()",
    "--config.network.feed_forward=(0,)",
    "--config.network.text_map=0",
    "--config.network.head_dim=16",
    "--config.text.encoder.d_model=16",
    "--config.text.encoder.num_layers=1",
)


@pytest.mark.slow
def test_a_training_step_is_timed_and_its_products_alone(capsys):
    argv = ["bench", "--config", "emoji/base", "--batch", "16", "--runs", "3", "--json"]
    assert main.main([*argv, "--warmup", "1", *TINY]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["seconds"]) == 3 and min(found["seconds"]) > 0
    assert found["devices"] == 8 and found["mesh"] == {"data": 8}
    assert found["median_seconds"] == sorted(found["seconds"])[1]
    assert found["images_per_second"] == pytest.approx(16 / found["median_seconds"])
    assert found["flops"] > 0
    # No peak is made up for a CPU.
    assert found["peak"] is None and found["utilisation"] is None
    assert found["product_seconds"] > 0 and 0.99 <= found["product_share"] <= 1


def test_no_runs_and_a_mesh_that_splits_products_are_refused(capsys):
    flags = ["--config.mesh.tensor=2", "--no_products", "--runs", "0"]
    assert main.main(["bench", "--config", "emoji/base", *flags]) == 2
    assert "runs and warmup must be at least 1" in capsys.readouterr().err
    config = configs.load("emoji/base")
    mesh = timing.partitioning.make_mesh({"data": -1, "tensor": 2})
    with pytest.raises(ValueError, match="--no_products"):
        timing.product_seconds(config, "train", mesh, 32)
