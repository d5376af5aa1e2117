import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from imagen_jax import partitioning
from imagen_jax.models import layers
from imagen_jax.training import state

FSDP = {"data": 2, "fsdp": 4}


def test_state_is_really_sharded_over_fsdp():
    mesh = partitioning.make_mesh(FSDP)
    now = state.create(jax.random.key(0), mesh, toy.init, optax.adam(1e-3))
    for tree in (now.params, now.ema_params, now.opt_state[0].mu, now.opt_state[0].nu):
        kernel = tree["first"]["kernel"]
        assert kernel.sharding.spec == jax.sharding.PartitionSpec("fsdp", "tensor")
        assert kernel.addressable_shards[0].data.shape == (toy.I // 4, 16)
        assert tree["second"]["kernel"].addressable_shards[0].data.shape == (16, 1)
    assert now.opt_state[0].count.sharding.is_fully_replicated


def test_adafactor_statistics_are_sharded_as_the_axes_they_keep():
    mesh = partitioning.make_mesh({"fsdp": 4, "tensor": 2})

    def init(key):
        net = layers.Dense(256, name=None)
        return {"dense": net.init(key, jnp.zeros((1, 128)))["params"]}

    now = state.create(jax.random.key(0), mesh, init, optax.adafactor(1e-3))
    factored = now.opt_state[0]
    spec = jax.sharding.PartitionSpec
    # [128, 256] with axes (fsdp, tensor): v_row averages the 256, v_col the 128.
    assert factored.v_row["dense"]["kernel"].shape == (128,)
    assert factored.v_row["dense"]["kernel"].sharding.spec == spec("fsdp")
    assert factored.v_col["dense"]["kernel"].shape == (256,)
    assert factored.v_col["dense"]["kernel"].sharding.spec == spec("tensor")
    assert factored.v["dense"]["bias"].sharding.spec == spec("tensor")
    assert factored.v["dense"]["kernel"].sharding.is_fully_replicated


def test_values_depend_on_the_key_and_not_on_the_mesh():
    one = partitioning.make_mesh(devices=jax.devices()[:1])
    a = state.create(jax.random.key(3), one, toy.init, optax.adam(1e-3))
    b = state.create(
        jax.random.key(3), partitioning.make_mesh(FSDP), toy.init, optax.adam(1e-3)
    )
    # Initial values are sums of nothing; only fused arithmetic may round differently.
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_average_begins_as_a_copy_of_the_parameters():
    mesh = partitioning.make_mesh(FSDP)
    now = state.create(jax.random.key(0), mesh, toy.init, optax.adam(1e-3))
    toy.assert_identical(now.params, now.ema_params)
    one, other = now.params["first"]["kernel"], now.ema_params["first"]["kernel"]
    first, second = (a.addressable_shards[0].data for a in (one, other))
    assert first.unsafe_buffer_pointer() != second.unsafe_buffer_pointer()


def test_abstract_state_is_the_real_one_without_values():
    mesh = partitioning.make_mesh(FSDP)
    now = state.create(jax.random.key(0), mesh, toy.init, optax.adam(1e-3))
    shapes = state.abstract(mesh, toy.init, optax.adam(1e-3))
    jax.tree.map(lambda a, b: None, now, shapes)
    for a, b in zip(jax.tree.leaves(now), jax.tree.leaves(shapes), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)


class Stem(nn.Module):
    @nn.compact
    def __call__(self, x):
        return layers.Conv(6, name="stem")(x)


def test_axes_that_the_mesh_does_not_divide_stay_whole_even_inside_it():
    mesh = partitioning.make_mesh({"fsdp": 4, "tensor": 2})

    def init(key):
        return Stem().init(key, jnp.zeros((1, 4, 4, 3)))["params"]

    with partitioning.use(mesh):
        now = state.create(jax.random.key(0), mesh, init, optax.adam(1e-3))
    kernel = now.params["stem"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (3, 3, 3, 3)  # 6 outputs over 2


def arrays(**shapes):
    return {name.replace("__", "/"): np.ones(s, "f4") for name, s in shapes.items()}


def test_fill_takes_what_fits_and_reports_the_rest():
    mesh = partitioning.make_mesh(FSDP)
    now = state.create(jax.random.key(0), mesh, toy.init, optax.adam(1e-3))
    source = arrays(
        first__kernel=(toy.I, 16), first__bias=(7,), second__bias=(toy.O,), old=(1,)
    )
    params, report = state.fill(now.params, source)
    assert report.restored == ("first/kernel", "second/bias")
    assert report.missing == ("second/kernel",)
    assert report.mismatched == ("first/bias (7,) for (16,)",)
    assert report.unused == ("old",)
    np.testing.assert_array_equal(params["first"]["kernel"], 1)
    assert params["first"]["kernel"].sharding == now.params["first"]["kernel"].sharding
    toy.assert_identical(params["second"]["kernel"], now.params["second"]["kernel"])
    assert str(report).splitlines()[0] == "2 parameters restored"


def test_fill_with_nothing_that_fits_is_refused():
    mesh = partitioning.make_mesh(FSDP)
    now = state.create(jax.random.key(0), mesh, toy.init, optax.adam(1e-3))
    with pytest.raises(ValueError, match="no parameter of the source fits"):
        state.fill(now.params, arrays(other=(3,)))
