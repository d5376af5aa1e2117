"""The fault drill: a pod is killed and told to end in every way, and started again.

`python -m tests.end_to_end.drill FOLDER [SCENARIO ...]` runs real processes through
launch/local_pod.py and prints a line for each restart. A small network stands in for a
large one; the loop, the checkpoints, the log and the joining are those of training.

- step:        SIGKILL to a worker between two saves
- save:        SIGKILL to a worker while a checkpoint is being written
- coordinator: SIGKILL to host 0 while a checkpoint is being written
- sigterm:     SIGTERM to one host
- files:       SIGKILL at each file operation of a save (checkpoints/file_faults.py)

Each time the others must end by themselves, within 30 s and with one line. Restarted on
the same, half and double the hosts, the run must end with the parameters, averages and
optimizer state, and each step's loss, of a run that nothing happened to: bit for bit on
the same mesh, to rounding on another. Every step's examples must be those that are
next: each batch's numbers and their squares are summed on the devices and logged.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np

from imagen_jax import distributed, partitioning
from imagen_jax.checkpoints import store
from imagen_jax.commands import joining
from imagen_jax.training import loop
from tests import toy
from tests.checkpoints import file_faults

ROOT = pathlib.Path(__file__).parents[2]
STEPS, SAVE_EVERY, HOSTS, DEVICES = 60, 10, 2, 2
SECONDS = 30.0  # in which the others must have ended
SCENARIOS = {
    # victim, signal, moment
    "step": (1, signal.SIGKILL, "step"),
    "save": (1, signal.SIGKILL, "save"),
    "coordinator": (0, signal.SIGKILL, "save"),
    "sigterm": (1, signal.SIGTERM, "step"),
}


def make_batches(position: int):
    """This process's share of the batches, slowly enough to be caught at it."""
    index, count = jax.process_index(), jax.process_count()
    share = slice(index * toy.B // count, (index + 1) * toy.B // count)
    while True:
        time.sleep(0.03)
        numbers = np.arange(position, position + toy.B, dtype=np.float32)
        batch = toy.batch(position) | {"number": numbers}
        yield {name: array[share] for name, array in batch.items()}
        position += toy.B


def loss(key, params, frozen, batch):
    losses, _ = toy.loss(key, params, frozen, batch)
    number = batch["number"]
    return losses, {"numbers": number.sum(), "squares": (number**2).sum()}


def work(arguments: list[str]) -> None:
    """One host of the pod."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    joining.add_arguments(parser)
    args = parser.parse_args(arguments)
    joining.start(args)
    with distributed.ending_together():
        mesh = partitioning.make_mesh({"fsdp": -1})
        settings = toy.settings(
            args.workdir,
            total_steps=STEPS,
            save_every=SAVE_EVERY,
            keep=9,
            progress=True,
        )
        loop.train(toy.run(mesh, loss=loss, make_batches=make_batches), settings)


class Pod:
    """A running pod; its words go to FOLDER.log."""

    def __init__(self, workdir: pathlib.Path, hosts: int, devices: int = DEVICES):
        self.workdir, self.log = workdir, workdir.with_suffix(".log")
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                [
                    sys.executable, ROOT / "launch" / "local_pod.py",
                    "--hosts", str(hosts), "--devices", str(devices), "--",
                    sys.executable, "-m", "tests.end_to_end.drill", "work", workdir,
                ],
                stderr=file, cwd=ROOT,
                env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                                              "XLA_FLAGS": ""},
            )  # fmt: skip

    def until(self, condition, seconds: float = 300.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, (
                f"it ended early: {self.words()[-2000:]}"
            )
            assert time.monotonic() < end, f"it hangs: {self.words()[-2000:]}"
            time.sleep(0.001)

    def words(self) -> str:
        return self.log.read_text()

    def pids(self) -> list[int]:
        self.until(lambda: "processes" in self.words())
        return [int(p) for p in re.findall(r"\d+", self.words().splitlines()[0])]

    def wait(self) -> int:
        return self.process.wait(timeout=300)


def lines(workdir: pathlib.Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def hurt(workdir: pathlib.Path, scenario: str, devices: int = DEVICES) -> list[str]:
    """Run a pod until the scenario has happened to it; what its log said of ends."""
    victim, number, moment = SCENARIOS[scenario]
    for _ in range(5):
        shutil.rmtree(workdir, ignore_errors=True)
        pod = Pod(workdir, HOSTS, devices)
        target = pod.pids()[victim]
        saves = workdir / "checkpoints"
        if moment == "step":
            pod.until(lambda: len(lines(workdir)) >= 2.5 * SAVE_EVERY)
        else:
            begun = f"{2 * SAVE_EVERY}.*tmp*"
            pod.until(lambda: any(saves.glob(begun)))  # noqa: B023
        os.kill(target, number)
        status = pod.wait()
        there = store.steps(saves)
        if moment == "step" or there == [SAVE_EVERY]:  # else the save was quicker
            break
    else:
        raise AssertionError("the save was always quicker")
    told = re.findall(r"local_pod: host \d .*", pod.words())
    errors = re.findall(r"imagen-jax: error: host \d of \d: .*", pod.words())
    if number == signal.SIGTERM:
        assert status == 0 and not told and not errors, pod.words()
        assert f"Stopped at step {there[-1]};" in pod.words()
        assert there[-1] == len(lines(workdir)) < STEPS
        return [f"all saved step {there[-1]} and ended with status 0"]
    assert status != 0 and len(told) == HOSTS, pod.words()
    assert len(errors) == HOSTS - 1 and len(told) == HOSTS, pod.words()
    times = [float(s) for s in re.findall(r"([\d.]+) s after the first", pod.words())]
    assert len(times) == HOSTS and max(times) < SECONDS, told
    return [f"the others ended within {max(times):.1f} s", *errors]


def compare(workdir: pathlib.Path, whole: pathlib.Path, *, exact: bool) -> float:
    """Hold a run against the unharmed one; how far its losses are off, relatively."""
    ours, theirs = lines(workdir), lines(whole)
    assert [r["step"] for r in ours] == list(range(1, STEPS + 1))
    for record in ours:
        numbers = np.arange((record["step"] - 1) * toy.B, record["step"] * toy.B)
        # Sums of whole numbers under 2^24: exact in float32.
        assert record["numbers"] == numbers.sum(), record
        assert record["squares"] == (numbers**2).sum(), record
    losses = np.array([[r["loss"] for r in run] for run in (ours, theirs)])
    same = np.testing.assert_array_equal
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    (same if exact else close)(*losses)
    for part in ("params", "ema_params", "opt_state", "step"):
        a, b = (store.load(run / "checkpoints", part) for run in (workdir, whole))
        jax.tree.map(same if exact else close, a, b)
    return float(np.max(np.abs(losses[0] / losses[1] - 1)))


def unharmed(folder: pathlib.Path, devices: int = DEVICES) -> pathlib.Path:
    whole = folder / "whole"
    if not whole.exists() or len(lines(whole)) < STEPS:
        shutil.rmtree(whole, ignore_errors=True)
        pod = Pod(whole, HOSTS, devices)
        assert pod.wait() == 0, pod.words()
    return whole


def restart(hurt_run: pathlib.Path, hosts: int, devices: int = DEVICES) -> pathlib.Path:
    """Go on with a copy of a hurt run on so many hosts, to the end."""
    workdir = hurt_run.with_name(f"{hurt_run.name}_{hosts}")
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(hurt_run, workdir)
    pod = Pod(workdir, hosts, devices)
    assert pod.wait() == 0, pod.words()
    return workdir


def main(folder: pathlib.Path, scenarios: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if scenarios == ["files"]:
        print(f"files: {file_faults.run(folder)}", end="")
        return
    whole = unharmed(folder)
    for scenario in scenarios or SCENARIOS:
        workdir = folder / scenario
        for words in hurt(workdir, scenario):
            print(f"{scenario}: {words}", flush=True)
        begin = store.find_step(workdir / "checkpoints")
        for hosts in (HOSTS, HOSTS // 2, HOSTS * 2):
            exact = hosts == HOSTS
            off = compare(restart(workdir, hosts), whole, exact=exact)
            print(
                f"{scenario}: {HOSTS} -> {hosts} hosts from step {begin} to {STEPS}: "
                f"{'the same bits' if exact else f'losses within {off:.1e}'}, "
                f"{STEPS * toy.B} examples in order",
                flush=True,
            )
    if not scenarios:
        main(folder, ["files"])


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(sys.argv[2:])
    else:
        main(pathlib.Path(sys.argv[1]), sys.argv[2:])
