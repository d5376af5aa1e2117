"""Names of Cloud TPU slices, and what follows from a name.

The number in a name counts TensorCores, of which v4 and v5p chips have two and v5e and
v6e chips have one: v4-8 and v5litepod-4 both have four chips.
"""

import dataclasses
import difflib
import math

from shell import LaunchError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """A kind of TPU.

    Attributes:
      prefix: of its accelerator names.
      cores: TensorCores of a chip, as names count them.
      runtime: the software version of its virtual machines.
      gke: value of the node label `cloud.google.com/gke-tpu-accelerator`.
      single_hosts: chips of slices that are one machine; machines of larger slices
        have four chips.
      topologies: shapes that can be had by name, in chips.
    """

    prefix: str
    cores: int
    runtime: str
    gke: str
    single_hosts: tuple[int, ...]
    topologies: tuple[str, ...]


FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
GENERATIONS = (
    Generation(
        prefix="v4",
        cores=2,
        runtime="tpu-ubuntu2204-base",
        gke="tpu-v4-podslice",
        single_hosts=(4,),
        topologies=(*CUBES, "8x8x12", "8x8x16", "8x16x16"),
    ),
    Generation(
        prefix="v5litepod",
        cores=1,
        runtime="v2-alpha-tpuv5-lite",
        gke="tpu-v5-lite-podslice",
        single_hosts=(1, 4, 8),
        topologies=FLAT,
    ),
    Generation(
        prefix="v5p",
        cores=2,
        runtime="v2-alpha-tpuv5",
        gke="tpu-v5p-slice",
        single_hosts=(4,),
        topologies=(
            *CUBES,
            "8x8x12",
            "8x8x16",
            "8x16x16",
            "16x16x16",
            "16x16x24",
        ),
    ),
    Generation(
        prefix="v6e",
        cores=1,
        runtime="v2-alpha-tpuv6e",
        gke="tpu-v6e-slice",
        single_hosts=(1, 4, 8),
        topologies=FLAT,
    ),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """What an accelerator name stands for.

    Attributes:
      name: as the Cloud TPU API takes it.
      topology: the chips' arrangement, as GKE's node label has it.
      chips: of the slice.
      chips_per_host: of each of its machines.
      generation: its kind of TPU.
    """

    name: str
    topology: str
    chips: int
    chips_per_host: int
    generation: Generation

    @property
    def hosts(self) -> int:
        """Machines of the slice, each running one process."""
        return self.chips // self.chips_per_host


def _slice(generation: Generation, topology: str) -> Slice:
    chips = math.prod(int(n) for n in topology.split("x"))
    return Slice(
        name=f"{generation.prefix}-{chips * generation.cores}",
        topology=topology,
        chips=chips,
        chips_per_host=chips if chips in generation.single_hosts else 4,
        generation=generation,
    )


SLICES = {
    s.name: s
    for s in (_slice(g, topology) for g in GENERATIONS for topology in g.topologies)
}


def find(name: str) -> Slice:
    """The slice of that accelerator name.

    Raises:
      LaunchError: for another name, listing the known ones.
    """
    found = SLICES.get(name)
    if found is None:
        spelt = name.replace("v5e-", "v5litepod-")
        close = difflib.get_close_matches(spelt, SLICES, n=1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise LaunchError(
            f"--accelerator: no TPU slice is called {name!r}.{meant} "
            f"Known: {', '.join(SLICES)}."
        )
    return found
