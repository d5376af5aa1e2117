import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from imagen_jax import partitioning
from imagen_jax.training import optimizer, state, step


def make_optimizer(kind="adam"):
    schedule = optimizer.learning_rate(
        1e-2, warmup_steps=0, decay="constant", total_steps=100
    )
    return optimizer.make(kind, schedule=schedule, clip_norm=1.0)


def steps(mesh, number=2, *, kind="adam", loss=toy.loss, **options):
    """The state and metrics after a few steps from a fixed beginning."""
    rule = make_optimizer(kind)
    now = state.create(jax.random.key(0), mesh, toy.init, rule)
    options.setdefault("ema_decay", step.ema_decay(0.9))
    run = step.compiled(mesh, now, loss=loss, optimizer=rule, **options)
    metrics = {}
    with partitioning.use(mesh):
        for n in range(number):
            batch = partitioning.place_batch(mesh, toy.batch(n))
            now, metrics = run(jax.random.key(1), now, None, batch)
    assert run._cache_size() == 1, "the step was compiled more than once"
    return jax.device_get(now), jax.device_get(metrics)


MESHES = {
    "adam": [{"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}],
    "adafactor": [{"data": 2, "fsdp": 4}],
}


@pytest.fixture(scope="module")
def one_device():
    return partitioning.make_mesh(devices=jax.devices()[:1])


@pytest.mark.parametrize("kind", ["adam", "adafactor"])
def test_one_and_eight_devices_give_the_same_update(one_device, kind):
    one, _ = steps(one_device, kind=kind)
    for sizes in MESHES[kind]:
        many, _ = steps(partitioning.make_mesh(sizes), kind=kind)
        # Sums over the batch are added up in another order: a few float32 roundings.
        for a, b in zip(
            jax.tree.leaves(one.params), jax.tree.leaves(many.params), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_accumulation_equals_the_big_batch():
    mesh = partitioning.make_mesh({"data": 2}, jax.devices()[:2])
    whole, whole_metrics = steps(mesh, loss=toy.exact_loss)
    parts, parts_metrics = steps(mesh, loss=toy.exact_loss, accumulation=4)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for name in whole_metrics:
        np.testing.assert_allclose(whole_metrics[name], parts_metrics[name], rtol=1e-4)


def test_each_step_and_each_part_of_a_batch_draws_its_own_noise(one_device):
    def noise(key, params, frozen, batch):
        drawn = jax.random.normal(key, ())
        return 0 * toy.exact_loss(key, params, frozen, batch)[0], {"n": drawn}

    whole = steps(one_device, 1, loss=noise)[1]["n"]
    parts = steps(one_device, 1, loss=noise, accumulation=2)[1]["n"]
    assert whole != parts
    assert whole != steps(one_device, 2, loss=noise)[1]["n"]


def test_accumulation_must_divide_the_batch(one_device):
    with pytest.raises(ValueError, match="multiple of accumulation = 3, got 16"):
        steps(one_device, 1, accumulation=3)


def test_average_follows_its_formula(one_device):
    before, _ = steps(one_device, 1, ema_decay=step.ema_decay(0.75))
    after, _ = steps(one_device, 2, ema_decay=step.ema_decay(0.75))
    expected = jax.tree.map(
        lambda ema, p: 0.75 * ema + 0.25 * p, before.ema_params, after.params
    )
    for a, b in zip(
        jax.tree.leaves(expected), jax.tree.leaves(after.ema_params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_decay_warms_up_to_its_value():
    decay = step.ema_decay(0.9999, warmup=True)
    assert decay(jnp.asarray(0)) == pytest.approx(0.1)
    assert decay(jnp.asarray(90)) == pytest.approx(0.91)
    assert decay(jnp.asarray(10**6)) == pytest.approx(0.9999)
    assert step.ema_decay(0.9999)(jnp.asarray(0)) == pytest.approx(0.9999)


@pytest.mark.parametrize("value", [1.0, -0.1])
def test_impossible_decay_is_refused(value):
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\)"):
        step.ema_decay(value)


def bad_loss(key, params, frozen, batch):
    losses, metrics = toy.exact_loss(key, params, frozen, batch)
    return losses + jnp.where(batch["bad"], jnp.nan, 0.0), metrics


def bad_gradient(key, params, frozen, batch):
    # sqrt has an infinite slope at 0: a finite loss whose gradient is not.
    losses, metrics = toy.exact_loss(key, params, frozen, batch)
    bias = params["second"]["bias"]
    zero = jnp.sqrt(jnp.sum(jnp.where(batch["bad"][0], 0.0, 1.0) * bias**2))
    return losses + zero, metrics


@pytest.mark.parametrize(
    ("loss", "kind"), [(bad_loss, "adafactor"), (bad_gradient, "adam")]
)
def test_a_step_that_is_not_finite_changes_nothing(loss, kind):
    mesh = partitioning.make_mesh({"data": 2, "fsdp": 4})
    rule = make_optimizer(kind)
    now = state.create(jax.random.key(0), mesh, toy.init, rule)
    run = step.compiled(
        mesh, now, loss=loss, optimizer=rule, ema_decay=step.ema_decay(0.9)
    )

    def go(now, bad):
        batch = toy.batch(0) | {"bad": np.full(toy.B, bad)}
        with partitioning.use(mesh):
            batch = partitioning.place_batch(mesh, batch)
            return run(jax.random.key(1), now, None, batch)

    if loss is bad_gradient:  # away from zero biases
        now = now._replace(params=jax.tree.map(lambda p: p + 0.1, now.params))
    now, good = go(now, False)
    assert good["nonfinite"] == 0
    before = jax.device_get(now)
    now, bad = go(now, True)
    after = jax.device_get(now)
    assert bad["nonfinite"] == 1
    toy.assert_identical(before[1:], after[1:])
    assert after.step == before.step + 1
    now, good = go(now, False)
    assert good["nonfinite"] == 0
    assert not np.array_equal(
        now.params["first"]["kernel"], after.params["first"]["kernel"]
    )


def test_metrics_are_of_the_gradient_before_clipping(one_device):
    params = partitioning.unbox(toy.init(jax.random.key(0)))
    grads = jax.grad(
        lambda p: toy.exact_loss(jax.random.key(0), p, None, toy.batch(0))[0].mean()
    )(params)
    norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(grads)))
    _, metrics = steps(one_device, 1, loss=toy.exact_loss)
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)


def test_frozen_arrays_reach_the_loss_and_stay(one_device):
    rule = make_optimizer()
    now = state.create(jax.random.key(0), one_device, toy.init, rule)

    def loss(key, params, frozen, batch):
        losses, _ = toy.exact_loss(key, params, frozen, batch)
        return losses, {"frozen": frozen["a"].sum()}

    run = step.compiled(
        one_device, now, loss=loss, optimizer=rule, ema_decay=step.ema_decay(0.9)
    )
    frozen = partitioning.place(one_device, {"a": np.ones(3, np.float32)})
    with partitioning.use(one_device):
        batch = partitioning.place_batch(one_device, toy.batch(0))
        _, metrics = run(jax.random.key(1), now, frozen, batch)
    assert metrics["frozen"] == 3
    np.testing.assert_array_equal(frozen["a"], 1)
