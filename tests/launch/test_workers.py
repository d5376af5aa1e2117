"""What is done on a worker, done for real in a home folder of its own."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

import workers

COMMAND = ["imagen-jax", "train", "--x", "it's $HOME"]


def text_of(path):
    try:
        return path.read_text()
    except OSError:  # It has ended.
        return ""


class Worker:
    def __init__(self, home):
        self.home = home
        self.run_folder = home / "imagen_jax_run"
        (home / "imagen_jax").mkdir()
        (home / "imagen_jax_venv" / "bin").mkdir(parents=True)

    def program(self, text):
        """What `imagen-jax` shall be on this machine."""
        path = self.home / "imagen_jax_venv" / "bin" / "imagen-jax"
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)

    def bash(self, script):
        return subprocess.run(
            ["bash", "-c", script],
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin"}, cwd=self.home,
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip

    def end(self):
        """Kill what was started here, and surely nothing else."""
        path = self.run_folder / "pid"
        pid = int(path.read_text()) if path.exists() else 0
        process = pathlib.Path(f"/proc/{pid}")
        if pid > 1 and f"HOME={self.home}\0" in text_of(process / "environ"):
            os.killpg(pid, signal.SIGKILL)

    def look(self):
        return self.bash(workers.LOOK).stdout.strip()

    def wait_for(self, seen):
        end = time.monotonic() + 20
        while self.look() != seen:
            assert time.monotonic() < end, self.look()
            time.sleep(0.05)

    def log(self):
        return (self.run_folder / "log").read_text()


@pytest.fixture
def worker(tmp_path):
    found = Worker(tmp_path)
    yield found
    found.end()


def test_a_command_runs_detached_and_leaves_log_and_status(worker):
    worker.program('printf "%s|" "$@" "$A" "$PWD"; exit 7')
    assert worker.look() == "none"
    started = worker.bash(workers.start(COMMAND, ["A=b c"]))
    assert started.returncode == 0, started.stderr
    worker.wait_for("ended 7")
    assert worker.log() == (
        f"train|--x|it's $HOME|b c|{worker.home}/imagen_jax|Ended with status 7.\n"
    )
    # A later start adds to the log and forgets the status.
    worker.program("exec sleep 60")
    assert worker.bash(workers.start(COMMAND, [])).returncode == 0
    worker.wait_for("running")
    assert "status 7" in worker.log()


def test_nothing_is_started_or_installed_beside_a_running_command(worker):
    worker.program("exec sleep 60")
    worker.bash(workers.start(COMMAND, []))
    worker.wait_for("running")
    code = worker.home / "imagen_jax" / "code.py"
    code.write_text("")
    for script in (workers.start(COMMAND, []), workers.install(None, "HEAD")):
        refused = worker.bash(script)
        assert refused.returncode == 3 and "runs here already" in refused.stderr
    assert code.exists() and worker.look() == "running"


SAVES = """\
trap 'echo saved; exit 0' TERM
echo ready
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_stopped_command_has_saved_and_is_told_from_a_finished_one(worker, by_hand):
    worker.program(SAVES)
    worker.bash(workers.start(COMMAND, []))
    while "ready" not in worker.log():
        time.sleep(0.05)
    stopped = worker.bash((workers.MARK_STOPPED if by_hand else "") + workers.STOP)
    assert stopped.stdout == "Ended with status 143.\n", stopped
    assert worker.log() == "ready\nsaved\nEnded with status 143.\n"
    assert worker.look() == ("stopped" if by_hand else "ended 143")
    worker.program("exit 0")
    worker.bash(workers.start(COMMAND, []))
    worker.wait_for("ended 0")


def test_what_does_not_end_is_killed(worker):
    worker.program("trap '' TERM\necho ready\nwhile :; do sleep 0.1; done")
    worker.bash(workers.start(COMMAND, []))
    while "ready" not in worker.log():
        time.sleep(0.05)
    impatient = workers.STOP.replace(f"seq {workers.GRACE}", "seq 1")
    assert impatient != workers.STOP
    worker.bash(impatient)
    worker.wait_for("lost")


def test_after_a_restart_of_the_machine_another_process_is_not_taken_for_it(worker):
    other = subprocess.Popen(["sleep", "60"])
    worker.run_folder.mkdir()
    (worker.run_folder / "pid").write_text(f"{other.pid}\n")
    try:
        assert worker.look() == "lost"
        assert "nothing runs here" in worker.bash(workers.STOP).stdout
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("git", [None, "https://x/y.git"])
def test_installing_is_good_bash(git):
    for text in (workers.install(git, "main"), workers.start(COMMAND, ["A=b"])):
        subprocess.run(["bash", "-n", "-c", text], check=True)


PYTHON = 'python3() { echo "$*"; [ "$3" != venv ] || mkdir imagen_jax_venv; }\n'


def test_installing_unpacks_the_archive_and_makes_one_environment(worker):
    """With a python3 that only notes its words."""
    (worker.home / "imagen_jax_venv" / "bin").rmdir()
    (worker.home / "imagen_jax_venv").rmdir()
    (worker.home / "imagen_jax" / "old.py").write_text("")
    archive = ["tar", "-czf", str(worker.home / workers.ARCHIVE)]
    subprocess.run(
        [*archive, "-C", __file__.rpartition("/")[0], "fakes.py"], check=True
    )
    words = [
        "-m pip install --quiet --user uv",
        "-m uv venv --quiet --python 3.11 imagen_jax_venv",
        f"-m uv pip install --quiet --python {worker.home}/imagen_jax_venv "
        "-e .[train,seqio,tpu]",
    ]
    for expected in (words, [words[0], words[2]]):
        done = worker.bash(PYTHON + workers.install(None, "HEAD"))
        assert done.stdout.splitlines() == expected, done.stderr
    assert (worker.home / "imagen_jax" / "fakes.py").exists()
    assert not (worker.home / "imagen_jax" / "old.py").exists()


def test_installing_fetches_the_revision_from_wherever_it_is_now(worker):
    """Over an unpacked archive, over another revision, and from another place."""
    (worker.home / "imagen_jax" / "old.py").write_text("")
    who = "-c user.name=a -c user.email=a@b"
    for place in ("one", "two"):
        made = worker.bash(f"""
            set -e
            git init -q -b main {place}
            cd {place}
            git config uploadpack.allowAnySHA1InWant true
            for number in 1 2; do
              echo {place} $number > code.py
              git add code.py
              git {who} commit -q -m $number
              git tag v$number
            done""")
        assert made.returncode == 0, made.stderr
    sha = worker.bash("git -C two rev-parse v1").stdout.strip()
    for place, revision, found in (
        ("one", "HEAD", "one 2"), ("one", "v1", "one 1"), ("one", "main", "one 2"),
        ("two", sha, "two 1"),
    ):  # fmt: skip
        done = worker.bash(PYTHON + workers.install(f"{worker.home}/{place}", revision))
        assert done.returncode == 0, done.stderr
        files = sorted(p.name for p in (worker.home / "imagen_jax").iterdir())
        assert files == [".git", "code.py"]
        assert (worker.home / "imagen_jax" / "code.py").read_text() == f"{found}\n"
