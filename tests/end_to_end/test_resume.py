"""A killed run, started again, ends where an unharmed one does, bit for bit."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from imagen_jax.checkpoints import store
from tests.end_to_end import runs

STEPS = 24


def command(workdir, text, reader):
    return [
        sys.executable, "-m", "imagen_jax", "train", "--config", "shapes/base",
        "--workdir", str(workdir), *runs.SMALL,
        f"--config.text.weights={text}",
        f"--config.data.reader={reader}",
        f"--config.training.steps={STEPS}",
        "--config.training.log_every=1",
        "--config.training.save_every=4",
    ]  # fmt: skip


ENVIRONMENT = {
    **os.environ,
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    "IMAGEN_JAX_TYPECHECK": "0",
}


def finish(*args):
    subprocess.run(command(*args), env=ENVIRONMENT, check=True, capture_output=True)


def kill_in_the_middle(workdir, *args):
    """Start a run and SIGKILL it as soon as it has saved something."""
    process = subprocess.Popen(
        command(workdir, *args), env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not store.steps(workdir / "checkpoints"):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint in five minutes"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = max(store.steps(workdir / "checkpoints"))
    assert last < STEPS, "the run was over before it was killed"


def parameters(workdir):
    folder = workdir / "checkpoints"
    assert store.find_step(folder) == STEPS
    return [store.load(folder, part) for part in ("params", "ema_params", "opt_state")]


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unharmed")
    text = runs.random_text_encoder(folder / "text")
    finish(folder / "run", text, "grain")
    return text, parameters(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["grain", "seqio"])
def test_a_killed_run_ends_with_the_same_bits(unharmed, tmp_path, reader):
    if reader == "seqio":
        pytest.importorskip("seqio")
    text, expected = unharmed
    workdir = tmp_path / "run"
    kill_in_the_middle(workdir, text, reader)
    finish(workdir, text, reader)
    # Both readers give the same stream, so both are held against the grain run.
    jax.tree.map(np.testing.assert_array_equal, parameters(workdir), expected)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))
