"""Time a config's training step, sampling run or text encoding on what is here."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from imagen_jax import build, chips, partitioning
from imagen_jax.benchmark import products
from imagen_jax.planning import programs

# Products are timed until so much of all their operations is.
TIMED_SHARE = 0.99
# One timing of a product takes at least so long, that the clock's grain be small.
LEAST_SECONDS = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """What was measured.

    Attributes:
      config, program, device, devices, batch: what ran where.
      mesh: sizes of its axes that are not 1.
      compile_seconds: of the compilation, once.
      seconds: of each run after the warm-up, in the order they were made.
      flops: operations of the model in one run, all devices together; counted, not
        measured.
      peak: of all devices together, operations a second; None where it is not known.
      planned_bytes: of memory a device, as the compiler planned it.
      measured_bytes: the most that the first device says it has used so far; None
        where devices do not tell (a CPU).
      product_seconds: one run's convolutions and matrix products, each timed alone,
        all devices at work; None if they were not timed.
      product_share: of the operations, by those that were timed.
    """

    config: str
    program: str
    device: str
    devices: int
    mesh: dict[str, int]
    batch: int
    compile_seconds: float
    seconds: tuple[float, ...]
    flops: float
    peak: float | None
    planned_bytes: int
    measured_bytes: int | None
    product_seconds: float | None = None
    product_share: float = 0.0

    @property
    def median(self) -> float:
        """Seconds of the middle run."""
        return statistics.median(self.seconds)

    @property
    def utilisation(self) -> float | None:
        """The share of the peak that the model's operations are."""
        return None if self.peak is None else self.flops / self.median / self.peak

    def json(self) -> dict[str, Any]:
        """Plain values, derived ones too."""
        share = self.product_seconds
        return {
            **dataclasses.asdict(self),
            "median_seconds": self.median,
            "images_per_second": self.batch / self.median,
            "model_tflops_per_second": self.flops / self.median / 1e12,
            "utilisation": self.utilisation,
            "products_share_of_time": None if share is None else share / self.median,
        }


def measure(
    name: str,
    config: build.Config,
    kind: str,
    *,
    batch: int,
    runs: int = 10,
    warmup: int = 2,
    with_products: bool = True,
    report: Callable[[str], object] = lambda _: None,
) -> Timing:
    """Compile a program for the devices that are here and time it.

    Weights and batches are made up; no data set and no trained encoder is read.

    Args:
      name: the config's.
      config: a stage's.
      kind: "train", "sample" or "encode".
      batch: examples of one run, all devices together.
      runs: timed ones.
      warmup: runs before them.
      with_products: also time its convolutions and matrix products alone.
      report: told what is going on.

    Raises:
      ValueError: for counts below 1, or a batch that the devices cannot share.
    """
    if runs < 1 or warmup < 1:
        raise ValueError(
            f"bench: runs and warmup must be at least 1, got {runs} and {warmup}."
        )
    mesh = partitioning.make_mesh(config.mesh)
    program = programs.make(config, kind, mesh, batch)
    report(f"compiling for {mesh.size} x {device_kind(mesh)}")
    start = time.perf_counter()
    compiled = program.trace().lower().compile()
    compile_seconds = time.perf_counter() - start
    arguments = made_up(program.arguments)
    report(f"running {warmup} + {runs} times")
    seconds = run(compiled, arguments, kind == "train", warmup + runs)[warmup:]
    found = Timing(
        config=name,
        program=kind,
        device=device_kind(mesh),
        devices=mesh.size,
        mesh={axis: size for axis, size in mesh.shape.items() if size > 1},
        batch=batch,
        compile_seconds=compile_seconds,
        seconds=tuple(seconds),
        flops=program.count_flops(),
        peak=peak(mesh),
        planned_bytes=planned_bytes(compiled),
        measured_bytes=measured_bytes(mesh),
    )
    del compiled, arguments
    if not with_products:
        return found
    alone, share = product_seconds(config, kind, mesh, batch, report)
    return dataclasses.replace(found, product_seconds=alone, product_share=share)


def device_kind(mesh: Mesh) -> str:
    """What JAX calls a device of the mesh."""
    return mesh.devices.flat[0].device_kind


def peak(mesh: Mesh) -> float | None:
    """Operations a second of all devices of the mesh, if their kind is known."""
    one = chips.peak(device_kind(mesh))
    return None if one is None else one * mesh.size


def planned_bytes(compiled: Any) -> int:
    """Memory a device that a compiled program is to use at most, arguments included."""
    told = compiled.memory_analysis()
    whole = (
        told.argument_size_in_bytes
        + told.output_size_in_bytes
        - told.alias_size_in_bytes
        + told.temp_size_in_bytes
    )
    return getattr(told, "peak_memory_in_bytes", 0) or whole


