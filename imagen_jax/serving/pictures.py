"""Pictures that come from a browser and go to it."""

import base64
import binascii
import io

import numpy as np
from PIL import Image, ImageOps

from imagen_jax.serving.limits import Limits

FORMATS = ("PNG", "JPEG", "WEBP")
# Sides beyond it are halved before a picture in the making is shown.
SHOWN = 384


def decoded(text: str, what: str, mode: str, limits: Limits) -> np.ndarray:
    """The pixels of a PNG, JPEG or WebP file in base64.

    Its size is read from its head before any pixel is: a small file of a huge picture
    takes no memory.

    Args:
      text: base64, with or without the "data:image/png;base64," of a data URL.
      what: its name in errors.
      mode: "RGB" for uint8 [H, W, 3], "L" for uint8 [H, W].
      limits: `upload` bytes and `pixels`.

    Raises:
      ValueError: if it is no such file, damaged, or too large.
    """
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if len(text) > 4 * limits.upload // 3 + 4:
        raise ValueError(
            f"{what}: a file of at most {limits.upload / 2**20:.0f} MiB is required; "
            "send a smaller one."
        )
    try:
        file = io.BytesIO(base64.b64decode(text, validate=True))
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            if width * height > limits.pixels:
                raise ValueError(
                    f"{what}: at most {limits.pixels} pixels are required, got "
                    f"{width} x {height}; send a smaller one."
                )
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert(mode))
    except (
        *(binascii.Error, OSError, SyntaxError, EOFError),
        Image.DecompressionBombError,
    ) as error:
        raise ValueError(
            f"{what}: a PNG, JPEG or WebP file is required, got something else or a "
            "damaged one."
        ) from error


def preview(pixels: np.ndarray) -> str:
    """A picture in the making as a data URL; exact below 64 px, WebP from there on."""
    image = Image.fromarray(pixels)
    while max(image.size) > SHOWN:
        image = image.reduce(2)
    small = max(image.size) < 64
    file, kind = io.BytesIO(), "png" if small else "webp"
    image.save(file, kind, **({} if small else {"quality": 80, "method": 2}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
