"""What is compiled: a training step, a whole sampling run, or encoding text.

Every array is abstract, a shape with its place on the mesh; nothing is allocated.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imagen_jax import build, partitioning
from imagen_jax.cascade import request
from imagen_jax.models import layers
from imagen_jax.text import encoder
from imagen_jax.training import flops, layout, step
from imagen_jax.training import state as training_state

Tree = Any
KINDS = ("train", "sample", "encode")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A function with its abstract arguments on a mesh.

    Attributes:
      kind: one of `KINDS`.
      mesh: the devices.
      batch: examples of one run.
      function: what to compile, jitted.
      arguments: of the function.
      parts: bytes a chip of the arguments, by what they are.
      parameters: numbers of the network that is trained, sampled or encodes.
      count_flops: -> operations of the model in one run, all chips together.
      checkpoint_bytes: of a training state on disk; 0 elsewhere.
      steps: training steps that the config asks for; 0 elsewhere.
      least_bytes: what a chip must send in a step of fully sharded training: kernels
        gathered for the forward and for the backward pass, gradients scattered once,
        and a frozen encoder's kernels gathered once, in each part of the batch; 0
        elsewhere. Norms and biases count as kernels.
    """

    kind: str
    mesh: Mesh
    batch: int
    function: Any
    arguments: tuple
    parts: dict[str, int]
    parameters: int
    count_flops: Callable[[], float]
    checkpoint_bytes: int = 0
    steps: int = 0
    least_bytes: int = 0

    def trace(self):
        """The program as JAX traces it, to be lowered for its devices."""
        with partitioning.use(self.mesh):
            return self.function.trace(*self.arguments)


def make(config: build.Config, kind: str, mesh: Mesh, batch: int) -> Program:
    """The program of a config on a mesh.

    Raises:
      ValueError: for another kind, a config that is no stage's, or a batch that the
        mesh cannot share.
    """
    if kind not in KINDS:
        raise ValueError(f"--program: must be one of {KINDS}, got {kind!r}.")
    if config.kind != "stage":
        raise ValueError(
            f"--config: plan takes a config of kind 'stage', got {config.kind!r}."
        )
    maker = {"train": _train, "sample": _sample, "encode": _encode}[kind]
    return maker(config, mesh, batch)


def _train(config: build.Config, mesh: Mesh, batch: int) -> Program:
    stage, (rule, _) = build.make_stage(config), build.make_optimizer(config)
    settings = build.loop_settings(config, workdir="")
    state = training_state.abstract(mesh, stage.init, rule)
    layout.check(mesh, state.params, settings.max_replicated)
    side = config.data.crop or stage.resolution
    shapes = {"image": ((side, side, 3), jnp.uint8), **_text_shapes(config)}
    # A path of embeddings means that text comes encoded; else T5 is in the program.
    frozen = None
    if not config.data.get("embeddings", ""):
        frozen = encoder_params(config, mesh)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch % (ways * settings.accumulation):
        raise ValueError(
            f"--batch: must be a multiple of {ways} chips that share it, times "
            f"accumulation = {settings.accumulation}, got {batch}."
        )
    examples = _batch(mesh, batch, shapes)
    key = _key(mesh, ())
    function = step.compiled(
        mesh,
        state,
        loss=stage.loss,
        optimizer=rule,
        ema_decay=step.ema_decay(
            config.training.ema_decay, warmup=config.training.ema_warmup
        ),
        accumulation=settings.accumulation,
        kernel_dtype=settings.kernel_dtype,
    )
    width = jnp.dtype(settings.kernel_dtype).itemsize
    encoded = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(frozen))
    least_bytes = settings.accumulation * (3 * width * _size(state.params) + encoded)
    parts = {
        "parameters": layout.shard_bytes(state.params),
        "average": layout.shard_bytes(state.ema_params),
        "optimizer": layout.shard_bytes(state.opt_state),
        "text encoder": layout.shard_bytes(frozen),
        "batch": layout.shard_bytes(examples),
    }
    return Program(
        kind="train",
        mesh=mesh,
        batch=batch,
        function=function,
        arguments=(key, state, frozen, examples),
        parts=parts,
        parameters=_size(state.params),
        count_flops=lambda: (
            flops.count(
                stage.loss, key, state.params, frozen, examples, trained=1
            ).training
        ),
        checkpoint_bytes=sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(state)),
        steps=config.training.steps,
        least_bytes=least_bytes if mesh.shape["fsdp"] > 1 else 0,
    )


