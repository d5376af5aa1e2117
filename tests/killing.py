"""Start a training command, and end it as a machine's failure or a scheduler would."""

import os
import pathlib
import signal
import subprocess
import time

from imagen_jax.checkpoints import store


def run(command, **environment):
    """Run to the end; a failure shows the command's words."""
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def run_until(
    command, workdir, step, number=signal.SIGKILL, timeout=300, **environment
):
    """Run until the checkpoint of `step` is there, then send a signal; the status."""
    checkpoints = pathlib.Path(workdir) / "checkpoints"
    process = subprocess.Popen(command, env=os.environ | environment)
    try:
        end = time.monotonic() + timeout
        while not any(there >= step for there in store.steps(checkpoints)):
            assert process.poll() is None, "the command ended before it could be killed"
            assert time.monotonic() < end, f"no checkpoint of step {step} in time"
            time.sleep(0.02)
        process.send_signal(number)
        return process.wait(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()


def state_of(workdir, part="params"):
    """A part of the newest checkpoint."""
    return store.load(pathlib.Path(workdir) / "checkpoints", part)
