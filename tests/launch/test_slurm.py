"""The whole batch script, and the script run with an srun that notes its signals."""

import signal
import subprocess

import pytest

from tests.launch.fakes import error_of

TRAIN = [
    "--", "imagen-jax", "train", "--config", "imagen/base_64", "--workdir", "/s/base",
]  # fmt: skip
TEXT = """\
sbatch <<'END_OF_INPUT'
#!/bin/bash
#SBATCH --job-name=base
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --dependency=singleton
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --partition=gpu
#SBATCH --mem=0
export A='b c'
requeue=
trap 'requeue=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' USR1
stopped= child=
trap 'stopped=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM
srun --cpus-per-task=16 --kill-on-bad-exit=1 --container-image=x.sqsh \
--container-mounts=/s:/s imagen-jax train --config imagen/base_64 --workdir /s/base \
--distributed &
child=$!
[ -z "$stopped" ] || kill -TERM "$child"
while :; do  # a signal interrupts wait
  wait "$child"
  status=$?
  kill -0 "$child" 2>/dev/null || break
done
if [ -n "$stopped" ] && [ "$status" -eq 0 ]; then status=143; fi
# A node that failed shows as a failure of the command, long before SLURM knows.
if [ -z "$stopped" ] && [ "$status" -ne 0 ] && [ "$SECONDS" -ge 1800 ]; then
  requeue=yes
fi
if [ -n "$requeue" ]; then exec scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
END_OF_INPUT
"""


def test_a_dry_run_prints_the_whole_script(fakes):
    done = fakes.launch(
        "slurm.py", "base", "--nodes=2", "--gpus_per_node=4", "--cpus_per_gpu=16",
        "--time=12:00:00", "--partition=gpu", "--sbatch=--mem=0", "--env=A=b c",
        "--container=x.sqsh", "--mounts=/s:/s", "--dry_run", *TRAIN,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout == TEXT, done.stderr


def test_what_cannot_work_is_one_line(fakes):
    def error(*words):
        return error_of(fakes.launch("slurm.py", *words, *TRAIN))

    assert "--NAME=VALUE without spaces, got '--job-name=a b'" in error("a b")
    assert "got 'mem=0'" in error("a", "--sbatch=mem=0")
    assert error("a", "--venv=v", "--container=c") and error("a", "--nodes=0")
    local = fakes.launch("slurm.py", "a", *TRAIN[:-1], "runs/base")
    assert "--workdir must be a bucket" in error_of(local)
    assert fakes.calls() == []


SRUN = """\
echo "$@"
trap 'echo saved; exit 0' TERM
[ -z "{status}" ] || exit {status}
echo ready
while :; do sleep 0.05; done
"""


def start(fakes, status="", sound=1800):
    """The batch script as a process, whose srun runs or ends with a status."""
    done = fakes.launch("slurm.py", "base", "--gpus_per_node=1", "--venv=/v e", *TRAIN)
    assert done.returncode == 0, done.stderr
    [(argv, script)] = fakes.calls()
    assert argv == ["sbatch"] and script.count(" 1800 ") == 1
    script = script.replace(" 1800 ", f" {sound} ")
    for name, text in (
        ("srun", SRUN.format(status=status)), ("scontrol", 'echo "scontrol $*"'),
    ):  # fmt: skip
        path = fakes.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}")
        path.chmod(0o755)
    process = subprocess.Popen(
        ["bash", "-c", script], env={**fakes.environment, "SLURM_JOB_ID": "17"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    srun = process.stdout.readline()
    assert srun == (
        "--cpus-per-task=8 --kill-on-bad-exit=1 imagen-jax train --config "
        "imagen/base_64 --workdir /s/base\n"
    )
    return process


@pytest.mark.parametrize("status", [0, 3])
def test_a_job_ends_with_its_command(fakes, status):
    process = start(fakes, status)
    assert process.communicate(timeout=20)[0] == "" and process.returncode == status


@pytest.mark.parametrize(("status", "said"), [(3, "scontrol requeue 17\n"), (0, "")])
def test_a_failure_after_long_good_work_has_another_turn(fakes, status, said):
    process = start(fakes, status, sound=0)
    assert process.communicate(timeout=20)[0] == said


@pytest.mark.parametrize(
    ("sent", "said", "status"),
    [
        (signal.SIGUSR1, "saved\nscontrol requeue 17\n", 0),  # the time limit is near
        (signal.SIGTERM, "saved\n", 143),  # scancel: it must not come back
    ],
)
def test_a_job_saves_and_only_the_time_limit_requeues_it(fakes, sent, said, status):
    process = start(fakes)
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(sent)
    rest, _ = process.communicate(timeout=20)
    assert (rest, process.returncode) == (said, status)
