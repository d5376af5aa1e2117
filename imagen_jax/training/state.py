"""What a training run carries from step to step, and how it is laid on the mesh."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from imagen_jax import partitioning
from imagen_jax.checkpoints import quantisation, safetensors, store
from imagen_jax.types import Array

# Parameters, batches and optimizer states are trees of arrays.
Tree = Any
Init = Callable[[Array], Tree]


class TrainState(NamedTuple):
    """Everything that a checkpoint must hold for an exact continuation.

    Attributes:
      step: [] int32, the number of batches seen; also numbers the random keys.
      params: the parameters, float32.
      ema_params: their exponential moving average, float32, the same tree.
      opt_state: the optimizer's state.
    """

    step: Any
    params: Tree
    ema_params: Tree
    opt_state: Tree


def from_params(params: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state at step 0 whose average is the parameters themselves."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.array, params),
        opt_state=optimizer.init(params),
    )


def abstract(
    mesh: Mesh, init: Init, optimizer: optax.GradientTransformation
) -> TrainState:
    """Shapes, dtypes and shardings of the state; nothing is computed or allocated.

    Args:
      mesh: where the state is to live.
      init: key -> parameters, boxed with their logical axes or plain.
      optimizer: an optax transformation.
    """
    with partitioning.without_rules():
        boxed = jax.eval_shape(init, jax.random.key(0))
    params = partitioning.unbox(boxed)
    by_param = partitioning.param_shardings(mesh, boxed)
    shapes = jax.eval_shape(lambda p: from_params(p, optimizer), params)
    by_state = partitioning.optimizer_shardings(
        mesh, params, by_param, shapes.opt_state
    )
    whole = partitioning.replicated(mesh)
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
        shapes,
        TrainState(whole, by_param, by_param, by_state),
    )


def shardings(tree: Tree) -> Tree:
    """The shardings of a tree of arrays, abstract or real."""
    return jax.tree.map(lambda a: a.sharding, tree)


def create(
    key: Array, mesh: Mesh, init: Init, optimizer: optax.GradientTransformation
) -> TrainState:
    """A fresh state, each device computing only its own part of it.

    The values depend on the key alone, not on the mesh.
    """

    def fresh(key):
        return from_params(partitioning.unbox(init(key)), optimizer)

    out = shardings(abstract(mesh, init, optimizer))
    with partitioning.without_rules():
        return jax.jit(fresh, out_shardings=out)(key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FillReport:
    """Which parameters were taken from elsewhere; names are joined with "/".

    Attributes:
      restored: taken.
      missing: wanted, but not in the source: left as they were.
      mismatched: in the source with another shape: left as they were.
      unused: in the source, but not wanted.
    """

    restored: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        """One line a kind, at most eight names each."""
        lines = [f"{len(self.restored)} parameters restored"]
        for kind in ("missing", "mismatched", "unused"):
            names = getattr(self, kind)
            if names:
                shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
                lines.append(f"{len(names)} {kind}: {shown}")
        return "\n".join(lines)


def read_source(path: str) -> dict[str, Any]:
    """Parameters by "/"-joined name, to begin another run with.

    Args:
      path: a workdir, whose newest checkpoint's average is read, or a safetensors file.

    Raises:
      ValueError, checkpoints.store.CheckpointError: if it cannot be read.
    """
    if path.endswith(".safetensors"):
        return quantisation.restore(safetensors.load(path)[0])
    folder = epath.Path(path)
    if (folder / "checkpoints").exists():
        folder = folder / "checkpoints"
    # Paper silent: fine-tuning. The average is the better model, and both the new
    # parameters and their average begin with it.
    return store.flatten(store.load(folder, "ema_params"))


def fill(params: Tree, source: Mapping[str, Any]) -> tuple[Tree, FillReport]:
    """Replace the parameters that `source` has under the same name and shape.

    Args:
      params: the parameters of the new model, on their devices.
      source: arrays by "/"-joined name, for example from a checkpoint.

    Returns:
      The parameters, with dtypes and shardings kept, and the report.

    Raises:
      ValueError: if nothing fits.
    """
    restored, missing, mismatched = [], [], []
    names = set()

    def one(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        names.add(name)
        if name not in source:
            missing.append(name)
            return leaf
        value = source[name]
        if tuple(value.shape) != leaf.shape:
            mismatched.append(f"{name} {tuple(value.shape)} for {leaf.shape}")
            return leaf
        restored.append(name)
        value = np.asarray(value).astype(leaf.dtype)
        return jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda index: value[index]
        )

    params = jax.tree_util.tree_map_with_path(one, params)
    if not restored:
        raise ValueError(
            f"fill: no parameter of the source fits this model ({len(source)} in the "
            f"source, {len(missing)} missing, {len(mismatched)} of another shape). "
            "Use a source of the same architecture."
        )
    unused = sorted(set(source) - names)
    return params, FillReport(
        restored=tuple(restored),
        missing=tuple(missing),
        mismatched=tuple(mismatched),
        unused=tuple(unused),
    )
