import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from imagen_jax.training import metrics


def lines(folder):
    return [json.loads(s) for s in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_log_goes_on_without_gaps_or_repeats(tmp_path):
    log = metrics.Log(str(tmp_path), step=0, tensorboard="none")
    for step in range(1, 6):
        log.scalars(step, {"loss": step / 2})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # a kill in mid-line
    log = metrics.Log(str(tmp_path), step=3, tensorboard="none")
    log.scalars(4, {"loss": 9.0})
    assert [r["step"] for r in lines(tmp_path)] == [1, 2, 3, 4]
    assert lines(tmp_path)[-1]["loss"] == 9.0


def test_numbers_that_json_lacks_become_null_and_counts_stay_whole(tmp_path):
    log = metrics.Log(str(tmp_path), step=0, tensorboard="none")
    log.scalars(1, {"loss": float("nan"), "examples_seen": 16})
    assert lines(tmp_path) == [{"step": 1, "loss": None, "examples_seen": 16}]
    assert '"examples_seen": 16}' in (tmp_path / "metrics.jsonl").read_text()


def test_pictures_are_png_files(tmp_path):
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    metrics.Log(str(tmp_path), step=0, tensorboard="none").image(7, "samples", image)
    back = Image.open(tmp_path / "samples" / "samples_00000007.png")
    np.testing.assert_array_equal(np.asarray(back), image)


def test_tensorboard_gets_events_and_no_tensorflow(tmp_path):
    pytest.importorskip("tensorboardX")
    loaded = "tensorflow" in sys.modules
    log = metrics.Log(str(tmp_path), step=0, tensorboard="tensorboardX")
    log.scalars(1, {"loss": 1.0, "learning_rate": 1e-4})
    log.image(1, "samples", np.zeros((4, 4, 3), np.uint8))
    log.close()
    (events,) = (tmp_path / "tensorboard").glob("events*")
    content = events.read_bytes()
    assert b"learning_rate" in content and b"PNG" in content
    assert ("tensorflow" in sys.modules) == loaded


def test_an_unknown_tensorboard_is_refused(tmp_path):
    with pytest.raises(ValueError, match="tensorboard must be one of"):
        metrics.Log(str(tmp_path), step=0, tensorboard="wandb")


class FakeRun:
    def __init__(self):
        self.told = []

    def log(self, values, step):
        self.told.append((step, values))

    def finish(self):
        self.told.append("finished")


def test_weights_and_biases_gets_the_same_and_one_run_for_all_starts(
    tmp_path, monkeypatch
):
    run, begun = FakeRun(), []

    def init(**values):
        begun.append(values)
        return run

    fake = types.SimpleNamespace(init=init, Image=lambda image: ("image", image.shape))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for step in (1, 2):
        log = metrics.Log(str(tmp_path), step=step - 1, tensorboard="none", wandb="p")
        log.scalars(step, {"loss": 1.0 / step})
        log.image(step, "samples", np.zeros((4, 6, 3), np.uint8))
        log.close()
    assert begun[0] == begun[1]
    assert begun[0]["project"] == "p" and begun[0]["resume"] == "allow"
    picture = {"samples": ("image", (4, 6, 3))}
    assert run.told == [
        (1, {"loss": 1.0}), (1, picture), "finished",
        (2, {"loss": 0.5}), (2, picture), "finished",
    ]  # fmt: skip
    assert [r["step"] for r in lines(tmp_path)] == [1, 2]


def test_weights_and_biases_must_be_there_if_it_is_wanted(tmp_path, monkeypatch):
    find = metrics.importlib.util.find_spec
    monkeypatch.setattr(
        metrics.importlib.util,
        "find_spec",
        lambda name: None if name == "wandb" else find(name),
    )
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ValueError, match="pip install wandb"):
        metrics.Log(str(tmp_path), step=0, tensorboard="none", wandb="p")
