"""Sweeps from the command line: with a trainer that only counts, and for real."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.launch.fakes import ROOT, error_of

BASE = ["--", "imagen-jax", "train", "--config", "text/byte_t5"]
# Counts up to its steps, one checkpoint a step; fails where a file says so.
TRAINER = """\
import json, os, pathlib, signal, sys, time
flags = dict(w.split("=", 1) for w in sys.argv if w.startswith("--config."))
work = pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1])
here = pathlib.Path(os.environ["HOME"])
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
saved = work / "checkpoints"
saved.mkdir(parents=True, exist_ok=True)
begin = max((int(p.name) for p in saved.iterdir()), default=0)
print("from", begin, flush=True)
if (here / f"bad{flags['--config.seed']}").exists():
    sys.exit("cannot train this")
for step in range(begin + 1, int(flags["--config.training.steps"]) + 1):
    while (here / "hold").exists() and not told:
        (here / f"holding{os.getpid()}").touch()
        time.sleep(0.02)
    record = {"step": step, "loss": int(flags["--config.seed"]) + 1 / step}
    record |= {"steps_per_second": 0.5, "score": step % 3}
    with (work / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\\n")
    (saved / str(step)).mkdir()
    if told:
        break
"""


class Sweeps:
    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.out = folder / "out"
        (folder / "fake" / "imagen_jax").mkdir(parents=True)
        (folder / "fake" / "imagen_jax" / "__init__.py").write_text("")
        (folder / "fake" / "imagen_jax" / "__main__.py").write_text(TRAINER)
        self.environment = {
            "PATH": f"{folder}/bin:/usr/bin:/bin", "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip

    def argv(self, *words, steps=4):
        fake = f"--env=PYTHONPATH={self.folder / 'fake'}"
        script = [sys.executable, str(ROOT / "launch" / "sweep.py"), str(self.out)]
        return [*script, fake, *words, *BASE, f"--config.training.steps={steps}"]

    def start(self, *words, **more):
        return subprocess.Popen(
            self.argv(*words, **more), env=self.environment, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *words, **more):
        process = self.start(*words, **more)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def rows(self):
        with (self.out / "results.csv").open() as file:
            return list(csv.DictReader(file))

    def states(self):
        return [row["state"] for row in self.rows()]

    def log(self, name):
        return (self.out / name / "log.txt").read_text()

    def hold(self):
        (self.folder / "hold").touch()

    def let_go(self):
        (self.folder / "hold").unlink()

    def wait_until_held(self, number=1):
        end = time.monotonic() + 30
        while len(list(self.folder.glob("holding*"))) < number:
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.fixture
def sweeps(tmp_path):
    return Sweeps(tmp_path)


def test_runs_are_trained_and_compared(sweeps):
    done = sweeps.run("--grid=seed=0,1")
    assert done.returncode == 0, done.stderr
    expected = (
        "| run | seed | state | step | loss | best loss | at step | minutes |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| seed=0 | 0 | finished | 4 of 4 | 0.25 | 0.25 | 4 | 0.13 |\n"
        "| seed=1 | 1 | finished | 4 of 4 | 1.25 | 1.25 | 4 | 0.13 |\n"
    )
    assert done.stdout == expected
    assert (sweeps.out / "results.md").read_text() == expected
    assert [row["best loss"] for row in sweeps.rows()] == ["0.25", "1.25"]
    command = sweeps.log("seed=0").splitlines()[0]
    assert command.endswith(
        f"-m imagen_jax train --config text/byte_t5 --config.training.steps=4 "
        f"--workdir {sweeps.out}/seed=0 --config.seed=0"
    )


def test_finished_runs_are_left_alone_and_failed_ones_tried_again(sweeps):
    (sweeps.folder / "bad1").touch()
    done = sweeps.run("--grid=seed=0,1,2")
    assert done.returncode == 1
    assert sweeps.states() == ["finished", "failed", "finished"]
    assert "seed=1: ended with status 1: cannot train this" in done.stderr
    (sweeps.folder / "bad1").unlink()
    before = sweeps.log("seed=0")
    done = sweeps.run("--grid=seed=0,1,2")
    assert done.returncode == 0 and "3 runs, 2 of them finished" in done.stderr
    assert sweeps.states() == ["finished"] * 3
    assert sweeps.log("seed=0") == before
    assert sweeps.log("seed=1").count("from 0\n") == 2
    # More steps are asked for: all go on.
    assert sweeps.run("--grid=seed=0,1,2", steps=5).returncode == 0
    assert "from 4\n" in sweeps.log("seed=0")


def test_another_metric_its_best_and_a_table_alone(sweeps):
    sweeps.run("--grid=seed=0")
    done = sweeps.run("--grid=seed=0,1", "--metric=score", "--best=max", "--table")
    assert done.returncode == 1
    first, second = sweeps.rows()
    assert (first["score"], first["best score"], first["at step"]) == ("1", "2", "2")
    assert (second["state"], second["score"]) == ("not started", "")
    assert not (sweeps.out / "seed=1").exists()
    done = sweeps.run("--grid=seed=0", "--metric=fid", "--table")
    assert "No run has logged 'fid'; there is loss, score, steps_per" in done.stderr


def test_a_dry_run_prints_what_is_left_and_writes_nothing(sweeps):
    sweeps.run("--grid=seed=0")
    (sweeps.out / "results.csv").unlink()
    done = sweeps.run("--grid=seed=0,1", "--dry_run")
    assert done.returncode == 0
    assert done.stdout == (
        f"{sys.executable} -m imagen_jax train --config text/byte_t5 "
        f"--config.training.steps=4 --workdir {sweeps.out}/seed=1 --config.seed=1\n"
    )
    assert sorted(p.name for p in sweeps.out.iterdir()) in (
        ["results.md", "seed=0"], ["results.md", "results.png", "seed=0"],
    )  # fmt: skip


def test_runs_go_side_by_side(sweeps):
    sweeps.hold()
    process = sweeps.start("--grid=seed=0,1,2", "--parallel=2")
    sweeps.wait_until_held(2)
    time.sleep(0.5)
    assert len(list(sweeps.folder.glob("holding*"))) == 2
    sweeps.let_go()
    process.communicate(timeout=60)
    assert process.returncode == 0 and sweeps.states() == ["finished"] * 3


@pytest.mark.parametrize("how", ["terminated", "Ctrl-C"])
def test_a_stopped_sweep_lets_its_runs_save_and_goes_on_from_there(sweeps, how):
    sweeps.hold()
    process = sweeps.start("--grid=seed=0,1")
    sweeps.wait_until_held()
    if how == "terminated":
        process.send_signal(signal.SIGTERM)
    else:  # A terminal tells the whole group, of which the runs must be no part.
        os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert sweeps.states() == ["unfinished", "not started"]
    sweeps.let_go()
    assert sweeps.run("--grid=seed=0,1").returncode == 0
    assert sweeps.log("seed=0").count("from 0\n") == 1
    assert sweeps.log("seed=0").count("from 1\n") == 1
    steps = [
        json.loads(line)["step"]
        for line in (sweeps.out / "seed=0" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == [1, 2, 3, 4]


def test_after_a_killed_sweep_no_run_is_trained_twice_at_once(sweeps):
    """The run outlives its sweep; the next one waits for it."""
    sweeps.hold()
    first = sweeps.start("--grid=seed=0")
    sweeps.wait_until_held()
    first.kill()
    first.communicate(timeout=60)
    second = sweeps.start("--grid=seed=0")
    time.sleep(2)
    assert second.poll() is None
    assert len(list(sweeps.folder.glob("holding*"))) == 1
    sweeps.let_go()
    second.communicate(timeout=60)
    assert second.returncode == 0 and sweeps.log("seed=0").count("from 0\n") == 1


def test_nothing_is_started_when_one_config_is_wrong(sweeps):
    message = error_of(sweeps.run("--grid=seed=0,1", "--grid=sed=1"))
    assert "no such key. Did you mean 'seed'? Nothing was started." in message
    assert not sweeps.out.exists()


THROUGH = "--through=python launch/slurm.py {name} --nodes=2 --gpus_per_node=1"


def test_a_launch_script_starts_the_runs_that_are_left(fakes):
    out = fakes.folder / "out"
    (out / "seed=0,peak_lr=0.001" / "checkpoints" / "1200").mkdir(parents=True)
    words = [
        "sweep.py", str(out), "--grid=seed=0,1", "--grid=optimizer.peak_lr=1e-3",
        THROUGH,
    ]  # fmt: skip
    done = fakes.launch(*words, "--dry_run", *BASE)
    assert done.stdout == (
        "python launch/slurm.py seed-1-peak-lr-0-001 --nodes=2 --gpus_per_node=1 -- "
        f"imagen-jax train --config text/byte_t5 --workdir {out}/seed=1,peak_lr=0.001 "
        "--config.seed=1 --config.optimizer.peak_lr=1e-3\n"
    )
    real = [
        word.replace("python launch", f"{sys.executable} {ROOT}/launch")
        for word in words
    ]
    done = fakes.launch(*real, *BASE)
    assert done.returncode == 1, done.stderr  # not finished yet
    assert "| seed=1,peak_lr=0.001 | 1 | 0.001 | not started |" in done.stdout
    [(argv, script)] = fakes.calls()
    assert argv == ["sbatch"]
    assert "#SBATCH --job-name=seed-1-peak-lr-0-001\n" in script
    assert f"--workdir {out}/seed=1,peak_lr=0.001 " in script


def test_a_launch_that_fails_does_not_keep_the_others_back(fakes):
    fakes.answer({"apply": [1, ""]})
    through = (
        f"--through={sys.executable} {ROOT}/launch/gke.py s-{{name}} --image=i "
        "--accelerator=v6e-4"
    )
    done = fakes.launch(
        "sweep.py", str(fakes.folder), "--grid=seed=0,1", through, *BASE
    )
    assert done.returncode == 1 and "Some runs could not be started" in done.stderr
    assert ["name: s-seed-0" in text for _, text in fakes.calls()] == [True, False]


SMALL = [
    "--config.text.encoder.d_model=32", "--config.text.encoder.num_layers=1",
    "--config.text.encoder.d_ff=32", "--config.data.batch_size=8",
    "--config.optimizer.warmup_steps=2", "--config.training.steps=12",
    "--config.training.log_every=1", "--config.training.save_every=0",
    "--config.training.tensorboard=none",
]  # fmt: skip


@pytest.mark.slow
def test_a_real_sweep_is_stopped_in_a_run_goes_on_and_is_compared(tmp_path):
    """Two small text encoders; the first is stopped in its first steps."""
    argv = [
        sys.executable, str(ROOT / "launch" / "sweep.py"), str(tmp_path / "out"),
        "--grid=seed=0,1", *BASE, *SMALL,
    ]  # fmt: skip
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "IMAGEN_JAX_TYPECHECK": "0",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
    }  # fmt: skip
    first = tmp_path / "out" / "seed=0"
    sweep = subprocess.Popen(argv, env=environment, cwd=tmp_path)
    end = time.monotonic() + 240
    while not (first / "metrics.jsonl").exists():
        assert sweep.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    sweep.terminate()
    assert sweep.wait(timeout=120) == 143
    saved = max(int(p.name) for p in (first / "checkpoints").iterdir())
    assert 0 < saved < 12
    done = subprocess.run(
        argv, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| finished | 12 of 12 |") == 2
    for name in ("seed=0", "seed=1"):
        lines = (tmp_path / "out" / name / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))
    assert (first / "log.txt").read_text().count("$ ") == 2
