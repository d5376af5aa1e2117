"""Dataclasses as pytrees whose structures tell their classes apart."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import jax
from jax.tree_util import GetAttrKey

T = TypeVar("T", bound=type)


def register_dataclass(
    nodetype: T, data_fields: Sequence[str], meta_fields: Sequence[str]
) -> T:
    """`jax.tree_util.register_dataclass`, with structures that differ between classes.

    jaxlib 0.10.2 calls the structures of any two dataclasses equal that have as many
    leaves and the same static values. Their hashes differ, so that most tables keep
    them apart; where they fall together, `jit` runs the program that was compiled for
    the other class: one solver for another. A custom node's class is compared.

    Args:
      nodetype: the class, a dataclass.
      data_fields: names of the fields that hold subtrees.
      meta_fields: names of the static fields, which must be hashable.

    Returns:
      The class.

    Raises:
      ValueError: if the names are not those of the class's fields.
    """
    fields = {f.name for f in dataclasses.fields(nodetype) if f.init}
    named = [*data_fields, *meta_fields]
    if len(named) != len(set(named)) or set(named) != fields:
        raise ValueError(
            f"register_dataclass: the fields of {nodetype.__name__} must be named once "
            f"each, {sorted(fields)}, got {named}."
        )

    def static(node):
        return tuple(getattr(node, name) for name in meta_fields)

    def flatten(node):
        return [getattr(node, name) for name in data_fields], static(node)

    def flatten_with_keys(node):
        children = [(GetAttrKey(name), getattr(node, name)) for name in data_fields]
        return children, static(node)

    def unflatten(meta, data):
        values = zip(named, (*data, *meta), strict=True)
        return nodetype(**dict(values))

    jax.tree_util.register_pytree_with_keys(
        nodetype, flatten_with_keys, unflatten, flatten
    )
    return nodetype
