import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.models import detector

SMALL = detector.Detector(
    num_classes=5, num_backgrounds=3, stem_channels=8, channels=16, deep_channels=16
)
APPLY = jax.jit(SMALL.apply)


@pytest.fixture(scope="module")
def params():
    init = jax.jit(lambda key: nn.unbox(SMALL.init(key, jnp.zeros((1, 64, 64, 3)))))
    return init(jax.random.key(0))


def test_every_cell_answers_in_float32(params):
    x = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
    seen = APPLY(params, x)
    assert seen.present.shape == (2, 16, 16)
    assert seen.classes.shape == (2, 16, 16, 5)
    assert seen.box.shape == (2, 16, 16, 3)
    assert seen.background.shape == (2, 3)
    assert {a.dtype for a in seen} == {jnp.dtype("float32")}
    # Before training an object is thought to be rare.
    assert float(jax.nn.sigmoid(seen.present).mean()) < 0.1


def test_a_picture_is_judged_by_itself(params):
    x = jax.random.normal(jax.random.key(2), (2, 64, 64, 3))
    one, other = APPLY(params, x), APPLY(params, x.at[0].multiply(-1.0))
    for before, after in zip(one, other, strict=True):
        np.testing.assert_array_equal(before[1], after[1])
    assert float(jnp.abs(one.classes[0] - other.classes[0]).max()) > 0.0


def test_the_shipped_size_is_small():
    module = detector.Detector(num_classes=220, num_backgrounds=8)
    shapes = jax.eval_shape(
        lambda: nn.unbox(module.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3))))
    )
    assert sum(a.size for a in jax.tree.leaves(shapes)) <= 1_500_000


def test_odd_sizes_are_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        jax.eval_shape(lambda: SMALL.init(jax.random.key(0), jnp.zeros((1, 60, 60, 3))))
