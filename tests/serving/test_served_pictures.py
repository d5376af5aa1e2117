"""What is sent is bounded before it is read."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from imagen_jax.serving import limits, pictures

BOUNDS = limits.Limits(upload=100_000, pixels=64 * 64)


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def decoded(text):
    return pictures.decoded(text, "The picture", "RGB", BOUNDS)


def test_a_png_comes_through_to_the_bit():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    text = encoded(Image.fromarray(pixels))
    np.testing.assert_array_equal(decoded(text), pixels)
    np.testing.assert_array_equal(decoded(f"data:image/png;base64,{text}"), pixels)


def test_a_small_file_of_a_huge_picture_is_refused_by_its_head():
    def chunk(kind, body):
        sum_ = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + sum_

    head = struct.pack(">IIBBBBB", 30_000, 20_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"")
    with pytest.raises(ValueError, match=r"at most 4096 pixels|PNG, JPEG or WebP"):
        decoded(base64.b64encode(bomb).decode())
    with pytest.raises(ValueError, match="at most 4096 pixels are required, got 65 x"):
        decoded(encoded(Image.new("RGB", (65, 64))))


@pytest.mark.parametrize(
    "text",
    [
        "no base64!",
        base64.b64encode(b"GIF89a no picture").decode(),
        encoded(Image.new("RGB", (8, 8)), "GIF"),  # not among the formats
        encoded(Image.effect_noise((60, 60), 90))[:-2000],  # cut off
        "",
    ],
)
def test_what_is_no_picture_is_one_line(text):
    with pytest.raises(ValueError, match="a PNG, JPEG or WebP file is required"):
        decoded(text)


def test_large_files_are_not_even_decoded():
    with pytest.raises(ValueError, match="at most 0 MiB"):
        decoded("A" * 200_000)


def test_previews_are_small():
    large = np.zeros((1024, 512, 3), np.uint8)
    kind, _, body = pictures.preview(large).partition(";base64,")
    assert kind == "data:image/webp"
    assert max(Image.open(io.BytesIO(base64.b64decode(body))).size) <= pictures.SHOWN
    exact = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    body = pictures.preview(exact).partition(";base64,")[2]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))
    np.testing.assert_array_equal(shown, exact)
