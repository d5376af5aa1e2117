"""A tiny network and its run, for the tests of training; also a program to kill."""

import sys
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import partitioning
from imagen_jax.models import layers
from imagen_jax.training import loop, optimizer, step

B, I, O = 16, 12, 4  # noqa: E741


class Mlp(nn.Module):
    hidden: int = 16

    @nn.compact
    def __call__(self, x):
        x = nn.silu(layers.Dense(self.hidden, name="first")(x))
        return layers.Dense(O, ("mlp", "embed"), name="second")(x)


def init(key, hidden=16):
    return Mlp(hidden).init(key, jnp.zeros((1, I)))["params"]


def loss(key, params, frozen, batch, noise=0.1):
    x = batch["x"] + noise * jax.random.normal(key, batch["x"].shape)
    y = Mlp(params["first"]["kernel"].shape[1]).apply({"params": params}, x)
    return jnp.mean((y - batch["y"]) ** 2, axis=-1), {"mean": jnp.mean(y)}


def exact_loss(key, params, frozen, batch):
    return loss(key, params, frozen, batch, noise=0.0)


def batch(position):
    rng = np.random.default_rng(position)
    x = rng.normal(size=(B, I)).astype(np.float32)
    return {"x": x, "y": np.sin(x[:, :O])}


def make_batches(position, pause=0.0):
    while True:
        time.sleep(pause)
        yield batch(position)
        position += B


def run(mesh=None, **changes):
    schedule = optimizer.learning_rate(
        1e-2, warmup_steps=5, decay="cosine", total_steps=40
    )
    values = {
        "loss": loss,
        "init": init,
        "optimizer": optimizer.make("adam", schedule=schedule, clip_norm=1.0),
        "schedule": schedule,
        "ema_decay": step.ema_decay(0.9),
        "make_batches": make_batches,
        "mesh": mesh or partitioning.make_mesh({"data": 2, "fsdp": 4}),
    }
    return loop.TrainingRun(**values | changes)


def settings(workdir, **changes):
    values = {
        "workdir": str(workdir),
        "total_steps": 8,
        "log_every": 1,
        "save_every": 4,
        "tensorboard": "none",
        "progress": False,
        "max_replicated": 1.0,
    }
    return loop.LoopSettings(**values | changes)


def assert_identical(one, other):
    """Two trees hold the same bits."""
    a, b = (
        jax.tree_util.tree_flatten_with_path(jax.device_get(t)) for t in (one, other)
    )
    assert a[1] == b[1]
    for (path, x), (_, y) in zip(a[0], b[0], strict=True):
        np.testing.assert_array_equal(x, y, err_msg=str(path))


def main():
    workdir, total, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    loop.train(
        run(
            partitioning.make_mesh({"fsdp": 2}, jax.devices()[:2]),
            make_batches=lambda position: make_batches(position, pause),
        ),
        settings(workdir, total_steps=total),
    )


if __name__ == "__main__":
    main()
