import flax.linen as nn
import jax
import numpy as np

from imagen_jax import partitioning
from imagen_jax.cascade import placing


def resident(limit, reads, mesh=None, shapes=dict):
    def reader(i):
        return lambda: reads.append(i) or {"a": np.zeros(100, np.float32)}

    mesh = partitioning.make_mesh(mesh)
    return placing.Resident([reader(0), reader(1)], [shapes] * 2, mesh, limit)


def test_what_was_read_stays_where_memory_allows():
    reads = []
    placed = resident(800, reads)
    assert isinstance(placed[0]["a"], jax.Array)
    assert placed[0]["a"].sharding.is_fully_replicated
    placed[1], placed[0], placed[1]
    assert reads == [0, 1]


def test_what_is_split_over_devices_takes_a_part_of_each():
    """Four ways: 800 bytes are 200 a device."""
    reads = []
    shapes = {
        "a": nn.LogicallyPartitioned(jax.ShapeDtypeStruct((100,), "f4"), ("mlp",))
    }
    placed = resident(200, reads, {"data": 2, "tensor": 4}, lambda: shapes)
    assert placed[0]["a"].sharding.shard_shape((100,)) == (25,)
    placed[1], placed[0]
    assert reads == [0, 1]


def test_one_network_is_resident_where_memory_is_short():
    reads = []
    placed = resident(799, reads)
    placed[0], placed[1], placed[1], placed[0]
    assert reads == [0, 1, 0]
