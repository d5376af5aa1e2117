"""Whole command lines for queued resources, and what happens when they are lost."""

import argparse
import shlex

import pytest

import accelerators
import cloud_tpu
import shell
import watching
import workers
from tests.launch.fakes import ROOT, error_of

TRAIN = [
    "--", "imagen-jax", "train", "--config", "imagen/base_64", "--workdir", "gs://b/base",
]  # fmt: skip
WORDS = ["queued_resources.py", "base", "--zone=z", "--interval=0"]
SPOT = ["--accelerator=v6e-16", "--spot"]


def test_several_slices_are_asked_for_set_up_watched_and_given_back(fakes):
    done = fakes.launch(
        *WORDS, "--accelerator=v5p-64", "--reserved", "--slices=2", "--dry_run",
        *TRAIN, "--config.mesh.slices=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file = f"{fakes.folder}/imagen_jax.tar.gz"
    command = [*TRAIN[1:], "--config.mesh.slices=2", "--distributed"]
    gcloud = "gcloud compute tpus queued-resources"
    state = (
        f"{gcloud} list --zone=z '--filter=name ~ /queuedResources/base$' "
        "'--format=value(state.state)'\n"
    )

    def ssh(which, script):
        script = shlex.quote(f"--command={script}")
        return f"{gcloud} ssh base --zone=z --node={which} --worker={which} {script}\n"

    assert done.stdout == (
        f"{state}"
        f"{gcloud} create base --zone=z --node-count=2 --node-prefix=base "
        "--accelerator-type=v5p-64 --runtime-version=v2-alpha-tpuv5 --reserved\n"
        f"{state}"
        f"{ssh('0', workers.LOOK)}"
        f"git -C {shlex.quote(str(ROOT))} archive --output={file} HEAD\n"
        f"{gcloud} scp {file} base:imagen_jax.tar.gz --zone=z --node=all --worker=all\n"
        f"{ssh('all', workers.install(None, 'HEAD'))}"
        f"{ssh('all', workers.start(command, []))}"
        f"{state}"
        f"{ssh('0', workers.LOOK)}"
        f"{gcloud} delete base --zone=z --quiet --force\n"
    )


def test_slices_must_be_known_to_the_mesh(fakes):
    words = [*WORDS, *SPOT, "--slices=2", *TRAIN]
    for more in ([], ["--config.mesh.slices=4"]):
        error = error_of(fakes.launch(*words, *more))
        assert "--slices 2: the command must say --config.mesh.slices=2" in error
    assert fakes.words() == []


class Happened:
    """A real run against answers, and what gcloud was asked to do."""

    def __init__(self, fakes, *, states, looks, more=(), **answers):
        fakes.answer({"queued-resources list": states, "--node=0": looks, **answers})
        self.done = fakes.launch(*WORDS, *SPOT, "--git=u", *more, *TRAIN)
        self.verbs = [self.verb(words) for words in fakes.words()]

    @staticmethod
    def verb(words):
        verb, script = words[3], words[-1]
        if verb == "ssh":
            for name, part in (
                ("look", "echo none"), ("start", "run.sh <<"), ("install", "uv venv"),
                ("stop", "kill -TERM \"$(cat pid)\""),
            ):  # fmt: skip
                if part in script:
                    return name
        return {"list": "state"}.get(verb, verb)

    @property
    def acts(self):
        return [verb for verb in self.verbs if verb not in ("state", "look")]


CREATED = ["create", "install", "start"]


def test_a_preempted_resource_is_asked_for_again_and_the_command_started_again(fakes):
    happened = Happened(
        fakes,
        states=["", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE",  # given
                "ACTIVE", "SUSPENDING",  # runs, and is taken away
                "SUSPENDING", "SUSPENDED", "",  # deleted
                "ACTIVE"],
        looks=["none", "running", "none", "running", "ended 0"],
    )  # fmt: skip
    assert happened.done.returncode == 0, happened.done.stderr
    assert happened.acts == [*CREATED, "delete", *CREATED, "delete"]


def test_a_request_that_fails_is_made_again_until_it_is_met(fakes):
    happened = Happened(
        fakes,
        states=["", "FAILED", "", "FAILED", "", "ACTIVE"],
        looks=["none", "ended 0"],
        more=["--keep"],
    )
    assert happened.done.returncode == 0, happened.done.stderr
    assert happened.acts == ["create", "delete", "create", "delete", *CREATED]
    assert "base is FAILED; a new one is asked for." in happened.done.stderr


def test_a_deletion_that_is_refused_is_tried_again(fakes):
    happened = Happened(
        fakes, states=["SUSPENDED", "", "ACTIVE"], looks=["none", "ended 0"],
        delete=[1, "", 1, ""],
    )  # fmt: skip
    assert happened.done.returncode == 0, happened.done.stderr
    assert happened.acts == ["delete", "delete", *CREATED, "delete", "delete"]


def test_a_new_watch_takes_over_what_runs(fakes):
    happened = Happened(fakes, states=["ACTIVE"], looks=["running", "ended 0"])
    assert happened.done.returncode == 0 and happened.acts == ["delete"]


def test_a_failing_command_is_started_so_often_and_the_resource_kept(fakes):
    happened = Happened(
        fakes, states=["", "ACTIVE"], looks=["none", "ended 1"],
        more=["--max_restarts=1"],
    )  # fmt: skip
    assert happened.acts == [*CREATED, "stop", "install", "start"]
    assert "failed with status 1 2 times" in error_of(happened.done)


class Answering(shell.Shell):
    """Runs nothing; the resource is active and the worker says what it is given."""

    def __init__(self, looks):
        super().__init__(dry_run=False)
        self._looks = iter(looks)

    def status(self, argv, *, stdin=None):
        return 0

    def output(self, argv, *, dry):
        return "ACTIVE" if "list" in argv else next(self._looks)


def test_long_good_work_makes_earlier_failures_forgotten():
    failed, sound = ["ended 1"] * 2, ["running"] * (watching.SOUND - 1)
    looks = ["none", *failed, *sound, *failed, "ended 0"]
    args = argparse.Namespace(
        name="a", zone="z", project=None, slices=1, git="u", revision="HEAD", env=[],
        interval=0, max_restarts=1, keep=True,
    )  # fmt: skip
    slice_ = accelerators.find("v6e-16")
    resource = cloud_tpu.QueuedResource(args)
    assert watching.Watch(Answering(looks), resource, args, slice_, ["x"]).run() == 0
    looks.remove("running")
    with pytest.raises(shell.LaunchError, match="failed with status 1 2 times"):
        watching.Watch(Answering(looks), resource, args, slice_, ["x"]).run()


def test_a_failure_because_machines_go_is_no_failure_of_the_command(fakes):
    """One machine was taken: the others end badly before the state says so."""
    happened = Happened(
        fakes,
        states=["", "ACTIVE", "ACTIVE", "SUSPENDED", "SUSPENDED", "", "ACTIVE"],
        looks=["none", "ended 1", "none", "ended 0"],
        more=["--max_restarts=0"],
    )
    assert happened.done.returncode == 0, happened.done.stderr
    assert happened.acts == [*CREATED, "delete", *CREATED, "delete"]


@pytest.mark.parametrize("seen", ["ended 143", "lost", "none"])
def test_machines_that_started_anew_go_on(fakes, seen):
    """Maintenance: SIGTERM, saved, started; the resource stays active."""
    happened = Happened(
        fakes, states=["ACTIVE"], looks=["none", seen, seen, "ended 0"],
        more=["--max_restarts=0"],
    )  # fmt: skip
    assert happened.done.returncode == 0, happened.done.stderr
    first = ["install", "start"]
    again = first if seen == "none" else ["stop", *first]
    assert happened.acts == [*first, *again, "delete"]


def test_a_command_stopped_by_hand_is_left_alone(fakes):
    happened = Happened(fakes, states=["ACTIVE"], looks=["none", "running", "stopped"])
    assert happened.done.returncode == 143
    assert happened.acts == ["install", "start"]


def test_machines_that_cannot_be_reached_are_given_up(fakes):
    happened = Happened(
        fakes,
        states=["", *["ACTIVE"] * 6, "", "ACTIVE"],
        looks=["none", *[255] * 5, "none", "ended 0"],
    )
    assert happened.done.returncode == 0, happened.done.stderr
    assert happened.acts == [*CREATED, "delete", *CREATED, "delete"]


def test_a_look_that_fails_now_and_then_is_no_loss(fakes):
    happened = Happened(
        fakes, states=[1, "ACTIVE", 1, "ACTIVE"],
        looks=["none", *[255] * 4, "running", *[255] * 4, "ended 0"],
    )  # fmt: skip
    assert happened.done.returncode == 0, happened.done.stderr
    assert happened.acts == ["install", "start", "delete"]


def test_without_gcloud_nothing_is_tried_again(fakes):
    (fakes.folder / "bin" / "gcloud").unlink()
    fakes.environment["PATH"] = str(fakes.folder / "bin")
    done = fakes.launch(*WORDS, *SPOT, "--git=u", *TRAIN)
    assert error_of(done).startswith("gcloud is not on the PATH")
    assert "again" not in done.stderr


def test_a_request_that_is_refused_ends_it(fakes):
    happened = Happened(fakes, states=[""], looks=[""], create=[1])
    assert "create base` ended with status 1" in error_of(happened.done)
    assert happened.acts == ["create"]
