"""TPU slices by name, described to the compiler without any TPU."""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

from imagen_jax import chips

INSTALL = "pip install 'imagen_jax[plan]' (or pip install libtpu)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """What is known of one chip and its host.

    Attributes:
      tflops: peak of bfloat16 matrix products, 10^12 operations a second.
      memory_gib: of the chip that the compiler lets a program use (libtpu 0.0.52 tells
        it when one does not fit); the data sheets say 32, 95, 16 and 32 GB.
      ici_gb: bytes that a chip sends and receives a second over the slice's network,
        10^9.
      cores: per chip in the Cloud names that count cores (v4-512 is 256 chips); 1
        where they count chips.
      chips_per_host: in slices of more than one host.
      host_gb: memory of such a host's virtual machine.
      megacore: whether the compiler must be told that two cores act as one device.
      dimensions: of the network between chips.
    """

    tflops: float
    memory_gib: float
    ici_gb: float
    cores: int
    chips_per_host: int
    host_gb: int
    megacore: bool
    dimensions: int


# Source: https://cloud.google.com/tpu/docs/v4, v5p, v5e, v6e (interconnect a chip) and
# https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus (hosts of
# ct4p-hightpu-4t, ct5p-hightpu-4t, ct5lp-hightpu-4t, ct6e-standard-4t).
CHIPS = {
    "v4": Chip(
        tflops=chips.TFLOPS["v4"],
        memory_gib=30.75,
        ici_gb=300,
        cores=2,
        chips_per_host=4,
        host_gb=407,
        megacore=True,
        dimensions=3,
    ),
    "v5p": Chip(
        tflops=chips.TFLOPS["v5p"],
        memory_gib=95.73,
        ici_gb=600,
        cores=2,
        chips_per_host=4,
        host_gb=448,
        megacore=True,
        dimensions=3,
    ),
    "v5e": Chip(
        tflops=chips.TFLOPS["v5e"],
        memory_gib=15.75,
        ici_gb=200,
        cores=1,
        chips_per_host=4,
        host_gb=192,
        megacore=False,
        dimensions=2,
    ),
    "v6e": Chip(
        tflops=chips.TFLOPS["v6e"],
        memory_gib=31.24,
        ici_gb=448,
        cores=1,
        chips_per_host=4,
        host_gb=720,
        megacore=False,
        dimensions=2,
    ),
}
CLOUD = {"v4": "v4", "v5p": "v5p", "v5litepod": "v5e", "v5e": "v5e", "v6e": "v6e"}
# Chips -> shape, for names that say only how many; the shapes that Cloud gives.
SHAPES = {
    2: {n: (a, n // a) for n, a in {1: 1, 4: 2, 8: 2, 16: 4, 32: 4, 64: 8}.items()}
    | {128: (8, 16), 256: (16, 16)},
    3: {
        4: (2, 2, 1),
        8: (2, 2, 2),
        16: (2, 2, 4),
        32: (2, 4, 4),
        64: (4, 4, 4),
        128: (4, 4, 8),
        256: (4, 8, 8),
        512: (8, 8, 8),
        1024: (8, 8, 16),
        2048: (8, 16, 16),
    },
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice, or several of one shape.

    Attributes:
      kind: a key of `CHIPS`.
      shape: chips along each dimension of the slice's network.
      slices: how many of them.
    """

    kind: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chip(self) -> Chip:
        """The facts of its chips."""
        return CHIPS[self.kind]

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def hosts(self) -> int:
        """Virtual machines that run a job on it."""
        return max(1, self.chips // self.chip.chips_per_host)

    def __str__(self) -> str:
        """As libtpu writes it: v4:4x8x8."""
        many = f"{self.slices} x " if self.slices > 1 else ""
        return f"{many}{self.kind}:{'x'.join(map(str, self.shape))}"


def parse(name: str, slices: int = 1) -> Topology:
    """A topology by libtpu's name (v4:4x8x8) or Cloud's (v4-512, v5litepod-16).

    Cloud counts cores of v4 and v5p, which have two, and chips of v5e and v6e.

    Raises:
      ValueError: for a name of neither form, an unknown kind or size.
    """
    libtpu = re.fullmatch(r"(v\d\w*):(\d+(?:x\d+)*)", name)
    cloud = re.fullmatch(r"(v\d\w*)-(\d+)", name)
    kind = CLOUD.get(cloud.group(1)) if cloud else libtpu and libtpu.group(1)
    if kind not in CHIPS:
        raise ValueError(
            f"--topology: must be KIND:SHAPE as libtpu writes it (v4:4x8x8, v5e:4x4) "
            f"or a Cloud name (v4-512, v5litepod-16) with kind {', '.join(CHIPS)}; "
            f"got {name!r}."
        )
    chip = CHIPS[kind]
    if libtpu:
        shape = tuple(int(n) for n in libtpu.group(2).split("x"))
        if len(shape) != chip.dimensions or 0 in shape:
            raise ValueError(
                f"--topology: {kind} has {chip.dimensions} dimensions, got {name!r}."
            )
        return Topology(kind, shape, slices)
    assert cloud is not None
    number = int(cloud.group(2))
    known = SHAPES[chip.dimensions]
    chips = number // chip.cores
    if chips not in known or number % chip.cores:
        sizes = ", ".join(str(n * chip.cores) for n in known)
        raise ValueError(
            f"--topology: {name!r} is no slice that is known; sizes of "
            f"{cloud.group(1)}: {sizes}. Or say its shape (v4:4x8x8)."
        )
    return Topology(kind, known[chips], slices)


def prepare_environment() -> None:
    """Let JAX compile for TPUs and run on the CPU; to be called before JAX is imported.

    Raises:
      ImportError: without libtpu.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ImportError(
            f"imagen-jax plan: libtpu, the TPU compiler, is required; {INSTALL}."
        )
    os.environ["JAX_PLATFORMS"] = "cpu"
    # No metadata server answers off Google Cloud; waiting for it takes minutes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # Otherwise a lock file aborts the second of two processes that compile.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")


def devices(topology: Topology) -> list[Any]:
    """The devices of a topology, one a chip, to compile for and not to run on.

    Raises:
      ValueError: for a shape that libtpu does not know.
    """
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if topology.chip.megacore:
        options["chip_config_name"] = "megacore"
    if topology.slices > 1:
        options["num_slices"] = topology.slices
    name = f"{topology.kind}:{'x'.join(map(str, topology.shape))}"
    try:
        found = topologies.get_topology_desc(name, platform="tpu", **options).devices
    except Exception as error:
        raise ValueError(
            f"--topology: libtpu does not take {name}: {str(error).splitlines()[0]}"
        ) from error
    if len(found) != topology.chips:
        raise ValueError(
            f"--topology: libtpu made {len(found)} devices of {topology}, which has "
            f"{topology.chips} chips."
        )
    return list(found)
