"""Whole command lines for a TPU VM, and what is refused."""

import shlex

import workers
from tests.launch.fakes import ROOT, error_of

TRAIN = [
    "--", "imagen-jax", "train", "--config", "imagen/base_64", "--workdir", "gs://b/base",
]  # fmt: skip
PLACE = ["base", "--zone", "us-central2-b"]


def test_every_worker_gets_the_code_and_the_command(fakes):
    done = fakes.launch(
        "tpu_vm.py", *PLACE, "--project=p", "--accelerator=v4-32", "--create", "--spot",
        "--create_flag=--network=n",
        "--dry_run", *TRAIN,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file = f"{fakes.folder}/imagen_jax.tar.gz"
    command = [*TRAIN[1:], "--distributed"]
    place = "--zone=us-central2-b --project=p"
    ssh = f"gcloud compute tpus tpu-vm ssh base {place} --worker=all"
    install = shlex.quote(f"--command={workers.install(None, 'HEAD')}")
    start = shlex.quote(f"--command={workers.start(command, [])}")
    assert done.stdout == (
        f"gcloud compute tpus tpu-vm create base {place} --accelerator-type=v4-32 "
        "--version=tpu-ubuntu2204-base --spot --network=n\n"
        f"git -C {shlex.quote(str(ROOT))} archive --output={file} HEAD\n"
        f"gcloud compute tpus tpu-vm scp {file} base:imagen_jax.tar.gz {place} "
        "--worker=all\n"
        f"{ssh} {install}\n"
        f"{ssh} {start}\n"
    )


def test_workers_fetch_a_revision(fakes):
    done = fakes.launch(
        "tpu_vm.py", *PLACE, "--accelerator=v5litepod-16", "--git=https://x/y.git",
        "--revision=v1.2", "--dry_run", *TRAIN,
    )  # fmt: skip
    assert "archive" not in done.stdout and " scp " not in done.stdout
    fetch = "git -C imagen_jax fetch --quiet https://x/y.git v1.2\n"
    assert fetch in done.stdout


def test_one_machine_needs_no_others(fakes):
    words = ["tpu_vm.py", *PLACE, "--dry_run"]
    one = fakes.launch(*words, "--accelerator=v5litepod-8", *TRAIN)
    assert one.returncode == 0 and "--distributed" not in one.stdout
    said = fakes.launch(*words, "--accelerator=v4-16", *TRAIN, "--distributed")
    assert said.stdout.count("--distributed") == 1


def test_looking_afterwards(fakes):
    def printed(flag):
        return fakes.launch("tpu_vm.py", *PLACE, flag, "--dry_run").stdout

    ssh = "gcloud compute tpus tpu-vm ssh base --zone=us-central2-b --worker="
    follow = "tail -n +1 -F ~/imagen_jax_run/log"
    assert printed("--follow") == f"{ssh}0 '--command={follow}'\n"
    assert (
        printed("--status") == f"{ssh}all {shlex.quote('--command=' + workers.LOOK)}\n"
    )
    stop = workers.MARK_STOPPED + workers.STOP
    assert printed("--stop") == f"{ssh}all {shlex.quote('--command=' + stop)}\n"
    assert printed("--delete") == (
        "gcloud compute tpus tpu-vm delete base --zone=us-central2-b --quiet\n"
    )


def test_what_cannot_work_is_one_line(fakes):
    def error(*words):
        return error_of(
            fakes.launch("tpu_vm.py", *PLACE, "--accelerator=v4-32", *words)
        )

    assert "must be `imagen-jax COMMAND ...`, got 'python x.py'" in error(
        "--", "python", "x.py"
    )
    local = [*TRAIN[:-1], "runs/base"]
    assert "--workdir must be a bucket" in error(*local)
    assert "'runs/base'" in error(*local)
    assert "--env must be NAME=VALUE, got 'x'" in error("--env=x", *TRAIN)
    assert error() and error("--stop", *TRAIN)
    assert "no TPU slice is called 'v4-9'" in error("--accelerator=v4-9", *TRAIN)
    assert fakes.words() == []


def test_a_failing_or_missing_gcloud_is_one_line(fakes):
    words = ["tpu_vm.py", *PLACE, "--accelerator=v4-32", "--create", *TRAIN]
    fakes.answer({"create": [1]})
    assert "`gcloud compute tpus tpu-vm create base` ended with status 1" in error_of(
        fakes.launch(*words)
    )
    assert len(fakes.words()) == 1
    (fakes.folder / "bin" / "gcloud").unlink()
    fakes.environment["PATH"] = str(fakes.folder / "bin")
    assert "gcloud is not on the PATH; install the Google Cloud CLI" in error_of(
        fakes.launch(*words)
    )
