"""A dry run, given to bash, calls the same programs with the same words and input."""

import pytest

TRAIN = ["--", "imagen-jax", "train", "--config", "imagen/base_64", "--workdir"]
QUEUED = {
    "queued-resources list": ["", "ACTIVE"],
    "--node=0": ["none", "ended 0"],
}
SCRIPTS = {
    "tpu_vm": ["tpu_vm.py", "a", "--zone=z", "--accelerator=v4-32", "--create"],
    "tpu_vm_git": ["tpu_vm.py", "a", "--zone=z", "--accelerator=v4-8", "--git=u"],
    "queued": [
        "queued_resources.py", "a", "--zone=z", "--accelerator=v6e-16", "--interval=0",
    ],
    "gke": ["gke.py", "a", "--accelerator=v5p-16", "--image=i"],
    "slurm": ["slurm.py", "a", "--nodes=2", "--env=A=b c"],
}  # fmt: skip


@pytest.mark.parametrize("which", SCRIPTS)
def test_a_dry_run_is_what_runs(fakes, which):
    # Blanks, quotes, dollars and newlines must all arrive.
    words = [*SCRIPTS[which], *TRAIN, 'gs://b/it\'s $(x) "q"\nend']
    fakes.answer(QUEUED)
    real = fakes.launch(*words)
    assert real.returncode == 0, real.stderr
    called = fakes.calls()
    assert called

    fakes.answer(QUEUED)
    at = words.index("--")
    dry = fakes.launch(*words[:at], "--dry_run", *words[at:])
    assert dry.returncode == 0, dry.stderr
    # Asking git for uncommitted changes is no part of what runs.
    looked = [call for call in called if call[0][-1] == "--porcelain"]
    assert fakes.calls() == looked
    called = [call for call in called if call not in looked]

    fakes.answer(QUEUED)
    assert fakes.bash(dry.stdout).returncode == 0
    assert fakes.calls() == called


@pytest.mark.parametrize("script", ["tpu_vm.py", "queued_resources.py", "gke.py"])
@pytest.mark.parametrize("later", ["--follow", "--status", "--stop"])
def test_looking_afterwards_is_what_a_dry_run_prints(fakes, script, later):
    words = [script, "a", *([] if script == "gke.py" else ["--zone=z"]), later]
    assert fakes.launch(*words).returncode == 0
    called = fakes.calls()
    dry = fakes.launch(*words, "--dry_run")
    fakes.answer({})
    assert fakes.bash(dry.stdout).returncode == 0
    assert fakes.calls() == called != []
