import itertools
import json
import os
import shutil
import signal
import sys

import jax
import killing
import numpy as np
import pytest
import toy

from imagen_jax import partitioning
from imagen_jax.checkpoints import safetensors, store
from imagen_jax.training import loop, nonfinite


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(s) for s in text.splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of eight steps, never interrupted: (workdir, its last state)."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, jax.device_get(loop.train(toy.run(), toy.settings(workdir)))


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "copy")


def test_a_resumed_run_ends_with_the_same_bits(whole, tmp_path):
    # Steps 5 and 6 were logged but not saved when the first run ended.
    def ends_early(position):
        return itertools.islice(toy.make_batches(position), 6)

    with pytest.raises(ValueError, match="the data ended after step 6"):
        loop.train(toy.run(make_batches=ends_early), toy.settings(tmp_path))
    assert store.steps(tmp_path / "checkpoints") == [4]
    assert [r["step"] for r in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
    resumed = loop.train(toy.run(), toy.settings(tmp_path))
    toy.assert_identical(whole[1], resumed)
    timeless = [
        [{k: r[k] for k in ("step", "loss", "grad_norm", "learning_rate")} for r in log]
        for log in (lines(whole[0]), lines(tmp_path))
    ]
    assert timeless[0] == timeless[1]
    assert [r["step"] for r in timeless[0]] == list(range(1, 9))


def test_the_log_tells_what_a_person_wants_to_know(whole):
    last = lines(whole[0])[-1]
    assert last["examples_seen"] == 8 * toy.B
    assert last["learning_rate"] > 0
    assert {"loss", "grad_norm", "param_norm", "mean", "skipped"} <= set(last)
    assert {"steps_per_second", "images_per_second"} <= set(last)
    assert {"model_tflops_per_second", "data_wait_share", "step_seconds"} <= set(last)
    assert "utilisation" not in last  # nobody states a CPU's peak
    lost = [v for k, v in last.items() if k.startswith("lost_to_")]
    assert len(lost) == 5 and min(lost) >= 0 and 0 < last["goodput"] < 1


def test_a_finished_run_has_nothing_to_do(whole, copy):
    def no_data(position):
        raise AssertionError("no data is needed")

    again = loop.train(toy.run(make_batches=no_data), toy.settings(copy))
    toy.assert_identical(whole[1], again)


def test_a_run_in_pieces_ends_with_the_same_bits(whole, tmp_path):
    pieces = 0
    while store.steps(tmp_path / "checkpoints")[-1:] != [8]:
        # Over at once: every piece is one step.
        piece = toy.settings(tmp_path, max_minutes=1e-9)
        last = loop.train(toy.run(), piece)
        pieces += 1
        assert int(last.step) == pieces
    toy.assert_identical(whole[1], last)


def test_time_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="max_minutes must be positive, got 0"):
        toy.settings(tmp_path, max_minutes=0)


def test_one_batch_can_be_learned_by_heart(tmp_path):
    seen = []

    def counted(position):
        for batch in toy.make_batches(position):
            seen.append(1)
            yield batch

    run = toy.run(make_batches=counted, loss=toy.exact_loss)
    loop.train(run, toy.settings(tmp_path, total_steps=30, overfit_one_batch=True))
    losses = [r["loss"] for r in lines(tmp_path)]
    assert len(seen) == 1
    assert losses[-1] < 0.5 * losses[0]


def poisoned(at):
    def batches(position):
        for batch in toy.make_batches(position):
            if position in at:
                batch["x"][0] = np.nan
            yield batch
            position += toy.B

    return batches


def test_a_bad_loss_stops_the_run_and_what_is_saved_is_sound(tmp_path):
    bad = toy.run(make_batches=poisoned({5 * toy.B}))
    with pytest.raises(nonfinite.NonFiniteLoss) as caught:
        loop.train(bad, toy.settings(tmp_path, save_every=1))
    assert "loss nan" in str(caught.value) and "in step 6" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert store.steps(tmp_path / "checkpoints")[-1] == 5
    for part in ("params", "ema_params"):
        saved = killing.state_of(tmp_path, part)
        assert all(np.isfinite(a).all() for a in jax.tree.leaves(saved))


def test_bad_batches_can_be_skipped_up_to_a_limit(tmp_path, capsys):
    bad = toy.run(make_batches=poisoned({2 * toy.B, 5 * toy.B}))
    skip = {"on_nonfinite": "skip", "log_every": 4}
    now = loop.train(bad, toy.settings(tmp_path / "a", **skip))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(jax.device_get(now)))
    assert lines(tmp_path / "a")[-1]["skipped"] == 2
    assert capsys.readouterr().err.count("this batch is skipped") == 2
    with pytest.raises(nonfinite.NonFiniteLoss, match="more than max_skipped = 1"):
        loop.train(bad, toy.settings(tmp_path / "b", max_skipped=1, **skip))


