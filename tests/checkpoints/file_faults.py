"""Kill a save at each of its file operations in turn; the program that is killed.

`python -m tests.checkpoints.file_faults FOLDER [EVERY]` builds the library that kills
(file_faults.c, with the C compiler `cc`), runs itself under it, and prints how many
operations there were, by name, and at how many the save was killed: at each EVERY-th.
What C++ threads write is counted as what Python does: the library stands before libc.
"""

import collections
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess
import sys

SOURCE = pathlib.Path(__file__).with_suffix(".c")
ROOT = pathlib.Path(__file__).parents[2]
# The save of step 3 deletes step 1.
KEEP = 2


def run(folder: pathlib.Path, every: int = 1) -> str:
    """Build and run; what it printed. Raises CalledProcessError if a check failed."""
    library = folder / "file_faults.so"
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.checkpoints.file_faults", folder, str(every)],
        env=os.environ
        | {
            "LD_PRELOAD": str(library),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",
            "PYTHONPATH": str(ROOT),
        },
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def state_at(step: int):
    import jax
    import numpy as np

    # One array is big beside what is kept inline, so that it has a write of its own.
    a = np.full((64, 64), step, np.float32)
    return jax.device_put({"a": a, "b": {"c": np.arange(3, dtype=np.int32) + step}})


def save(folder: pathlib.Path, *steps: int) -> None:
    from imagen_jax.checkpoints import store

    with store.Store(folder, keep=KEEP) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_at(step), {"examples_seen": 16 * step})


def check(folder: pathlib.Path) -> None:
    """The next start finds a whole checkpoint, the newest that it can be, and saves."""
    import jax
    import numpy as np

    from imagen_jax.checkpoints import store

    with store.Store(folder, keep=KEEP) as checkpoints:
        step = checkpoints.latest_step()
        assert step in (2, 3), step
        state, position = checkpoints.restore(jax.eval_shape(lambda: state_at(0)))
        assert position == {"examples_seen": 16 * step}
        jax.tree.map(np.testing.assert_array_equal, state, state_at(step))
        checkpoints.save(step + 1, state_at(step + 1), {})
    assert store.find_step(folder) == step + 1
    assert not list(folder.glob("*tmp*")), "what the kill left is still there"


def in_a_child(work, *arguments) -> int:
    """Run in a fork, which has everything imported already; the status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work(*arguments)
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(folder: pathlib.Path, every: int) -> None:
    import jax  # noqa: F401  imported once, for all the forks

    import imagen_jax.checkpoints.store  # noqa: F401

    faults = ctypes.CDLL(None)
    faults.file_faults_name.restype = ctypes.c_char_p
    whole, victim = folder / "whole", folder / "victim"
    shutil.rmtree(whole, ignore_errors=True)
    assert in_a_child(save, whole, 1, 2) == 0
    shutil.copytree(whole / "2", whole / "3.orbax-checkpoint-tmp-0")  # an older kill's

    def attempt(at: int) -> None:
        faults.file_faults_begin(str(victim).encode(), at)
        save(victim, 3)
        number = faults.file_faults_count()
        names = [faults.file_faults_name(i) for i in range(1, number + 1)]
        (folder / "names").write_text("\n".join(name.decode() for name in names))

    def copy() -> None:
        shutil.rmtree(victim, ignore_errors=True)
        shutil.copytree(whole, victim)

    copy()
    assert in_a_child(attempt, 0) == 0
    names = (folder / "names").read_text().split()
    counted = collections.Counter(names)
    killed = 0
    for at in range(1, len(names) + 1, every):
        copy()
        status = in_a_child(attempt, at)
        # Threads differ from run to run: an operation or two may not come.
        assert status == -signal.SIGKILL or at > len(names) - 10, (at, status)
        killed += status == -signal.SIGKILL
        assert in_a_child(check, victim) == 0, f"killed at {at}, {names[at - 1]}"
    print(f"{len(names)} operations: {dict(counted)}; killed at {killed} of them")


if __name__ == "__main__":
    if "LD_PRELOAD" in os.environ:
        main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
    else:
        print(run(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:])), end="")
