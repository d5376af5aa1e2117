import numpy as np
import pytest

from imagen_jax.cascade import labelled_grid

X = ("guidance", ("1", "3", "9"))
Y = ("steps", ("10", "250"))


def plain(value, size=(4, 4)):
    return np.full((*size, 3), value, np.uint8)


def test_cells_stand_in_rows_and_columns_and_what_is_lacking_is_grey():
    cells = [[plain(10), plain(20), plain(30)], [plain(40), None, plain(60)]]
    sheet = labelled_grid.labelled_grid(cells, x=X, y=Y, title="a cat", cell=64)
    step = 64 + labelled_grid.GAP
    left, top = sheet.width - 3 * step, sheet.height - 2 * step
    found = [
        [sheet.getpixel((left + i * step + 32, top + j * step + 32)) for i in range(3)]
        for j in range(2)
    ]
    grey = [[v for v, _, _ in row] for row in found]
    assert grey == [[10, 20, 30], [40, labelled_grid.EMPTY[0], 60]]
    # Something is written above the columns, beside the rows and at the top.
    ink = np.asarray(sheet.convert("L")) < 128
    assert ink[:top].any() and ink[top:, :left].any()
    assert not ink[:top, -labelled_grid.GAP :].any()


def test_a_picture_that_is_not_square_keeps_its_shape():
    sheet = labelled_grid.labelled_grid([[plain(0, (4, 8))]], x=("", ("",)), cell=64)
    black = np.asarray(sheet.convert("L")) == 0
    assert black.any(1).sum() == 32 and black.any(0).sum() == 64


def test_a_table_with_holes_is_refused():
    with pytest.raises(ValueError, match="2 rows of 3 cells"):
        labelled_grid.labelled_grid([[plain(1)]], x=X, y=Y)