def test_samples_and_evaluations_are_written(tmp_path):
    def sample(step, ema_params):
        assert ema_params["first"]["kernel"].shape == (toy.I, 16)
        return np.full((4, 4, 3), step, np.uint8)

    run = toy.run(sample=sample, evaluate=lambda step, ema: {"accuracy": step / 8})
    settings = toy.settings(tmp_path, sample_every=4, evaluate_every=8)
    loop.train(run, settings)
    names = sorted(p.name for p in (tmp_path / "samples").iterdir())
    assert names == ["samples_00000004.png", "samples_00000008.png"]
    assert lines(tmp_path)[-1] == {"step": 8, "accuracy": 1.0}


def test_a_window_of_steps_is_profiled(tmp_path):
    settings = toy.settings(tmp_path, total_steps=3, profile_from=2, profile_steps=1)
    loop.train(toy.run(), settings)
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_signal_saves_and_ends_the_run(tmp_path):
    def signalled(position):
        for batch in toy.make_batches(position):
            if position == 2 * toy.B:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch
            position += toy.B

    before = signal.getsignal(signal.SIGTERM)
    now = loop.train(toy.run(make_batches=signalled), toy.settings(tmp_path))
    assert now.step == 3
    assert store.steps(tmp_path / "checkpoints") == [3]
    assert signal.getsignal(signal.SIGTERM) == before


def test_another_run_begins_with_the_average_of_a_workdir(whole, tmp_path, capsys):
    settings = toy.settings(tmp_path / "new", init_from=str(whole[0]))
    first, position = begun(settings)
    toy.assert_identical(first.params, whole[1].ema_params)
    toy.assert_identical(first.ema_params, whole[1].ema_params)
    assert (position, int(first.step)) == ({"examples_seen": 0}, 0)
    assert "4 parameters restored" in capsys.readouterr().err


def test_another_run_begins_with_what_fits_of_a_safetensors_file(tmp_path, capsys):
    file = tmp_path / "some.safetensors"
    safetensors.save(file, {"first/kernel": np.ones((toy.I, 16), np.float32)})
    first, _ = begun(toy.settings(tmp_path / "new", init_from=str(file)))
    np.testing.assert_array_equal(first.params["first"]["kernel"], 1)
    words = capsys.readouterr().err
    assert "1 parameters restored" in words
    assert "3 missing: first/bias, second/bias, second/kernel" in words


def begun(settings, run=None):
    with store.Store(f"{settings.workdir}/checkpoints") as checkpoints:
        return loop.begin(jax.random.key(0), run or toy.run(), settings, checkpoints)


def test_a_workdir_with_checkpoints_wins_over_init_from(whole, copy):
    first, position = begun(toy.settings(copy, init_from="nowhere"))
    assert (int(first.step), position["examples_seen"]) == (8, 8 * toy.B)


def test_a_corrupt_newest_checkpoint_ends_the_run_with_its_name(copy):
    (biggest,) = sorted(
        (copy / "checkpoints/8/state/ocdbt.process_0/d").iterdir(),
        key=lambda p: p.stat().st_size,
    )[-1:]
    os.truncate(biggest, 10)
    with pytest.raises(store.CheckpointError, match=r"step 8 .* cannot be read") as e:
        loop.train(toy.run(), toy.settings(copy, total_steps=12))
    assert "go on from step 4" in str(e.value)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="on_nonfinite must be 'stop' or 'skip'"):
        toy.settings("w", on_nonfinite="ignore")
    with pytest.raises(ValueError, match="total_steps must be at least 1"):
        toy.settings("w", total_steps=0)


def test_a_run_killed_in_its_middle_ends_with_the_same_bits(tmp_path):
    here = os.path.dirname(os.path.abspath(toy.__file__))
    root = os.path.dirname(here)

    def command(name, pause):
        return [sys.executable, toy.__file__, str(tmp_path / name), "24", str(pause)]

    environment = {"PYTHONPATH": f"{here}:{root}"}
    status = killing.run_until(
        command("killed", 0.2), tmp_path / "killed", 8, **environment
    )
    assert status == -signal.SIGKILL
    killing.run(command("killed", 0), **environment)
    mesh = partitioning.make_mesh({"fsdp": 2}, jax.devices()[:2])
    now = loop.train(toy.run(mesh), toy.settings(tmp_path / "whole", total_steps=24))
    for part in ("params", "ema_params", "opt_state", "step"):
        toy.assert_identical(
            killing.state_of(tmp_path / "killed", part),
            killing.state_of(tmp_path / "whole", part),
        )
    assert int(now.step) == 24
    assert [r["step"] for r in lines(tmp_path / "killed")] == list(range(1, 25))
