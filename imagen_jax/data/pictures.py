"""Bytes of a picture file to RGB pixels, whatever cameras and the web put into files.

Only the part of a JPEG's frequencies that the wanted size needs is decoded, and only
the wanted part of the picture is resized.
"""

import io
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

# Pictures of more pixels are refused by their header, before anything is decoded;
# Pillow, which would only warn, need not.
MOST_PIXELS = Image.MAX_IMAGE_PIXELS or 1 << 26
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
# Source pixels around a window that its filter may reach for.
MARGIN = 4
# A JPEG is decoded at a fraction of its size as long as so many of its pixels remain
# for each pixel wanted, along each axis.
REDUCED = 2
# Orientations of EXIF under which width and height change places.
TURNED = (5, 6, 7, 8)

Box = tuple[float, float, float, float]


class BadExample(ValueError):
    """An example that cannot be used; `cause` is one of CAUSES."""

    def __init__(self, cause: str, detail: str):
        super().__init__(f"{cause}: {detail}")
        self.cause = cause
        self.detail = detail


CAUSES = {
    "no_picture": "the record has no picture, or an empty one",
    "not_a_picture": "its bytes are no picture of a known format",
    "truncated": "the picture ends before its last row, or its bytes are damaged",
    "too_large": f"more than {MOST_PIXELS} pixels: a decompression bomb, or a scan",
    "unsupported": "pixels without a known way to 8 bits (floating point, for one)",
    "no_caption": "the record has no caption, or an empty one",
    "bad_caption": "the caption is no valid UTF-8 text",
    "unreadable": "the record cannot be read from its file",
}


class Size(NamedTuple):
    """Of a picture as it is seen, turned as its EXIF says."""

    width: int
    height: int


def opened(data: bytes) -> Image.Image:
    """Read a picture's header.

    Raises:
      BadExample: for what is no picture, or one too large.
    """
    if not data:
        raise BadExample("no_picture", "empty file")
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise BadExample("too_large", str(error)) from error
    except UnidentifiedImageError as error:
        raise BadExample("not_a_picture", f"{len(data)} bytes") from error
    except Exception as error:  # a damaged header may raise anything
        raise BadExample("truncated", str(error)) from error
    if image.width * image.height > MOST_PIXELS:
        raise BadExample("too_large", f"{image.width} x {image.height}")
    if not image.width or not image.height:
        raise BadExample("not_a_picture", f"{image.width} x {image.height}")
    return image


def orientation(image: Image.Image) -> int:
    """Return how the picture must be turned (EXIF), 1 for not at all."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF turns nothing
        return 1


def size(data: bytes) -> Size:
    """Return a picture's size from its header.

    Raises:
      BadExample: for what is no picture, or one too large.
    """
    image = opened(data)
    if orientation(image) in TURNED:
        return Size(image.height, image.width)
    return Size(image.width, image.height)


def decode(
    data: bytes, part: Callable[[Size], Box] | None = None, to: Size | None = None
) -> np.ndarray:
    """Decode a picture, or a part of it at another size.

    Args:
      data: of a JPEG, PNG, WebP, GIF, TIFF, BMP ... file; of an animation the first
        frame counts.
      part: the (turned) picture's size -> (left, top, right, bottom) of the part
        wanted, in units of its sides, from 0 to 1; None for all.
      to: the size that this part shall have, by an antialiased bicubic filter; None
        for its own.

    Returns:
      uint8 [H, W, 3] in [0, 255], on white where the picture is transparent.

    Raises:
      BadExample: for bytes that cannot be decoded whole.
    """
    image = opened(data)
    turn = orientation(image)
    width, height = image.size
    if turn in TURNED:
        width, height = height, width
    box = part(Size(width, height)) if part is not None else (0.0, 0.0, 1.0, 1.0)
    if to is not None and image.format == "JPEG":
        keep = REDUCED * max(
            to.width / (width * (box[2] - box[0])),
            to.height / (height * (box[3] - box[1])),
        )
        wanted = int(image.width * keep) + 1, int(image.height * keep) + 1
        image.draft(None, wanted)
    try:
        if image.format == "PNG":  # whose checksums loading does not look at
            opened(data).verify()
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # each format has its own
        raise BadExample("truncated", str(error) or type(error).__name__) from error
    try:
        image = turned(rgb(image), turn)
        return np.asarray(cut(image, box, to))
    except (ValueError, OSError) as error:
        if isinstance(error, BadExample):
            raise
        raise BadExample("unsupported", f"{image.mode}: {error}") from error


def cut(image: Image.Image, box: Box, to: Size | None) -> Image.Image:
    """Resize a part of an RGB picture, its filter reaching beyond the part's edges."""
    width, height = image.size
    left, right = box[0] * width, box[2] * width
    top, bottom = box[1] * height, box[3] * height
    if to is None:
        edges = round(left), round(top), round(right), round(bottom)
        return image if edges == (0, 0, width, height) else image.crop(edges)
    across, down = (right - left) / to.width, (bottom - top) / to.height
    # Whole target pixels around the part, as far as there is a picture.
    before_x = min(MARGIN, int(left / across + 1e-6))
    before_y = min(MARGIN, int(top / down + 1e-6))
    after_x = min(MARGIN, int((width - right) / across + 1e-6))
    after_y = min(MARGIN, int((height - bottom) / down + 1e-6))
    around = (
        max(left - before_x * across, 0.0),
        max(top - before_y * down, 0.0),
        min(right + after_x * across, width),
        min(bottom + after_y * down, height),
    )
    outer = (to.width + before_x + after_x, to.height + before_y + after_y)
    resized = image.resize(outer, Image.Resampling.BICUBIC, around)
    inner = (before_x, before_y, before_x + to.width, before_y + to.height)
    return resized if inner == (0, 0, *outer) else resized.crop(inner)


def rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB, what is transparent to white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16 bits of grey, in 16 or 32
        wide = np.asarray(image)
        if wide.min(initial=0) < 0 or wide.max(initial=0) > 0xFFFF:
            raise BadExample("unsupported", f"grey values beyond 16 bits, {image.mode}")
        return Image.fromarray((wide >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise BadExample("unsupported", "floating-point pixels")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


def turned(image: Image.Image, turn: int) -> Image.Image:
    """Turn a picture as its EXIF orientation says."""
    how = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return image.transpose(how[turn]) if turn in how else image
