"""train, export and sample as one goes from one to the next."""

import json

import pytest

from imagen_jax.commands import main
from tests.end_to_end import runs


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    text = runs.random_text_encoder(folder / "text")
    argv = [
        "train", "--config", "shapes/base", "--workdir", str(folder / "run"),
        *runs.SMALLEST, f"--config.text.weights={text}", "--config.training.steps=3",
        "--config.training.log_every=1", "--config.training.sample_every=3",
        "--config.training.sample_num=2", "--config.sampling.steps=2",
        "--overfit_one_batch",
    ]  # fmt: skip
    assert main.main(argv) == 0
    return folder / "run", argv


@pytest.mark.slow
def test_a_trained_stage_is_exported_and_drawn_from(workdir, tmp_path, capsys):
    run, _ = workdir
    assert list((run / "samples").glob("*.png"))
    model = tmp_path / "model"
    assert main.main(["export", str(run), "--out", str(model)]) == 0
    # A model directory stands alone: it names no folder of this machine.
    assert str(run.parent) not in (model / "model.json").read_text()
    out = tmp_path / "out"
    status = main.main(
        ["sample", "a red circle", "--model", str(model), "--out", str(out)]
    )
    assert status == 0 and (out / "000_base_16.png").is_file()
    assert "never saw" not in capsys.readouterr().err
    again = ["sample", "a red Astronaut", "--model", str(model), "--out", str(out)]
    assert main.main(again) == 0
    assert "never saw: astronaut." in capsys.readouterr().err
    assert json.loads((out / "settings.json").read_text())["stages"][0]["steps"] == 2


def fails_with(capsys, argv, words):
    assert main.main(argv) == 2
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("imagen-jax: error")]
    assert len(lines) == 1 and words in lines[0], err


@pytest.mark.slow
def test_another_network_in_the_same_workdir_is_refused(workdir, capsys):
    _, argv = workdir
    fails_with(capsys, [*argv, "--config.network.num_res_blocks=2"], "another config")


@pytest.mark.slow
def test_a_corrupt_checkpoint_is_named_and_nothing_is_lost(workdir, capsys):
    run, argv = workdir
    step = run / "checkpoints" / "3"
    victim = max(
        (p for p in step.rglob("*") if p.is_file() and p.name != "checksums.json"),
        key=lambda p: p.stat().st_size,
    )
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    fails_with(capsys, [*argv, "--config.training.steps=5"], "step 3")
    victim.write_bytes(whole)
    assert main.main([*argv, "--config.training.steps=4"]) == 0


def test_a_stage_without_a_text_encoder_says_what_to_train(capsys, tmp_path):
    argv = ["train", "--config", "shapes/base", "--workdir", str(tmp_path)]
    fails_with(capsys, argv, "text/byte_t5")
