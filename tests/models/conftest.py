"""Small conditions and random parameters for the networks' tests."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning


def normal(shape, seed):
    """Unit normal numbers, made by numpy: nothing to compile."""
    numbers = np.random.default_rng(seed).standard_normal(shape)
    return jnp.asarray(numbers.astype(np.float32))


@pytest.fixture(name="normal")
def normal_fixture():
    return normal


@functools.cache
def compiled(network):
    return jax.jit(network.apply)


@pytest.fixture
def run():
    """Apply a network to inputs, compiled as one program and kept."""

    def apply(network, params, *inputs):
        return np.asarray(compiled(network)(params, *inputs))

    return apply


@pytest.fixture
def text_map_moves(run):
    """How far other queries of its text map move a network's result."""

    def largest(network, params, *inputs):
        changed = jax.tree.map(lambda a: a, params)
        query = changed["params"]["text_map"]["query"]
        query["kernel"] = query["kernel"] + 1.0
        moved = run(network, changed, *inputs) - run(network, params, *inputs)
        return np.abs(moved).max()

    return largest


@pytest.fixture
def initialised():
    """Parameters from the network's own initialisers."""

    def make(network, *inputs):
        # Another generator: the default's code, once a parameter, is slow to compile.
        return jax.jit(network.init)(jax.random.key(0, impl="unsafe_rbg"), *inputs)

    return make


@pytest.fixture
def make_cond():
    """A batch of conditions: text of lengths 5 and 3 of 5, planes where asked."""

    def make(height=16, width=16, *, planes=False, text=True, seed=0, features=12):
        tokens = normal((2, 5, features), seed)
        mask = np.arange(5)[None] < np.array([[5], [3]])
        return Conditioning(
            tokens=tokens if text else None,
            mask=jnp.asarray(mask) if text else None,
            planes=normal((2, height, width, 3), seed + 1) if planes else None,
            aug_level=jnp.array([0.2, 0.7]) if planes else None,
        )

    return make


@pytest.fixture
def randomised():
    """Parameters of a network with every leaf random, zero-initialised ones too."""

    def make(network, *inputs, seed=0):
        shapes = nn.unbox(jax.eval_shape(network.init, jax.random.key(0), *inputs))
        leaves, treedef = jax.tree.flatten(shapes)
        # Unit gain: over the root of what each output sums.
        return treedef.unflatten(
            [
                normal(leaf.shape, seed + i)
                * max(1, math.prod(leaf.shape[:-1])) ** -0.5
                for i, leaf in enumerate(leaves)
            ]
        )

    return make


@pytest.fixture
def unknown_axes():
    """Paths of parameters without logical axes that partitioning.RULES knows."""
    from imagen_jax import partitioning

    known = {name for name, _ in partitioning.RULES} | {None}

    def check(network, *inputs):
        boxed = jax.eval_shape(network.init, jax.random.key(0), *inputs)
        leaves = jax.tree_util.tree_leaves_with_path(
            boxed, is_leaf=lambda a: isinstance(a, nn.meta.AxisMetadata)
        )
        assert leaves
        return [
            jax.tree_util.keystr(path)
            for path, leaf in leaves
            if not isinstance(leaf, nn.LogicallyPartitioned)
            or len(leaf.names) != leaf.value.ndim
            or not set(leaf.names) <= known
        ]

    return check
