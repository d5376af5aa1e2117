import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from imagen_jax import partitioning
from imagen_jax.checkpoints import store
from imagen_jax.training import state
from tests import compiling

ADAM = optax.adam(1e-3)


@pytest.fixture(scope="module")
def mesh():
    return partitioning.make_mesh({"data": 2, "fsdp": 4})


@pytest.fixture(scope="module")
def now(mesh):
    made = state.create(jax.random.key(0), mesh, toy.init, ADAM)
    return made._replace(ema_params=jax.tree.map(lambda p: p + 1, made.params))


@pytest.fixture(scope="module")
def saved(now, tmp_path_factory):
    """A folder with the steps 1 and 2."""
    folder = tmp_path_factory.mktemp("saved")
    with store.Store(folder) as checkpoints:
        checkpoints.save(1, now, {"examples_seen": 16})
        checkpoints.save(2, now, {"examples_seen": 32})
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return pathlib.Path(shutil.copytree(saved, tmp_path / "copy"))


def test_what_is_saved_comes_back(mesh, now, saved):
    with store.Store(saved) as checkpoints:
        assert checkpoints.all_steps() == [1, 2]
        assert checkpoints.latest_step() == 2
        target = state.abstract(mesh, toy.init, ADAM)
        back, position = checkpoints.restore(target)
        assert checkpoints.restore(target, 1)[1] == {"examples_seen": 16}
    assert position == {"examples_seen": 32}
    assert type(back) is state.TrainState
    toy.assert_identical(now, back)


def test_eight_devices_save_and_two_restore(now, saved):
    two = partitioning.make_mesh({"fsdp": 2}, jax.devices()[:2])
    with store.Store(saved) as checkpoints:
        back, _ = checkpoints.restore(state.abstract(two, toy.init, ADAM))
    toy.assert_identical(now, back)
    kernel = back.params["first"]["kernel"]
    assert kernel.sharding.mesh == two
    assert kernel.addressable_shards[0].data.shape == (toy.I // 2, 16)


@pytest.mark.parametrize(("side", "compiles"), [(64, False), (1536, True)])
def test_only_large_arrays_are_cut_among_the_devices(tmp_path, side, compiles):
    """Cutting is compiled, once a shape and place."""
    place = partitioning.replicated(partitioning.make_mesh({"data": 8}))
    value = np.arange(side * side, dtype=np.float32).reshape(side, side)
    tree = {"kernel": jax.device_put(value, place)}
    with store.Store(tmp_path) as checkpoints:
        with compiling.watched() as programs:
            checkpoints.save(1, tree, {})
            checkpoints.wait()
        back, _ = checkpoints.restore(tree)
    assert bool(programs) is compiles
    np.testing.assert_array_equal(back["kernel"], value)


def test_one_part_comes_without_the_rest(mesh, now, saved):
    average = store.load(saved)
    assert isinstance(average["first"]["kernel"], np.ndarray)
    toy.assert_identical(now.ema_params, average)
    target = state.abstract(mesh, toy.init, ADAM).params
    params = store.load(saved, "params", step=1, target=target)
    toy.assert_identical(now.params, params)
    assert params["first"]["kernel"].sharding == target["first"]["kernel"].sharding
    with pytest.raises(store.CheckpointError, match="not 'weights'"):
        store.load(saved, "weights")


def test_only_the_newest_are_kept_and_a_step_is_saved_once(now, tmp_path):
    with store.Store(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3, 3):
            checkpoints.save(step, {"a": jnp.ones(3)}, {})
        checkpoints.wait()
        assert checkpoints.all_steps() == [2, 3]


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    add = jax.jit(lambda a: a + 1, donate_argnums=0)
    a = jnp.zeros((512, 512))
    with store.Store(tmp_path, keep=3) as checkpoints:
        for step in range(3):
            checkpoints.save(step, {"a": a}, {})
            for _ in range(20):
                a = add(a)
    for step in range(3):
        np.testing.assert_array_equal(store.load(tmp_path, "a", step=step), 20 * step)


def test_what_a_killed_save_left_is_removed(now, copy, mesh):
    left = copy / "3.orbax-checkpoint-tmp-7"
    shutil.copytree(copy / "2", left)
    assert store.steps(copy) == [1, 2]
    with store.Store(copy) as checkpoints:
        assert checkpoints.latest_step() == 2
        checkpoints.save(3, now, {"examples_seen": 48})
    assert not left.exists()
    assert store.steps(copy) == [1, 2, 3]


def biggest(folder):
    files = [p for p in folder.rglob("*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


def cut(folder):
    file = biggest(folder / "state" / "ocdbt.process_0")
    os.truncate(file, file.stat().st_size // 2)


def flip(folder):
    file = biggest(folder / "state" / "ocdbt.process_0")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def lose(folder):
    biggest(folder / "state" / "ocdbt.process_0").unlink()


def lose_everything(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def lose_the_checksums_too(folder):
    (folder / "checksums.json").unlink()
    (folder / "position" / "metadata").write_text('{"examples')


@pytest.mark.parametrize(
    "damage", [cut, flip, lose, lose_everything, lose_the_checksums_too]
)
def test_a_damaged_checkpoint_is_named_and_nothing_else_is_taken(damage, copy, mesh):
    damage(copy / "2")
    target = state.abstract(mesh, toy.init, ADAM)
    with store.Store(copy) as checkpoints:
        with pytest.raises(store.CheckpointError) as caught:
            checkpoints.restore(target)
        # The older one is good, for whoever asks for it.
        assert checkpoints.restore(target, 1)[1] == {"examples_seen": 16}
    words = str(caught.value)
    assert words.startswith(f"Checkpoint: step 2 in {copy} cannot be read")
    assert words.endswith(f"Remove the folder {copy / '2'} to go on from step 1.")
    assert "\n" not in words


def test_another_model_is_named_with_what_differs(copy, mesh):
    target = state.abstract(mesh, lambda k: toy.init(k, hidden=24), ADAM)
    with (
        store.Store(copy) as checkpoints,
        pytest.raises(store.CheckpointError) as caught,
    ):
        checkpoints.restore(target)
    words = str(caught.value)
    assert "belongs to another model or optimizer" in words
    assert "params/first/kernel has shape (12, 16), wanted (12, 24)" in words
    assert "--init_from" in words and "\n" not in words


def test_another_optimizer_is_named(copy, mesh):
    target = state.abstract(mesh, toy.init, optax.sgd(1e-3))
    with (
        store.Store(copy) as checkpoints,
        pytest.raises(store.CheckpointError, match=r"opt_state/.* is not wanted"),
    ):
        checkpoints.restore(target)


def test_missing_steps_and_folders_are_named(saved, tmp_path):
    with pytest.raises(store.CheckpointError, match="none in"):
        store.load(tmp_path / "nowhere")
    with pytest.raises(store.CheckpointError, match=r"no step 7 .* \[1, 2\]"):
        store.load(saved, step=7)


def test_names_are_joined_paths():
    assert store.flatten({"a": {"b": 1, "c": [2]}}) == {"a/b": 1, "a/c/0": 2}
