import pytest

from imagen_jax import chips


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", None),
        ("NVIDIA L40S", 362),
        ("TPU v4 lite", None),
        ("cpu", None),
        ("", None),
    ],
)
def test_a_device_has_its_chips_peak_or_none(kind, tflops):
    assert chips.peak(kind) == (tflops and tflops * 1e12)
