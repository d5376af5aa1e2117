import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import partitioning


def test_mesh_fills_the_axis_that_is_left_open():
    mesh = partitioning.make_mesh({"data": -1, "fsdp": 4})
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4, "tensor": 1, "spatial": 1}
    assert partitioning.make_mesh().shape["data"] == 8


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"model": 2}, "axes must be among"),
        ({"data": -1, "fsdp": -1}, "at most one -1"),
        ({"data": 3}, "do not divide the 8 devices"),
        ({"fsdp": 3, "data": -1}, "do not divide the 8 devices"),
    ],
)
def test_impossible_meshes_are_refused(sizes, words):
    with pytest.raises(ValueError, match=words):
        partitioning.make_mesh(sizes)


def test_batch_is_split_over_data_and_fsdp():
    mesh = partitioning.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})
    images = np.arange(8 * 3, dtype=np.uint8).reshape(8, 3)
    placed = partitioning.place_batch(mesh, {"image": images})["image"]
    assert placed.addressable_shards[0].data.shape == (2, 3)
    np.testing.assert_array_equal(placed, images)


def test_batch_that_the_devices_cannot_share_is_refused():
    mesh = partitioning.make_mesh()
    with pytest.raises(ValueError, match=r"multiple of the 8 devices .* got 6"):
        partitioning.place_batch(mesh, {"image": np.zeros((6, 2))})


def test_unknown_logical_axis_is_refused():
    mesh = partitioning.make_mesh()
    box = nn.LogicallyPartitioned(jax.ShapeDtypeStruct((4,), jnp.float32), ("embedd",))
    with pytest.raises(ValueError, match="no rule for logical axes \\['embedd'\\]"):
        partitioning.param_shardings(mesh, {"a": box})


def test_placing_leaves_alone_what_is_on_the_mesh():
    mesh = partitioning.make_mesh()
    there = partitioning.place_batch(mesh, np.zeros((8, 2)))
    placed = partitioning.place(mesh, {"there": there, "new": np.ones(3)})
    assert placed["there"] is there
    assert placed["new"].sharding.is_fully_replicated
    assert len(placed["new"].sharding.device_set) == 8
    assert partitioning.place(mesh, None) is None


def test_slices_are_joined_along_the_data_axis_only():
    devices = jax.devices()
    mesh = partitioning.make_mesh({"slices": 2, "data": -1, "fsdp": 4})
    assert mesh.shape["data"] == 2
    assert set(mesh.devices[0].flat) == set(devices[:4])
    assert set(mesh.devices[1].flat) == set(devices[4:])
    mesh = partitioning.make_mesh({"slices": 2, "data": 4, "tensor": 2})
    assert set(mesh.devices[:2].flat) == set(devices[:4])


def test_slices_that_split_another_axis_are_refused():
    with pytest.raises(ValueError, match="data axis must be a multiple of slices = 2"):
        partitioning.make_mesh({"slices": 2, "data": 1, "fsdp": -1})


def test_parameters_are_placed_by_their_logical_axes():
    mesh = partitioning.make_mesh({"fsdp": 4, "tensor": 2})
    shape = jax.ShapeDtypeStruct((8, 6), jnp.float32)
    boxed = {"kernel": nn.LogicallyPartitioned(shape, ("embed", "mlp"))}
    values = np.arange(48, dtype=np.float32).reshape(8, 6)
    placed = partitioning.place_params(mesh, boxed, {"kernel": values})["kernel"]
    assert placed.addressable_shards[0].data.shape == (2, 3)
    np.testing.assert_array_equal(placed, values)
