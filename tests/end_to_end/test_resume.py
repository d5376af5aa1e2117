"""A killed run, started again, ends where an unharmed one does, bit for bit."""

import json
import pathlib
import signal
import sys

import jax
import numpy as np
import pytest

from imagen_jax.checkpoints import store
from tests import compiling, killing
from tests.end_to_end import runs

STEPS = 12
ENVIRONMENT = {
    "XLA_FLAGS": compiling.for_devices(2),
    "IMAGEN_JAX_TYPECHECK": "0",
}


def command(workdir, text, reader):
    return [
        sys.executable, "-m", "imagen_jax", "train", "--config", "shapes/base",
        "--workdir", str(workdir), *runs.SMALLEST,
        f"--config.text.weights={text}",
        f"--config.data.reader={reader}",
        f"--config.training.steps={STEPS}",
        "--config.training.log_every=1",
        "--config.training.save_every=4",
        # What one run has compiled serves them all.
        "--compilation_cache", str(pathlib.Path(text).parent / "compiled"),
    ]  # fmt: skip


def states(workdir):
    assert store.find_step(workdir / "checkpoints") == STEPS
    parts = ("params", "ema_params", "opt_state")
    return [killing.state_of(workdir, part) for part in parts]


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unharmed")
    text = runs.random_text_encoder(folder / "text")
    killing.run(command(folder / "run", text, "grain"), **ENVIRONMENT)
    return text, states(folder / "run")


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["grain", "seqio"])
def test_a_killed_run_ends_with_the_same_bits(unharmed, tmp_path, reader):
    if reader == "seqio":
        pytest.importorskip("seqio")
    text, expected = unharmed
    workdir = tmp_path / "run"
    training = command(workdir, text, reader)
    status = killing.run_until(training, workdir, 4, **ENVIRONMENT)
    assert status == -signal.SIGKILL
    assert store.find_step(workdir / "checkpoints") < STEPS
    killing.run(training, **ENVIRONMENT)
    # Both readers give the same stream, so both are held against the grain run.
    jax.tree.map(np.testing.assert_array_equal, states(workdir), expected)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))
