"""Small training runs for the end-to-end tests, and their golden curve.

`python -m tests.end_to_end.runs` writes tests/golden/loss_curve.json anew; do it only
when a change of the curve is intended, and say why in the commit.
"""

import json
import pathlib
import platform

import flax
import flax.linen as nn
import jax
import optax

from imagen_jax import build
from imagen_jax.checkpoints import model_directory
from imagen_jax.commands import configs
from imagen_jax.training import loop

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "loss_curve.json"

SMALL = [
    "--config.text.encoder.d_model=32",
    "--config.text.encoder.num_layers=1",
    "--config.network.channels=32",
    "--config.network.head_dim=16",
    "--config.data.batch_size=8",
    "--config.optimizer.warmup_steps=2",
    "--config.training.sample_every=0",
]
# One level instead of two: compiled in half the time.
SMALLEST = [
    *SMALL,
    "--config.network.channel_mult=(1,)",
    "--config.network.attention_levels=(0,)",
]


def random_text_encoder(folder) -> str:
    """A model directory that holds nothing but an untrained text encoder."""
    config = configs.load("shapes/base")
    configs.override(config, SMALL)
    init = build.encoder_init(build.make_text_module(config), config.text.length)
    params = nn.unbox(jax.jit(init)(jax.random.key(0)))
    model_directory.write(folder, [], {"text": params}, "float32")
    return str(folder)


def small_config(text_folder: str, *overrides: str):
    """`shapes/base`, small enough for a test."""
    config = configs.load("shapes/base")
    weights = f"--config.text.weights={text_folder}"
    configs.override(config, [*SMALL, weights, *overrides])
    return config


def curve(folder) -> list[float]:
    """The losses of 20 steps of a small base stage."""
    text = random_text_encoder(folder / "text")
    config = small_config(
        text, "--config.training.steps=20", "--config.training.log_every=1"
    )
    settings = build.loop_settings(
        config, str(folder / "run"), tensorboard="none", progress=False
    )
    loop.train(build.training_run(config), settings)
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def main() -> None:
    """Write the golden curve."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        losses = curve(pathlib.Path(folder))
    made_with = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "optax": optax.__version__,
    }
    GOLDEN.write_text(json.dumps({"made_with": made_with, "loss": losses}, indent=1))


if __name__ == "__main__":
    main()