def _sample(config: build.Config, mesh: Mesh, batch: int) -> Program:
    stage, recipe = build.make_stage(config), build.make_recipe(config)
    params = _stored(mesh, stage.init, config.network.dtype)
    side, low = stage.resolution, stage.low_resolution
    shapes = _text_shapes(config, encoded=True)
    if low:
        # Whole on each chip that shares a picture: all rows of a small picture are
        # wanted when a part of it is enlarged.
        shapes["low_res"] = ((low, low, stage.channels), jnp.float32)
    given = _batch(mesh, batch, shapes)
    # Abstract, as every array here.
    values: Any = given["text_values"]
    mask: Any = given["mask"]
    text = encoder.TextEmbedding(values, mask)
    low_res: Any = given.get("low_res")
    asked = request.Request(text=text, empty=text, low_res=low_res)
    scalar = jax.ShapeDtypeStruct(
        (), jnp.float32, sharding=partitioning.replicated(mesh)
    )
    recipe = jax.tree.map(lambda _: scalar, recipe)
    out = _picture(mesh, (batch, side, side, stage.channels)).sharding

    arguments = (_key(mesh, (batch,)), params, asked, recipe)
    return Program(
        kind="sample",
        mesh=mesh,
        batch=batch,
        function=jax.jit(stage.sample, out_shardings=out),
        arguments=arguments,
        parts={
            "parameters": layout.shard_bytes(params),
            "batch": layout.shard_bytes(asked),
        },
        parameters=_size(params),
        count_flops=lambda: flops.count(stage.sample, *arguments, trained=1).forward,
    )


def _encode(config: build.Config, mesh: Mesh, batch: int) -> Program:
    module = build.make_text_module(config)
    params = encoder_params(config, mesh)
    ids = _batch(mesh, batch, _text_shapes(config, encoded=False))

    def encode(params, ids, mask):
        return encoder.embed(module, params, ids, mask)

    arguments = (params, ids["tokens"], ids["mask"])
    return Program(
        kind="encode",
        mesh=mesh,
        batch=batch,
        function=jax.jit(encode),
        arguments=arguments,
        parts={
            "parameters": layout.shard_bytes(params),
            "batch": layout.shard_bytes(ids),
        },
        parameters=_size(params),
        count_flops=lambda: flops.count(encode, *arguments).forward,
    )


def encoder_params(config: build.Config, mesh: Mesh) -> Tree:
    """The frozen text encoder's parameters as training keeps them."""
    module = build.make_text_module(config)
    init = build.encoder_init(module, config.text.length)
    return _stored(mesh, init, module.dtype)


def _stored(mesh: Mesh, init: Callable, dtype) -> Tree:
    with partitioning.without_rules():
        boxed = jax.eval_shape(init, jax.random.key(0))
    shardings = partitioning.param_shardings(mesh, boxed)
    shapes = jax.eval_shape(
        lambda p: layers.stored(p, dtype), partitioning.unbox(boxed)
    )
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
        shapes,
        shardings,
    )


def _text_shapes(config: build.Config, encoded: bool | None = None) -> dict:
    """Shapes and dtypes of one example's text: ids, or vectors if `encoded`."""
    length, width = config.text.length, build.make_text_module(config).d_model
    if encoded is None:
        encoded = bool(config.data.get("embeddings", ""))
    mask = {"mask": ((length,), jnp.bool_)}
    if encoded:
        return {"text_values": ((length, width), jnp.float32), **mask}
    return {"tokens": ((length,), jnp.int32), **mask}


def _batch(mesh: Mesh, batch: int, shapes: dict) -> dict[str, jax.ShapeDtypeStruct]:
    spec = PartitionSpec(_batch_axes(mesh, batch))
    return {
        name: jax.ShapeDtypeStruct(
            (batch, *shape), dtype, sharding=NamedSharding(mesh, spec)
        )
        for name, (shape, dtype) in shapes.items()
    }


def _batch_axes(mesh: Mesh, batch: int) -> tuple[str, ...] | None:
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    return ("data", "fsdp") if batch % ways == 0 else None


def _picture(mesh: Mesh, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    """A float picture, split by examples and by rows as far as the mesh divides."""
    rows = "spatial" if shape[1] % mesh.shape["spatial"] == 0 else None
    spec = PartitionSpec(_batch_axes(mesh, shape[0]), rows)
    sharding = NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)


def _key(mesh: Mesh, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    dtype = jax.eval_shape(lambda: jax.random.key(0)).dtype
    return jax.ShapeDtypeStruct(shape, dtype, sharding=partitioning.replicated(mesh))


def _size(params: Tree) -> int:
    return sum(math.prod(a.shape) for a in jax.tree.leaves(params))
