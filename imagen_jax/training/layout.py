"""How a state lies on the mesh: what a run says of it when it starts."""

import math
from typing import Any

import jax
from jax.sharding import Mesh

from imagen_jax.training import state as training_state

Tree = Any


def shard_bytes(tree: Tree) -> int:
    """Bytes that one device holds of a tree of arrays, abstract or real."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def is_replicated(leaf: Any) -> bool:
    """Whether each device holds all of an array."""
    return leaf.sharding.shard_shape(leaf.shape) == leaf.shape


def describe(mesh: Mesh, state: training_state.TrainState, frozen: Tree = None) -> str:
    """The mesh, the share of the parameters that is sharded, and bytes a device."""
    total = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    whole = replicated_share(state.params)
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1)
    megabytes = {
        "parameters": shard_bytes(state.params),
        "average": shard_bytes(state.ema_params),
        "optimizer": shard_bytes(state.opt_state),
    }
    if frozen is not None:
        megabytes["frozen"] = shard_bytes(frozen)
    sizes = ", ".join(f"{name} {n / 1e6:,.1f}" for name, n in megabytes.items())
    return (
        f"Mesh: {axes or 'one device'}. {total:,} parameters, "
        f"{1 - whole:.2%} of them sharded, {whole:.2%} replicated. "
        f"MB a device: {sizes}."
    )


def replicated_share(params: Tree) -> float:
    """The share of the parameters that lies whole on each device."""
    leaves = jax.tree.leaves(params)
    whole = sum(leaf.size for leaf in leaves if is_replicated(leaf))
    return whole / sum(leaf.size for leaf in leaves)


def padded_share(params: Tree) -> float:
    """The share of the parameters cut finer along an axis than a TPU's tile.

    XLA gathers those as all-reduces of padded arrays, which send twice as much.
    """

    def fine(leaf) -> bool:
        part = leaf.sharding.shard_shape(leaf.shape)
        cut = [i for i, size in enumerate(part) if size != leaf.shape[i]]
        # In bfloat16 a tile has 16 rows of 128 columns.
        return any(part[i] < (128 if i == len(part) - 1 else 16) for i in cut)

    leaves = jax.tree.leaves(params)
    return sum(leaf.size for leaf in leaves if fine(leaf)) / sum(
        leaf.size for leaf in leaves
    )


def check(mesh: Mesh, params: Tree, max_replicated: float) -> None:
    """Refuse a sharded run much of whose parameters are replicated.

    Raises:
      ValueError: if the mesh shards parameters and more than the share
        `max_replicated` of them lies whole on each device, naming the largest.
    """
    ways = mesh.shape["fsdp"] * mesh.shape["tensor"]
    share = replicated_share(params)
    if ways == 1 or share <= max_replicated:
        return
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    whole = sorted(
        ((leaf.size, path, leaf.shape) for path, leaf in leaves if is_replicated(leaf)),
        key=lambda row: -row[0],
    )
    names = ", ".join(
        f"{jax.tree_util.keystr(path, simple=True, separator='/')} {shape}"
        for _, path, shape in whole[:4]
    )
    raise ValueError(
        f"Training: {share:.1%} of the parameters are replicated on a mesh of fsdp "
        f"{mesh.shape['fsdp']} and tensor {mesh.shape['tensor']}, more than "
        f"max_replicated = {max_replicated:.1%}; the largest: {names}. Choose mesh "
        "sizes that divide their axes, or raise config.training.max_replicated."
    )
