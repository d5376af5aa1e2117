"""Names of slices say how many chips, machines and which topology."""

import math

import pytest

import accelerators
import shell


@pytest.mark.parametrize(
    ("name", "chips", "hosts", "per_host", "topology"),
    [  # Google's tables of v4, v5p, v5e and v6e configurations
        ("v4-8", 4, 1, 4, "2x2x1"),
        ("v4-32", 16, 4, 4, "2x2x4"),
        ("v4-512", 256, 64, 4, "4x8x8"),
        ("v5p-128", 64, 16, 4, "4x4x4"),
        ("v5litepod-1", 1, 1, 1, "1x1"),
        ("v5litepod-8", 8, 1, 8, "2x4"),
        ("v5litepod-16", 16, 4, 4, "4x4"),
        ("v5litepod-256", 256, 64, 4, "16x16"),
        ("v6e-4", 4, 1, 4, "2x2"),
        ("v6e-8", 8, 1, 8, "2x4"),
        ("v6e-64", 64, 16, 4, "8x8"),
    ],
)
def test_a_name_says_chips_machines_and_topology(
    name, chips, hosts, per_host, topology
):
    found = accelerators.find(name)
    assert (found.chips, found.hosts, found.chips_per_host, found.topology) == (
        chips, hosts, per_host, topology,
    )  # fmt: skip


def test_machines_hold_all_chips_and_names_count_cores():
    for name, found in accelerators.SLICES.items():
        assert found.hosts * found.chips_per_host == found.chips, name
        assert math.prod(map(int, found.topology.split("x"))) == found.chips, name
        assert (
            name == f"{found.generation.prefix}-{found.chips * found.generation.cores}"
        )


def test_software_goes_with_the_generation():
    software = {
        name: accelerators.find(name).generation.runtime
        for name in ("v4-8", "v5litepod-4", "v5p-8", "v6e-4")
    }
    assert software == {
        "v4-8": "tpu-ubuntu2204-base",
        "v5litepod-4": "v2-alpha-tpuv5-lite",
        "v5p-8": "v2-alpha-tpuv5",
        "v6e-4": "v2-alpha-tpuv6e",
    }


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(shell.LaunchError) as caught:
        accelerators.find("v5e-16")
    message = str(caught.value)
    assert "Did you mean v5litepod-16?" in message and "\n" not in message
    assert all(name in message for name in accelerators.SLICES)
