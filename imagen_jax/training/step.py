"""One training step: any loss -> gradients -> update -> average -> metrics. Pure."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from imagen_jax import partitioning
from imagen_jax.models import layers
from imagen_jax.training import state as training_state
from imagen_jax.types import Array

Tree = Any
Metrics = dict[str, Array]
# loss(key, params, frozen, batch) -> ([B] losses, metrics: [] each)
Loss = Callable[[Array, Tree, Tree, Tree], tuple[Array, Metrics]]
Decay = Callable[[Array], Array]


def ema_decay(decay: float, *, warmup: bool = False) -> Decay:
    """The decay of the parameters' average as a function of the steps done.

    Args:
      decay: its final value, in [0, 1).
      warmup: begin with min(decay, (1 + n) / (10 + n)), so that the random first
        parameters are forgotten soon; n is the number of steps done.
    """
    # Paper silent: EMA appears nowhere in it; 0.9999 is GLIDE's, DALL-E 2's and NeMo's
    # value. The warmup is TensorFlow's, for runs that are short beside 1 / (1 - decay).
    if not 0 <= decay < 1:
        raise ValueError(f"EMA: decay must lie in [0, 1), got {decay}.")

    def at(step):
        if not warmup:
            return jnp.asarray(decay, jnp.float32)
        n = step.astype(jnp.float32)
        return jnp.minimum(decay, (1 + n) / (10 + n))

    return at


def train_step(
    key: Array,
    state: training_state.TrainState,
    frozen: Tree,
    batch: Tree,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    ema_decay: Decay,
    accumulation: int = 1,
    kernel_dtype: DTypeLike = jnp.float32,
) -> tuple[training_state.TrainState, Metrics]:
    """Update the state on one batch.

    A loss or gradient that is not finite leaves parameters, average and optimizer
    state bit for bit as they were: no checkpoint can be poisoned. Whether to stop or go
    on is the loop's choice; it reads `nonfinite`.

    Args:
      key: the run's key, the same in every step; the step number is folded in here.
      state: the state; its `step` counts batches, skipped ones too.
      frozen: arrays the loss reads and nobody trains (a text encoder, a codec).
      batch: a tree of arrays [B, ...].
      loss: (key, params, frozen, batch) -> ([B] losses, metrics).
      optimizer: an optax transformation.
      ema_decay: steps done -> decay of the average.
      accumulation: parts of the batch that are computed one after the other. The
        update is the whole batch's, as far as the loss draws no random numbers: each
        part has its own key.
      kernel_dtype: of the kernels that the loss sees, cast once; the parameters of the
        state, their sum of gradients and the update are float32 whatever it is. With
        bfloat16 devices that share parameters exchange half the bytes.

    Returns:
      The new state and the metrics, [] float32 each: the loss's own, `loss`,
      `grad_norm` (before clipping), `param_norm`, `nonfinite` (0 or 1).
    """
    key = jax.random.fold_in(key, state.step)
    value, metrics, grads = _gradients(
        key,
        layers.stored(state.params, kernel_dtype),
        frozen,
        batch,
        loss=loss,
        parts=accumulation,
    )
    grad_norm = _norm(grads)
    finite = jnp.isfinite(value) & jnp.isfinite(grad_norm)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    rate = 1.0 - ema_decay(state.step)
    ema_params = jax.tree.map(
        lambda ema, p: ema + rate * (p - ema), state.ema_params, params
    )
    params, ema_params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (params, ema_params, opt_state),
        (state.params, state.ema_params, state.opt_state),
    )
    metrics = {
        **metrics,
        "loss": value,
        "grad_norm": grad_norm,
        "param_norm": _norm(params),
        "nonfinite": 1.0 - finite,
    }
    metrics = jax.tree.map(lambda m: jnp.asarray(m, jnp.float32), metrics)
    new = training_state.TrainState(state.step + 1, params, ema_params, opt_state)
    return new, metrics


def _norm(tree: Tree) -> Array:
    """The Euclidean norm of all numbers of a tree, in float32."""
    return jnp.sqrt(
        sum(jnp.sum(jnp.square(a.astype(jnp.float32))) for a in jax.tree.leaves(tree))
    )


def _float32(tree: Tree) -> Tree:
    return jax.tree.map(lambda a: a.astype(jnp.float32), tree)


def _gradients(key, params, frozen, batch, *, loss: Loss, parts: int):
    """Mean loss, mean metrics and mean gradient over the batch; sums in float32."""

    def mean_loss(params, key, batch):
        losses, metrics = loss(key, params, frozen, batch)
        return jnp.mean(losses), metrics

    grad = jax.value_and_grad(mean_loss, has_aux=True)
    if parts == 1:
        (value, metrics), grads = grad(params, key, batch)
        return value, metrics, _float32(grads)

    # Every parts-th example, not a run of them: so each device keeps its own examples.
    def split(a):
        if a.shape[0] % parts:
            raise ValueError(
                f"train_step: the batch size must be a multiple of accumulation = "
                f"{parts}, got {a.shape[0]}."
            )
        return jnp.swapaxes(a.reshape((-1, parts, *a.shape[1:])), 0, 1)

    def one(part):
        index, batch = part
        (value, metrics), grads = grad(params, jax.random.fold_in(key, index), batch)
        return value, metrics, _float32(grads)

    def add(total, part):
        return jax.tree.map(jnp.add, total, one(part)), None

    batches = (jnp.arange(parts), jax.tree.map(split, batch))
    shapes = jax.eval_shape(one, jax.tree.map(lambda a: a[0], batches))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, batches)
    return jax.tree.map(lambda a: a / parts, total)


def compiled(
    mesh: Mesh,
    state: training_state.TrainState,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    ema_decay: Decay,
    accumulation: int = 1,
    kernel_dtype: DTypeLike = jnp.float32,
) -> Callable:
    """`train_step` jitted for a mesh: (key, state, frozen, batch) -> (state, metrics).

    The state is donated: the one given in cannot be used again. Call it inside
    `partitioning.use(mesh)`.

    Args:
      mesh: the devices.
      state: a state on that mesh, or an abstract one, for its shardings.
      loss: see `train_step`.
      optimizer: see `train_step`.
      ema_decay: see `train_step`.
      accumulation: see `train_step`.
      kernel_dtype: see `train_step`.
    """
    state_shardings = training_state.shardings(state)
    whole = partitioning.replicated(mesh)
    return jax.jit(
        partial(
            train_step,
            loss=loss,
            optimizer=optimizer,
            ema_decay=ema_decay,
            accumulation=accumulation,
            kernel_dtype=kernel_dtype,
        ),
        donate_argnums=1,
        # None: the frozen arrays stay where the caller has put them.
        in_shardings=(whole, state_shardings, None, partitioning.batch_sharding(mesh)),
        out_shardings=(state_shardings, whole),
    )
