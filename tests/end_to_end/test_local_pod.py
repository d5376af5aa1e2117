"""Two processes that talk to each other train as one does with the same devices."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from imagen_jax.checkpoints import store
from tests import compiling
from tests.end_to_end import runs

ROOT = runs.GOLDEN.parents[2]


def flags(workdir, text):
    return [
        "train", "--config", "shapes/base", "--workdir", str(workdir), *runs.SMALLEST,
        f"--config.text.weights={text}",
        "--config.training.steps=4",
        "--config.training.log_every=1",
    ]  # fmt: skip


@pytest.mark.slow
def test_two_hosts_make_the_same_update_as_one(tmp_path):
    """2 hosts of 2 devices against 1 host of 4: sums in another order, so 1e-5."""
    text = runs.random_text_encoder(tmp_path / "text")
    quick = compiling.for_devices(1)  # A host's own number comes behind it.
    environment = {**os.environ, "XLA_FLAGS": quick, "IMAGEN_JAX_TYPECHECK": "0"}
    pod = [sys.executable, str(ROOT / "launch" / "local_pod.py")]
    subprocess.run(
        [*pod, "--hosts", "2", "--", "imagen-jax", *flags(tmp_path / "two", text)],
        env=environment, check=True, timeout=300,
    )  # fmt: skip
    environment["XLA_FLAGS"] = compiling.for_devices(4)
    subprocess.run(
        [sys.executable, "-m", "imagen_jax", *flags(tmp_path / "one", text)],
        env=environment, check=True, timeout=300,
    )  # fmt: skip
    two, one = (
        store.flatten(store.load(tmp_path / name / "checkpoints", "params"))
        for name in ("two", "one")
    )
    assert two.keys() == one.keys()
    for name in two:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-5)
    losses = [
        [
            json.loads(line)["loss"]
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("two", "one")
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