def measured_bytes(mesh: Mesh) -> int | None:
    """The most memory that the mesh's first device has used so far, if it tells."""
    stats = mesh.devices.flat[0].memory_stats()
    return None if stats is None else stats.get("peak_bytes_in_use")


def made_up(tree: Any) -> Any:
    """Arrays of the shapes and places of abstract ones: waves, not zeros.

    Optimizer states stay sound: no number is negative where a square is expected.
    """

    def one(path, a):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            return jnp.broadcast_to(jax.random.key(0), a.shape)
        if any(getattr(key, "name", "") == "opt_state" for key in path):
            return jnp.zeros(a.shape, a.dtype)
        if a.dtype == jnp.bool_:
            return jnp.ones(a.shape, a.dtype)
        wave = jnp.sin(jax.lax.iota(jnp.float32, int(np.prod(a.shape))) * 12.9898)
        wave = wave.reshape(a.shape)
        if jnp.issubdtype(a.dtype, jnp.integer):
            return (jnp.abs(wave) * 100 * bool(a.shape)).astype(a.dtype)
        return (wave * 0.05).astype(a.dtype)

    def build_all():
        return jax.tree_util.tree_map_with_path(one, tree)

    shardings = jax.tree.map(lambda a: a.sharding, tree)
    return jax.jit(build_all, out_shardings=shardings)()


def run(compiled, arguments, is_training: bool, times: int) -> list[float]:
    """Seconds of each of some runs; training goes on from its own state."""
    seconds = []
    arguments = list(arguments)
    for _ in range(times):
        start = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - start)
        if is_training:
            arguments[1] = result[0]  # the old state was donated
    return seconds


def product_seconds(
    config: build.Config,
    kind: str,
    mesh: Mesh,
    batch: int,
    report: Callable[[str], object] = lambda _: None,
) -> tuple[float, float]:
    """Seconds of one run's products, each alone, and the share that was timed.

    Each device multiplies what it would in the program, all at the same time.

    Raises:
      ValueError: on a mesh that splits more than the batch.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if ways != mesh.size or batch % ways:
        raise ValueError(
            "bench: products are timed alone on meshes of data and fsdp, which divide "
            f"the batch, got {dict(mesh.shape)} for a batch of {batch}. Leave them out "
            "(--no_products)."
        )
    one = partitioning.make_mesh({"data": 1}, [mesh.devices.flat[0]])
    alone = programs.make(config, kind, one, batch // ways)
    with partitioning.use(one):
        found = products.of(alone.function, *alone.arguments)
    kept = products.largest(found, TIMED_SHARE)
    report(f"timing {len(kept)} kinds of products")
    total = sum(p.operations * n for p, n in found.items())
    done = sum(p.operations * found[p] for p in kept)
    return sum(found[p] * seconds_of(p, mesh) for p in kept), done / max(total, 1.0)


def seconds_of(product: products.Product, mesh: Mesh) -> float:
    """The least time of one call, on every device at once."""
    axes = PartitionSpec(mesh.axis_names)
    some = [
        jax.device_put(
            np.broadcast_to(a, (mesh.size, *a.shape)),
            jax.sharding.NamedSharding(mesh, axes),
        )
        for a in products.operands(product)
    ]

    def on_each(*operands):
        return product.bind(*(a[0] for a in operands))[None]

    call = jax.jit(jax.shard_map(on_each, mesh=mesh, in_specs=axes, out_specs=axes))
    jax.block_until_ready(call(*some))
    best, spent = float("inf"), 0.0
    while spent < LEAST_SECONDS or best == float("inf"):
        start = time.perf_counter()
        jax.block_until_ready(call(*some))
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return best


def text(timing: Timing) -> str:
    """The timing in lines."""
    spread = (min(timing.seconds), max(timing.seconds))
    mesh = " x ".join(f"{k} {v}" for k, v in timing.mesh.items()) or "one device"
    lines = [
        f"{timing.config}, {timing.program}: batch {timing.batch} on "
        f"{timing.devices} x {timing.device} ({mesh})",
        f"compiled in {timing.compile_seconds:.1f} s",
        f"{timing.median:.4g} s a run, median of {len(timing.seconds)} "
        f"({spread[0]:.4g} to {spread[1]:.4g})",
        f"{timing.batch / timing.median:.4g} images/s",
        f"{timing.flops / timing.median / 1e12:.4g} model TFLOP/s "
        f"({timing.flops / 1e12:.4g} TFLOP a run, counted)",
    ]
    if timing.utilisation is not None:
        lines.append(f"{timing.utilisation:.1%} of the devices' peak")
    if timing.product_seconds is not None:
        lines.append(
            f"{timing.product_seconds / timing.median:.1%} of the time is what its "
            f"convolutions and matrix products take alone ({timing.product_share:.1%} "
            "of their operations timed)"
        )
    return "\n".join(lines)
