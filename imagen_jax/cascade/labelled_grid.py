"""A table of pictures between two axes: one setting across, one down."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imagen_jax.cascade.contact_sheet import wrap

EMPTY = (232, 232, 232)  # of cells that were not drawn
GAP = 6


def labelled_grid(
    cells: Sequence[Sequence[np.ndarray | None]],
    *,
    x: tuple[str, Sequence[str]],
    y: tuple[str, Sequence[str]] = ("", ("",)),
    title: str = "",
    cell: int = 192,
) -> Image.Image:
    """Lay uint8 [H, W, 3] pictures out with a title, and a name and values an axis.

    Args:
      cells: rows of pictures; None leaves one grey.
      x: name and values of the columns.
      y: name and values of the rows.
      title: above, wrapped to the table's width.
      cell: side of the squares in pixels; small pictures are enlarged without
        smoothing.

    Raises:
      ValueError: if there is not one picture or None for each pair of values.
    """
    if [len(row) for row in cells] != [len(x[1])] * len(y[1]):
        raise ValueError(
            f"labelled_grid: {len(y[1])} rows of {len(x[1])} cells are required, got "
            f"{[len(row) for row in cells]}."
        )
    font = ImageFont.load_default(size=max(11, cell // 13))
    line = int(font.getbbox("Ag")[3]) + 3
    step = cell + GAP
    tops = [wrap(text, font, cell) for text in x[1]]
    sides = [wrap(text, font, cell) for text in y[1]]
    left = max(int(font.getlength(t)) for side in sides for t in side) + 2 * GAP
    left += line if y[0] else 0
    heading = wrap(title, font, left + step * len(x[1])) if title else []
    above = GAP + line * (len(heading) + bool(x[0]) + max(map(len, tops))) + GAP
    size = (left + step * len(x[1]), above + step * len(y[1]))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for j, text in enumerate(heading):
        draw.text((GAP, GAP + j * line), text, fill="black", font=font)
    middle = left + (size[0] - left) / 2
    if x[0]:
        height = GAP + len(heading) * line
        draw.text((middle, height), x[0], fill="black", font=font, anchor="ma")
    for i, lines in enumerate(tops):
        for j, text in enumerate(lines):
            place = (left + i * step + cell / 2, above - GAP - (len(lines) - j) * line)
            draw.text(place, text, fill="black", font=font, anchor="ma")
    for i, lines in enumerate(sides):
        first = above + i * step + (cell - len(lines) * line) / 2
        for j, text in enumerate(lines):
            place = (left - GAP, first + j * line)
            draw.text(place, text, fill="black", font=font, anchor="ra")
    if y[0]:
        upright = Image.new("RGB", (size[1] - above, line), "white")
        place = ((size[1] - above) / 2, 0)
        ImageDraw.Draw(upright).text(place, y[0], fill="black", font=font, anchor="ma")
        sheet.paste(upright.transpose(Image.Transpose.ROTATE_90), (GAP // 2, above))
    for i, row in enumerate(cells):
        for j, picture in enumerate(row):
            corner = (left + j * step, above + i * step)
            sheet.paste(_square(picture, cell), corner)
    return sheet


def _square(picture: np.ndarray | None, cell: int) -> Image.Image:
    """A picture in a square of its own, as large as it fits."""
    if picture is None:
        return Image.new("RGB", (cell, cell), EMPTY)
    image = Image.fromarray(np.asarray(picture))
    scale = cell / max(image.size)
    kernel = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", (cell, cell), "white")
    place = ((cell - size[0]) // 2, (cell - size[1]) // 2)
    square.paste(image.resize(size, kernel), place)
    return square
