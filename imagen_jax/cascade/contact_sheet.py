"""Many pictures on one sheet, each under its caption."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def contact_sheet(
    images: Sequence[np.ndarray],
    labels: Sequence[str] = (),
    *,
    columns: int | None = None,
    cell: int = 256,
    margin: int = 8,
) -> Image.Image:
    """Lay uint8 [H, W, 3] pictures out in a grid of `cell`-pixel squares.

    What is no square keeps its shape, in the middle of its cell. Small pictures are
    enlarged without smoothing, so that a 32 px stage shows its pixels. Labels stand
    below their pictures, wrapped to the cell.

    Raises:
      ValueError: when there is no picture.
    """
    if not len(images):
        raise ValueError("contact_sheet: at least one picture is required, got none.")
    columns = columns or min(len(images), 4)
    rows = -(-len(images) // columns)
    font = ImageFont.load_default(size=max(10, cell // 18))
    line = int(font.getbbox("Ag")[3]) + 2
    texts = [wrap(text, font, cell) for text in labels]
    below = max((len(t) for t in texts), default=0) * line
    width = columns * (cell + margin) + margin
    height = rows * (cell + below + margin) + margin
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        x = margin + (i % columns) * (cell + margin)
        y = margin + (i // columns) * (cell + below + margin)
        picture = Image.fromarray(np.asarray(image))
        scale = cell / max(picture.size)
        kernel = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        sides = [max(1, round(side * scale)) for side in picture.size]
        place = (x + (cell - sides[0]) // 2, y + (cell - sides[1]) // 2)
        sheet.paste(picture.resize((sides[0], sides[1]), kernel), place)
        for j, text in enumerate(texts[i] if i < len(texts) else ()):
            draw.text((x, y + cell + j * line), text, fill="black", font=font)
    return sheet


def wrap(text: str, font, width: int) -> list[str]:
    """Break a label into lines that fit `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
