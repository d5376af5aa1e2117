"""The device mesh, and the one table from logical axis names to mesh axes."""

import contextlib
import math
from collections.abc import Iterator, Mapping

import flax.linen as nn
import jax
import numpy as np
from flax.linen import spmd
from jax.experimental import mesh_utils, multihost_utils
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

    With `slices` = S > 1 among the sizes the devices are S groups with a slow network
    between them. Only the data axis crosses it: its size is a multiple of S, and each
    run of size / S along it lies in one slice.

    Raises:
      ValueError: for an unknown axis, several -1, sizes that do not multiply to the
        number of devices, or slices that are not the devices'.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = dict(sizes or {"data": -1})
    slices = sizes.pop("slices", 1)
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
            f"Mesh: sizes {sizes} do not divide the {len(devices)} devices evenly. Set "
            f"others, such as --config.mesh.data=1 --config.mesh.fsdp={len(devices)}."
        )
    if slices < 1 or shape[0] % slices:
        raise ValueError(
            f"Mesh: the data axis must be a multiple of slices = {slices}, as only it "
            f"crosses the network between slices, got {shape[0]}."
        )
    groups = _by_slice(devices, slices)
    shape[0] //= slices
    # Split: 16 of a torus of 4 x 8 x 8 are no product of its sides.
    arrays = [
        mesh_utils.create_device_mesh(shape, group, allow_split_physical_axes=True)
        for group in groups
    ]
    # Auto axes: Linen's constraints fail on the default, Explicit.
    return Mesh(
        np.concatenate(arrays, axis=0), MESH_AXES, (AxisType.Auto,) * len(MESH_AXES)
    )


def _by_slice(devices: list, slices: int) -> list[list]:
    """The devices of each slice, in the order of the slices.

    Only TPUs are sure to know their slice; other devices are cut into equal runs.
    """
    if devices[0].platform != "tpu":
        size = len(devices) // slices
        return [devices[i * size : (i + 1) * size] for i in range(slices)]
    numbers = sorted({getattr(device, "slice_index", 0) for device in devices})
    if len(numbers) != slices:
        raise ValueError(
            f"Mesh: slices must be the devices' {len(numbers)}, got {slices}. Set "
            f"config.mesh.slices={len(numbers)}."
        )
    return [
        [device for device in devices if getattr(device, "slice_index", 0) == number]
        for number in numbers
    ]


@contextlib.contextmanager
def use(mesh: Mesh) -> Iterator[Mesh]:
    """Make `mesh` and `RULES` current; trace and run sharded programs inside."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield mesh


def without_rules():
    """Let Linen's sharding constraints say nothing: for making parameters.

    Inside a mesh Linen constrains each parameter as it makes or unboxes it, which fails
    for axes that the mesh does not divide; `param_shardings` fits those.
    """
    return nn.logical_axis_rules(())


def unbox(tree):
    """Boxed parameters as plain arrays, with no constraint put on them."""
    with without_rules():
        return nn.unbox(tree)


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
        mesh_spec = spmd.logical_to_mesh_axes(names, RULES) or ()
        fitted = [
            axis if axis and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(mesh_spec, leaf.shape, strict=False)
        ]
        return NamedSharding(mesh, PartitionSpec(*fitted))

    return jax.tree.map(
        one,
        specs,
        unbox(boxed_shapes),
        is_leaf=lambda a: isinstance(a, PartitionSpec),
    )


def optimizer_shardings(mesh: Mesh, params, param_shardings, opt_state):
    """Shardings of an optimizer's state: each array as the parameter it belongs to.

    A state array belongs to a parameter when its path ends in that parameter's path.
    One of the same shape (Adam's moments) is sharded alike; one with an axis
    averaged away (Adafactor's `v_row`, `v_col`) as the axes that are left; every
    other array is replicated.

    Args:
      mesh: the mesh of `param_shardings`.
      params: abstract parameters.
      param_shardings: their shardings, the same tree.
      opt_state: the abstract optimizer state.
    """
    known = {
        _keys(path): (leaf.shape, sharding.spec)
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_flatten_with_path(params)[0],
            jax.tree.leaves(param_shardings),
            strict=True,
        )
    }

    def one(path, leaf):
        keys = _keys(path)
        owner = next(
            (keys[i:] for i in range(len(keys)) if keys[i:] in known),
            None,
        )
        if owner is None:
            return replicated(mesh)
        shape, spec = known[owner]
        axes = (*spec, *(None,) * (len(shape) - len(spec)))
        if leaf.shape == shape:
            return NamedSharding(mesh, PartitionSpec(*axes))
        gone = _averaged_axis(keys, shape, leaf.shape)
        if gone is None:
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec(*axes[:gone], *axes[gone + 1 :]))

    return jax.tree_util.tree_map_with_path(one, opt_state)


def _keys(path) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def _averaged_axis(keys, shape, reduced) -> int | None:
    # optax's Adafactor averages the largest axis away in v_row, the second in v_col.
    for name, rank in (("v_row", -1), ("v_col", -2)):
        if name in keys and len(shape) >= 2:
            axis = int(np.argsort(shape)[rank])
            if tuple(np.delete(shape, axis)) == reduced:
                return axis
    return None


def place_batch(mesh: Mesh, batch):
    """Put this process's share [b, ...] of a batch on the devices: [B, ...] arrays.

    B is b times the number of processes.

    Raises:
      ValueError: if the devices cannot share the batch evenly.
    """
    sharding = batch_sharding(mesh)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]

    def one(array):
        array = np.asarray(array)
        if array.shape[0] * jax.process_count() % shards:
            raise ValueError(
                f"Batch: its size must be a multiple of the {shards} devices that "
                f"share it, got {array.shape[0] * jax.process_count()}. Change the "
                f"batch size or the mesh."
            )
        return jax.make_array_from_process_local_data(sharding, array)

    return jax.tree.map(one, batch)


def place_params(mesh: Mesh, boxed_shapes, params):
    """Put parameters on the mesh by their logical axes, each device its part only.

    Args:
      mesh: the devices.
      boxed_shapes: `jax.eval_shape(init)` of the network they belong to.
      params: the same tree, unboxed, as host arrays that every process holds.
    """

    def one(array, sharding):
        array = np.asarray(array)
        return jax.make_array_from_callback(
            array.shape, sharding, lambda index: array[index]
        )

    return jax.tree.map(one, params, param_shardings(mesh, boxed_shapes))


def fetch(array: jax.Array) -> np.ndarray:
    """All of an array on every host, wherever its parts lie; all hosts must call it."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def place(mesh: Mesh, tree):
    """Put a tree of arrays on the mesh: whole on each device, unless it is there."""

    def one(array):
        there = isinstance(array, jax.Array) and (
            array.sharding.device_set == set(mesh.devices.flat)
        )
        return array if there else jax.device_put(array, replicated(mesh))

    return jax.tree.map(one, tree)
