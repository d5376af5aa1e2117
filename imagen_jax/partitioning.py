"""The device mesh, and the one table from logical axis names to mesh axes."""

import contextlib
import math
from collections.abc import Iterator, Mapping

import flax.linen as nn
import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

# Mesh axes: "data" and "fsdp" split the batch, "fsdp" also splits parameters, "tensor"
# splits heads and hidden features, "spatial" splits high-resolution pictures by rows.
MESH_AXES = ("data", "fsdp", "tensor", "spatial")

RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    # Activations.
    ("batch", ("data", "fsdp")),
    ("height", "spatial"),
    ("width", None),
    ("length", None),
    ("act_embed", None),
    ("act_mlp", "tensor"),
    ("act_heads", "tensor"),
    # Parameters.
    ("embed", "fsdp"),
    ("mlp", "tensor"),
    ("joined_kv", "tensor"),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("relpos_buckets", None),
    ("conv_in", "fsdp"),
    ("conv_out", "tensor"),
    ("norm", None),
)


def make_mesh(sizes: Mapping[str, int] | None = None, devices=None) -> Mesh:
    """A mesh over all devices; one size may be -1, "the rest" (default: data).

    Raises:
      ValueError: for an unknown axis, several -1, or sizes that do not multiply to
        the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = dict(sizes or {"data": -1})
    unknown = set(sizes) - set(MESH_AXES)
    if unknown:
        raise ValueError(
            f"Mesh: axes must be among {MESH_AXES}, got {sorted(unknown)}."
        )
    shape = [sizes.get(name, 1) for name in MESH_AXES]
    if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
        raise ValueError(f"Mesh: sizes must be positive, at most one -1, got {sizes}.")
    fixed = math.prod(n for n in shape if n != -1)
    if -1 in shape and len(devices) % fixed == 0:
        shape[shape.index(-1)] = len(devices) // fixed
    if math.prod(shape) != len(devices):
        raise ValueError(
            f"Mesh: sizes {sizes} do not divide the {len(devices)} devices evenly."
        )
    # Auto axes: Linen's constraints fail on the default, Explicit.
    return jax.make_mesh(
        tuple(shape), MESH_AXES, (AxisType.Auto,) * len(MESH_AXES), devices=devices
    )


@contextlib.contextmanager
def use(mesh: Mesh) -> Iterator[Mesh]:
    """Make `mesh` and `RULES` current; trace and run sharded programs inside."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield mesh


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over the data and fsdp axes."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def param_shardings(mesh: Mesh, boxed_shapes):
    """Shardings for a tree of abstract boxed parameters (`jax.eval_shape(init)`).

    An axis whose size its mesh axis does not divide stays whole: a 3-channel
    kernel is not worth padding.
    """
    specs = nn.get_partition_spec(boxed_shapes)
    known = {name for name, _ in RULES}

    def one(spec, leaf):
        names = tuple(spec)
        unknown = {n for n in names if n is not None} - known
        if unknown:
            raise ValueError(f"RULES: no rule for logical axes {sorted(unknown)}.")
        mesh_spec = nn.logical_to_mesh_axes(names, RULES) or ()
        fitted = [
            axis if axis and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(mesh_spec, leaf.shape, strict=False)
        ]
        return NamedSharding(mesh, PartitionSpec(*fitted))

    return jax.tree.map(
        one,
        specs,
        nn.unbox(boxed_shapes),
        is_leaf=lambda a: isinstance(a, PartitionSpec),
    )
