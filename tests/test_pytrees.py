import dataclasses
import itertools

import jax
import jax.numpy as jnp
import pytest

from imagen_jax import pytrees
from imagen_jax.cascade import recipe
from imagen_jax.diffusion import guidance_weights, inpainting


def declare(number, data, static=()):
    """A class with fields a and b that knows its number."""

    @dataclasses.dataclass(frozen=True)
    class Node:
        a: float = 0.0
        b: int = 1

    Node.number = number
    return pytrees.register_dataclass(Node, data, static)


def test_leaves_are_the_data_and_the_rest_is_structure():
    node = declare(0, ["a"], ["b"])(2.0, 3)
    leaves, structure = jax.tree.flatten(node)
    assert leaves == [2.0] and structure == jax.tree.structure(type(node)(5.0, 3))
    assert structure != jax.tree.structure(type(node)(2.0, 4))
    assert jax.tree.unflatten(structure, [7.0]) == type(node)(7.0, 3)
    (path, leaf), *more = jax.tree.leaves_with_path(node)
    assert jax.tree_util.keystr(path) == ".a" and leaf == 2.0 and not more


def test_fields_may_come_in_any_order():
    node = declare(0, ["b", "a"])(2.0, 3)
    leaves, structure = jax.tree.flatten(node)
    assert leaves == [3, 2.0] and jax.tree.unflatten(structure, leaves) == node


def test_classes_of_the_same_fields_never_share_a_program():
    """With JAX's own registration some do, in 0.10.2."""
    classes = [declare(number, ["a"], ["b"]) for number in range(60)]
    add = jax.jit(lambda node: jnp.float32(node.a + node.number))
    assert [add(node()) for node in classes] == list(range(60))


def test_solvers_and_weights_have_structures_of_their_own():
    some = [make() for make in recipe.SOLVERS.values()]
    solvers = {type(solver): solver for solver in some}.values()
    nodes = [
        *solvers,
        *(inpainting.Resampled(solver=solver) for solver in solvers),
        guidance_weights.Constant(),
        guidance_weights.Linear(),
        guidance_weights.Oscillating(),
    ]
    for one, other in itertools.combinations(map(jax.tree.structure, nodes), 2):
        assert one != other


@pytest.mark.parametrize("data", [["a"], ["a", "b", "b"], ["a", "c"]])
def test_all_fields_must_be_named(data):
    with pytest.raises(ValueError, match=r"fields of Node must be named once each, \["):
        declare(0, data)
