"""What a program multiplies: counted in loops and gradients, and timed apart."""

import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax import partitioning
from imagen_jax.benchmark import products, timing
from imagen_jax.training import flops

A, B = jnp.ones((4, 8)), jnp.ones((8, 16))


def test_a_product_in_a_loop_counts_as_often_as_it_runs():
    def looped(a, b):
        return jax.lax.scan(lambda c, _: (c + (a @ b).sum(), None), 0.0, length=5)[0]

    found = products.of(looped, A, B)
    ((product, times),) = found.items()
    assert times == 5 and product.primitive == "dot_general"
    assert product.operations == 2 * 4 * 8 * 16


def test_equal_products_are_one_and_others_are_not():
    found = products.of(lambda a, b: (a @ b, (a + 1) @ b, a.T @ (a @ b)), A, B)
    # The first is asked for three times, a.T @ (...) once.
    assert sorted(found.values()) == [1, 3]


def test_a_gradients_products_are_those_that_flops_counts():
    def loss(kernel, x):
        y = jax.lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.sum(jax.checkpoint(jnp.tanh)(y) ** 2)

    kernel, x = jnp.ones((3, 3, 4, 8)), jnp.ones((2, 8, 8, 4))
    found = products.of(jax.grad(loss), kernel, x)
    total = sum(p.operations * n for p, n in found.items())
    assert total == flops.count(loss, kernel, x, trained=0).training


def test_what_is_left_out_is_the_smallest():
    found = products.of(lambda a, b: (a @ b, a[:1] @ b[:, :1]), A, B)
    (largest,) = products.largest(found, 0.9)
    assert largest.operations == 2 * 4 * 8 * 16
    assert len(products.largest(found, 1.0)) == 2


def test_a_product_timed_alone_is_the_product():
    ((product, _),) = products.of(lambda a, b: a @ b, A, B).items()
    a, b = products.operands(product)
    np.testing.assert_allclose(product.bind(a, b), a @ b, rtol=1e-5)
    assert 0 < timing.seconds_of(product, partitioning.make_mesh()) < 60
