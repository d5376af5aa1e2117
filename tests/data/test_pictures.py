import io

import numpy as np
import pytest
from PIL import Image

from imagen_jax.data import pictures
from tests.data import making

RED, BLUE = (220, 30, 40), (20, 60, 210)


def halves(width=64, height=48) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def near(pixel, colour, off=12):
    return np.abs(np.asarray(pixel, int) - np.asarray(colour)).max() <= off


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_usual_format_is_decoded(kind):
    x = pictures.decode(making.encoded(halves(), kind))
    assert x.shape == (48, 64, 3) and x.dtype == np.uint8
    assert near(x[24, 10], RED) and near(x[24, 54], BLUE)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "LA", "RGBA", "1", "YCbCr", "LAB"])
def test_every_mode_becomes_what_pillow_shows(mode):
    image = halves().convert("L") if mode in ("L", "LA", "1") else halves()
    image = image.convert(mode)
    kind = {"CMYK": "JPEG", "YCbCr": "JPEG", "LAB": "TIFF"}.get(mode, "PNG")
    x = pictures.decode(making.encoded(image, kind))
    expected = np.asarray(image.convert("RGB"))
    assert near(x[24, 10], expected[24, 10]) and near(x[24, 54], expected[24, 54])


def test_sixteen_bits_keep_their_upper_eight():
    wide = (np.arange(64 * 64) * 16).reshape(64, 64).astype(np.uint16)
    x = pictures.decode(making.encoded(Image.fromarray(wide), "PNG"))
    np.testing.assert_array_equal(x[..., 0], wide >> 8)
    np.testing.assert_array_equal(x[..., 0], x[..., 2])


def test_what_is_transparent_is_white():
    image = halves().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 32, 48))
    x = pictures.decode(making.encoded(image))
    assert near(x[24, 10], (255, 255, 255), 0) and near(x[24, 54], BLUE)
    palette = halves().quantize(2)
    x = pictures.decode(making.encoded(palette, transparency=palette.getpixel((5, 5))))
    assert near(x[24, 10], (255, 255, 255), 0) and near(x[24, 54], BLUE)


def test_of_an_animation_the_first_frame_counts():
    other = Image.new("RGB", (64, 48), "green")
    data = making.encoded(halves(), "GIF", save_all=True, append_images=[other])
    assert near(pictures.decode(data)[24, 10], RED)


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns_the_picture(turn):
    """Turned as EXIF says, every orientation shows the same picture."""
    from PIL import ImageOps

    image = halves()
    exif = Image.Exif()
    exif[0x0112] = turn
    data = making.encoded(image, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(pictures.decode(data), expected)
    assert pictures.size(data) == (expected.shape[1], expected.shape[0])


def test_resizing_averages_and_does_not_alias():
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    data = making.encoded(Image.fromarray(board).convert("RGB"))
    x = pictures.decode(data, to=pictures.Size(32, 32))
    assert x.shape == (32, 32, 3) and np.abs(x.astype(int) - 127).max() <= 2


def test_a_part_is_the_same_as_cutting_the_whole():
    draw = np.random.default_rng(0)
    noise = draw.integers(0, 256, (300, 400, 3), np.uint8)
    data = making.encoded(Image.fromarray(noise))
    whole = pictures.decode(data, to=pictures.Size(100, 75))
    seen = []

    def middle(size):
        seen.append(size)
        return 0.2, 0.4, 0.6, 0.8

    part = pictures.decode(data, middle, pictures.Size(40, 30))
    assert seen == [(400, 300)]
    np.testing.assert_allclose(part.astype(int), whole[30:60, 20:60], atol=1)


def test_a_reduced_jpeg_is_nearly_the_whole_one():
    y, x = np.indices((512, 512))
    smooth = np.stack([x // 2, y // 2, (x + y) // 4], -1).astype(np.uint8)
    image = Image.fromarray(smooth)
    size = pictures.Size(64, 64)
    reduced = pictures.decode(making.encoded(image, "JPEG", quality=95), to=size)
    whole = pictures.decode(making.encoded(image, "PNG"), to=size)
    assert np.abs(reduced.astype(int) - whole).mean() < 2


@pytest.mark.parametrize("number", range(0, 13 * 8))
def test_damage_has_a_name(number):
    kind, data, _ = making.damaged(number)
    if "caption" in kind:
        assert pictures.decode(data).shape == (96, 96, 3)
        return
    with pytest.raises(pictures.BadExample) as caught:
        pictures.decode(data)
    assert caught.value.cause in pictures.CAUSES


def test_a_bomb_is_refused_by_its_header():
    with pytest.raises(pictures.BadExample, match="too_large"):
        pictures.size(making.bomb())
