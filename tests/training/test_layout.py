import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from jax.sharding import NamedSharding, PartitionSpec

from imagen_jax import partitioning
from imagen_jax.training import layout, loop, optimizer, state, step


def abstract(sizes, hidden=16):
    schedule = optimizer.learning_rate(
        1e-2, warmup_steps=0, decay="constant", total_steps=1
    )
    mesh = partitioning.make_mesh(sizes)
    rule = optimizer.make("adam", schedule=schedule)
    return mesh, state.abstract(mesh, lambda key: toy.init(key, hidden), rule)


def test_start_up_says_what_each_device_holds():
    mesh, target = abstract({"fsdp": 4, "data": 2})
    # Kernels of 12 x 16 and 16 x 4 and the bias of 4 are split in four; that of 16,
    # of the tensor axis, is not.
    said = layout.describe(mesh, target)
    assert "data 2 x fsdp 4. 276 parameters" in said
    assert f"{260 / 276:.2%} of them sharded, {16 / 276:.2%} replicated" in said
    assert layout.shard_bytes(target.params) == 4 * (260 // 4 + 16)
    # Adam's two moments and its count.
    assert layout.shard_bytes(target.opt_state) == 2 * 4 * (260 // 4 + 16) + 4 * 2


def test_a_sharded_run_with_replicated_parameters_is_refused():
    mesh, target = abstract({"fsdp": 8}, hidden=17)
    with pytest.raises(ValueError, match=r"more than max_replicated = 2.0%") as error:
        layout.check(mesh, target.params, 0.02)
    assert "\n" not in str(error.value)
    # 12 and 17 rows do not divide by 8: all is replicated, the largest named first.
    assert "100.0% of the parameters" in str(error.value)
    assert "first/kernel (12, 17), second/kernel (17, 4)" in str(error.value)
    layout.check(mesh, target.params, 1.0)


def test_a_run_that_shards_no_parameters_is_never_refused():
    mesh, target = abstract({"data": 8}, hidden=17)
    layout.check(mesh, target.params, 0.0)


def test_training_checks_and_says_its_layout(tmp_path, capsys):
    run = toy.run(partitioning.make_mesh({"fsdp": 8}), init=lambda k: toy.init(k, 17))
    with pytest.raises(ValueError, match="max_replicated"):
        loop.train(run, toy.settings(tmp_path, max_replicated=0.02))
    settings = toy.settings(tmp_path, total_steps=1, progress=True)
    loop.train(toy.run(partitioning.make_mesh({"fsdp": 4, "data": 2})), settings)
    assert "Mesh: data 2 x fsdp 4. 276 parameters" in capsys.readouterr().err


def test_bfloat16_kernels_change_little_and_leave_float32_masters():
    results = {}
    for dtype in ("float32", "bfloat16"):
        mesh = partitioning.make_mesh({"fsdp": 4, "data": 2})
        schedule = optimizer.learning_rate(
            1e-2, warmup_steps=0, decay="constant", total_steps=100
        )
        rule = optimizer.make("adam", schedule=schedule)
        now = state.create(jax.random.key(0), mesh, toy.init, rule)
        run = step.compiled(
            mesh,
            now,
            loss=toy.exact_loss,
            optimizer=rule,
            ema_decay=step.ema_decay(0.9),
            kernel_dtype=dtype,
        )
        with partitioning.use(mesh):
            batch = partitioning.place_batch(mesh, toy.batch(0))
            now, metrics = run(jax.random.key(1), now, None, batch)
        assert all(a.dtype == np.float32 for a in jax.tree.leaves(now.params))
        kernel = now.params["first"]["kernel"]
        assert kernel.sharding.shard_shape(kernel.shape) == (3, 16)
        results[dtype] = jax.device_get(metrics)
    full, half = results["float32"], results["bfloat16"]
    # Eight bits of mantissa in two layers' kernels.
    np.testing.assert_allclose(half["loss"], full["loss"], rtol=1e-2)
    assert half["loss"] != full["loss"]
    np.testing.assert_allclose(half["grad_norm"], full["grad_norm"], rtol=2e-2)


def test_parts_finer_than_a_tile_are_padded():
    mesh = partitioning.make_mesh({"data": 1, "fsdp": 8})

    def leaf(shape, spec):
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    coarse, whole = leaf((128, 10), ("fsdp", None)), leaf((4, 5), ())
    fine, narrow = leaf((64, 10), ("fsdp", None)), leaf((16, 512), (None, "fsdp"))
    assert layout.padded_share([coarse, whole]) == 0.0
    assert layout.padded_share([coarse, fine]) == 640 / (1280 + 640)
    assert layout.padded_share([narrow]) == 1.0
