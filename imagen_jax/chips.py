"""Peak bfloat16 operations a second of a chip, as its maker states them (dense).

Sources: cloud.google.com/tpu/docs (system architecture, one page a generation) and
NVIDIA's data sheets, tensor cores without sparsity. V100 and T4 have no bfloat16: their
figures are float16's.
"""

TFLOPS = {
    "v4": 275.0,
    "v5e": 197.0,
    "v5p": 459.0,
    "v6e": 918.0,
    "V100": 125.0,
    "T4": 65.0,
    "L4": 121.0,
    "L40S": 362.0,
    "A100": 312.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H200": 989.0,
    "B200": 2250.0,
}
# How `jax.Device.device_kind` begins -> a name above; the longest that fits is meant.
# A v4 or v5p device is a whole chip (two cores as one, "megacore").
KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "Tesla V100": "V100",
    "Tesla T4": "T4",
    "NVIDIA L4": "L4",
    "NVIDIA L40S": "L40S",
    "NVIDIA A100": "A100",
    "NVIDIA H100 PCIe": "H100 PCIe",
    "NVIDIA H100": "H100",
    "NVIDIA H200": "H200",
    "NVIDIA B200": "B200",
}
# They begin like one above and are another chip.
OTHERS = ("TPU v4 lite", "NVIDIA L40", "NVIDIA L40G", "NVIDIA H100 NVL")


def peak(device_kind: str) -> float | None:
    """Operations a second of a device, or None for one that the table lacks (a CPU)."""
    fitting = [
        known
        for known in (*KINDS, *OTHERS)
        if device_kind == known or device_kind.startswith((known + " ", known + "-"))
    ]
    known = max(fitting, key=len, default="")
    return TFLOPS[KINDS[known]] * 1e12 if known in KINDS else None
