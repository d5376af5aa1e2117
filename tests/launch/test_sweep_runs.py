"""Which runs a sweep has, what they are called, and what is refused at once."""

import argparse
import json

import pytest

import shell
import sweep_runs

BASE = ["imagen-jax", "train", "--config", "text/byte_t5"]


def make(*words, command=BASE, out="runs/s"):
    parser = argparse.ArgumentParser()
    sweep_runs.add_arguments(parser)
    args = parser.parse_args(words)
    args.out, args.command = out, command
    return sweep_runs.make(args)


def names(*words, **more):
    return [run.name for run in make(*words, **more)]


def error(*words, **more):
    with pytest.raises(shell.LaunchError) as caught:
        make(*words, **more)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_grid_is_all_combinations_and_lists_go_side_by_side():
    assert names(
        "--grid=seed=0,1", "--grid=optimizer.peak_lr=1e-3,0.02",
        "--list=text.length=32,48", "--list=data.batch_size=8,4",
    ) == [
        f"seed={seed},peak_lr={rate},length={length},batch_size={batch}"
        for seed in (0, 1)
        for rate in ("0.001", "0.02")
        for length, batch in ((32, 8), (48, 4))
    ]  # fmt: skip


def test_a_run_is_the_command_with_its_values_and_a_folder_of_its_own():
    [run] = make(
        "--grid=seed=7", command=[*BASE, "--config.training.steps=5"], out="/r/s/"
    )
    assert run.workdir == "/r/s/seed=7" and run.steps == 5 and run.slug == "seed-7"
    assert run.command == [
        *BASE, "--config.training.steps=5", "--workdir", "/r/s/seed=7",
        "--config.seed=7",
    ]  # fmt: skip


def test_the_number_of_steps_may_be_swept():
    assert [r.steps for r in make("--grid=training.steps=3,4")] == [3, 4]


def test_names_say_values_and_not_how_they_were_written():
    assert names("--grid=optimizer.peak_lr=1e-3") == ["peak_lr=0.001"]
    assert names("--grid=optimizer.peak_lr=.0010") == ["peak_lr=0.001"]


def test_keys_with_one_last_word_are_told_apart():
    assert names("--grid=seed=1", "--grid=data.seed=2") == ["seed=1,data.seed=2"]
    assert sweep_runs.short_keys(["a.b.c", "d.b.c", "x.y"]) == {
        "a.b.c": "a.b.c", "d.b.c": "d.b.c", "x.y": "y",
    }  # fmt: skip


def test_tuples_are_one_value_and_a_plain_name():
    base = ["imagen-jax", "train", "--config", "shapes/base"]
    key = "network.channel_mult"
    found = make(f"--grid={key}=(1,2),(1,2,4)", command=base)
    assert [r.name for r in found] == ["channel_mult=1x2", "channel_mult=1x2x4"]
    assert [r.command[-1] for r in found] == [
        f"--config.{key}=(1,2)", f"--config.{key}=(1,2,4)",
    ]  # fmt: skip


def test_long_names_are_cut_and_stay_apart():
    long = [f"{'a' * 200}{i}" for i in (1, 2)]
    found = names(f"--grid=text.sentencepiece={','.join(long)}")
    assert len(set(found)) == 2 and {len(name) for name in found} == {120}
    assert found == names(f"--grid=text.sentencepiece={','.join(long)}")
    assert all(len(r.slug) <= 40 for r in make("--grid=name=" + "b" * 60))


TABLES = {
    "grid": {"optimizer.peak_lr": [0.001, 0.002], "seed": [0, 1]},
    "list": {"text": {"length": [32, 48]}, "data.task": ["captions", "x"]},
    "runs": [{"seed": 5}],
}
TOML = """\
[grid]
optimizer.peak_lr = [0.001, 0.002]
seed = [0, 1]
[list]
text.length = [32, 48]
data.task = ["captions", "x"]
[[runs]]
seed = 5
"""


@pytest.mark.parametrize(
    ("file", "text"), [("s.toml", TOML), ("s.json", json.dumps(TABLES))]
)
def test_a_file_is_as_good_as_flags(tmp_path, file, text):
    path = tmp_path / file
    path.write_text(text)
    flags = [
        "--grid=optimizer.peak_lr=0.001,0.002", "--grid=seed=0,1",
        "--list=text.length=32,48", "--list=data.task=captions,x",
    ]  # fmt: skip
    *together, single = make("--file", str(path))
    assert [r.command for r in together] == [r.command for r in make(*flags)]
    assert single.values == {"seed": "5"} and single.name == "seed=5"


def test_flags_take_the_place_of_a_files_values(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text("[grid]\nseed = [0, 1]\n")
    assert names("--file", str(path), "--grid=seed=4") == ["seed=4"]


def test_a_wrong_key_or_value_is_the_configs_own_error_once():
    message = error("--grid=optimizer.peak_lrr=1,2,3", "--grid=seed=0,1")
    assert message == (
        "--config.optimizer.peak_lrr: no such key. Did you mean 'optimizer.peak_lr'? "
        "Nothing was started."
    )
    assert "--config.seed: must be int, got '1.5'" in error("--grid=seed=0,1.5")
    assert "no config 'nothing'" in error(
        "--grid=seed=0", command=["imagen-jax", "train", "--config", "nothing"]
    )


def test_two_runs_of_one_name_are_refused():
    assert error("--grid=optimizer.peak_lr=1e-3,0.001") == (
        "the run peak_lr=0.001 is there twice; leave one out."
    )
    message = error("--grid=data.task=a b,a-b")
    assert message.startswith("two runs would both be called 'task=a-b'")
    # Schedulers know no capitals.
    assert "both be called 'task-a'" in error("--grid=data.task=a,A")


def test_what_cannot_be_a_sweep_is_one_line(tmp_path):
    assert "no values" in error()
    assert "equally long" in error("--list=seed=0,1", "--list=text.length=32")
    assert "seed is in the grid and in a list" in error(
        "--grid=seed=0", "--list=seed=1"
    )
    assert "must be KEY=VALUE,VALUE" in error("--grid=seed")
    assert "--workdir is the sweep's" in error(
        "--grid=seed=0", command=[*BASE, "--workdir=/x"]
    )
    assert "a sweep runs imagen-jax train, not params" in error(
        "--grid=seed=0", command=["imagen-jax", "params"]
    )
    path = tmp_path / "s.toml"
    for text, part in (
        ("[grids]\n", "has grid, list and runs, and no 'grids'"),
        ("[grid]\nseed = 1\n", "grid.seed must be a list"),
        ("grid", "s.toml: "),
    ):
        path.write_text(text)
        assert part in error("--file", str(path))
    assert "No such file" in error("--file", str(tmp_path / "none.toml"))
