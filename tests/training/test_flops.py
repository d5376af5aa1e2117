import jax
import jax.numpy as jnp
import pytest
import toy
from jax import lax

from imagen_jax.training import flops


def shape(*dims):
    return jax.ShapeDtypeStruct(dims, jnp.float32)


def test_matrix_product():
    got = flops.count(jnp.dot, shape(3, 5), shape(5, 7), trained=1)
    assert got.forward == 2 * 3 * 5 * 7
    # Only the second operand is trained: forward and one product for its gradient.
    assert got.training == 2 * got.forward


def test_batched_product_between_trained_operands_counts_three_times():
    got = flops.count(lambda x: jnp.einsum("nld,nmd->nlm", x, x), shape(2, 6, 4))
    assert got.forward == 2 * 2 * 6 * 6 * 4
    assert got.training == 3 * got.forward


def conv(x, kernel, **options):
    return lax.conv_general_dilated(
        x, kernel, padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )


def test_convolution_with_stride():
    got = flops.count(
        lambda x, k: conv(x, k, window_strides=(2, 2)),
        shape(2, 8, 8, 3),
        shape(3, 3, 3, 16),
        trained=1,
    )
    assert got.forward == 2 * (2 * 4 * 4 * 16) * (3 * 3 * 3)


def test_grouped_convolution_sees_its_group_only():
    got = flops.count(
        lambda x, k: conv(x, k, window_strides=(1, 1), feature_group_count=4),
        shape(1, 8, 8, 4),
        shape(3, 3, 1, 8),
    )
    assert got.forward == 2 * (8 * 8 * 8) * 9


def test_transposed_convolution_counts_no_products_with_zeros():
    got = flops.count(
        lambda x, k: lax.conv_transpose(
            x, k, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        shape(1, 4, 4, 3),
        shape(4, 4, 3, 5),
    )
    assert got.forward == 2 * (8 * 8 * 5) * (4 * 4 * 3) / 4


def test_scan_counts_its_body_length_times():
    def loop(w, x):
        return lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=10)[0]

    got = flops.count(loop, shape(6, 6), shape(2, 6))
    assert got.forward == 10 * 2 * 2 * 6 * 6
    # x depends on w from the second round on; a body is counted as its settled self.
    assert got.training == 3 * got.forward


def test_recomputation_is_not_counted():
    def twice(w, x):
        return jnp.tanh(jnp.tanh(x @ w) @ w)

    plain = flops.count(twice, shape(4, 4), shape(2, 4))
    again = flops.count(jax.checkpoint(twice), shape(4, 4), shape(2, 4))
    assert plain == again


def test_calls_and_branches_are_entered():
    def branch(w, x):
        return lax.cond(x[0, 0] > 0, lambda: x @ w, lambda: x @ w @ w)

    got = flops.count(jax.jit(branch), shape(4, 4), shape(2, 4))
    assert got.forward == 2 * (2 * 2 * 4 * 4)
    got = flops.count(
        lambda w, x: lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x @ w, x),
        shape(4, 4),
        shape(2, 4),
    )
    assert got.forward == 2 * 2 * 4 * 4


def test_a_frozen_encoder_counts_once():
    def loss(key, params, frozen, batch):
        return (batch @ frozen) @ params

    got = flops.count(loss, None, shape(6, 2), shape(5, 6), shape(3, 5), trained=1)
    encoder, head = 2 * 3 * 5 * 6, 2 * 3 * 6 * 2
    assert got.forward == encoder + head
    assert got.training == encoder + 2 * head
    got = flops.count(
        lambda w, x: lax.stop_gradient(x @ w) @ w, shape(4, 4), shape(2, 4)
    )
    assert got.training == (2 + 2) * 2 * 2 * 4 * 4


def test_a_network_is_three_times_its_forward_but_for_the_first_layer():
    params = jax.eval_shape(toy.init, jax.random.key(0))
    params = jax.tree.map(
        lambda b: b.value, params, is_leaf=lambda b: hasattr(b, "value")
    )
    batch = {"x": shape(toy.B, toy.I), "y": shape(toy.B, toy.O)}
    got = flops.count(toy.exact_loss, jax.random.key(0), params, None, batch, trained=1)
    first, second = 2 * toy.B * toy.I * 16, 2 * toy.B * 16 * toy.O
    assert got.forward == first + second
    assert got.training == 2 * first + 3 * second


@pytest.mark.parametrize("times", [0, 2.5])
def test_counts_add_and_scale(times):
    one = flops.Count(1.0, 3.0)
    assert (one + one) * times == flops.Count(2 * times, 6 * times)
