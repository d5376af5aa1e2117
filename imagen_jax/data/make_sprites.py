"""Make the sprite sheet of the emoji task from the font Noto Color Emoji.

    python -m imagen_jax.data.make_sprites NotoColorEmoji.ttf

The font comes with the Debian package fonts-noto-color-sprites. The sheet and its table
are committed; only someone who changes the list below needs the font and this script
(and `pip install fonttools`).
"""

import argparse
import io
import json
import pathlib
import unicodedata
from typing import Any

import numpy as np
from PIL import Image

from imagen_jax.data import sprites

# Our name and the code point. Names are the common words a person would type, not the
# Unicode names ("dog" for DOG FACE); the table written beside the sheet has both. Pairs
# that look alike at 32 pixels (orange and basketball, mouse and rabbit) are left out.
OBJECTS = {
    "red apple": 0x1F34E,
    "green apple": 0x1F34F,
    "lemon": 0x1F34B,
    "banana": 0x1F34C,
    "watermelon": 0x1F349,
    "strawberry": 0x1F353,
    "pineapple": 0x1F34D,
    "carrot": 0x1F955,
    "mushroom": 0x1F344,
    "pizza": 0x1F355,
    "burger": 0x1F354,
    "donut": 0x1F369,
    "cake": 0x1F382,
    "ice cream": 0x1F366,
    "dog": 0x1F436,
    "cat": 0x1F431,
    "rabbit": 0x1F430,
    "fox": 0x1F98A,
    "bear": 0x1F43B,
    "panda": 0x1F43C,
    "tiger": 0x1F42F,
    "lion": 0x1F981,
    "cow": 0x1F42E,
    "pig": 0x1F437,
    "frog": 0x1F438,
    "monkey": 0x1F435,
    "penguin": 0x1F427,
    "owl": 0x1F989,
    "horse": 0x1F434,
    "unicorn": 0x1F984,
    "bee": 0x1F41D,
    "ladybug": 0x1F41E,
    "butterfly": 0x1F98B,
    "snail": 0x1F40C,
    "turtle": 0x1F422,
    "octopus": 0x1F419,
    "fish": 0x1F420,
    "whale": 0x1F433,
    "crab": 0x1F980,
    "elephant": 0x1F418,
    "giraffe": 0x1F992,
    "tree": 0x1F333,
    "cactus": 0x1F335,
    "sunflower": 0x1F33B,
    "rose": 0x1F339,
    "star": 0x2B50,
    "moon": 0x1F319,
    "sun": 0x2600,
    "flame": 0x1F525,
    "car": 0x1F697,
    "bus": 0x1F68C,
    "airplane": 0x2708,
    "rocket": 0x1F680,
    "sailboat": 0x26F5,
    "train": 0x1F682,
    "house": 0x1F3E0,
    "castle": 0x1F3F0,
    "guitar": 0x1F3B8,
    "drum": 0x1F941,
    "gift": 0x1F381,
    "balloon": 0x1F388,
    "crown": 0x1F451,
    "umbrella": 0x2602,
    "book": 0x1F4D5,
    "heart": 0x2764,
    "key": 0x1F511,
    "diamond": 0x1F48E,
    "robot": 0x1F916,
    "ghost": 0x1F47B,
    "soccer ball": 0x26BD,
    "basketball": 0x1F3C0,
    "pumpkin": 0x1F383,
}
COLUMNS = 9


def bitmaps(font: Any) -> dict[int, Image.Image]:
    """Read the font's own 136 x 128 pictures, RGBA with straight alpha."""
    glyphs, cmap = font["CBDT"].strikeData[0], font.getBestCmap()
    return {
        code_point: Image.open(io.BytesIO(glyphs[cmap[code_point]].imageData))
        for code_point in OBJECTS.values()
    }


def sprite(bitmap: Image.Image) -> Image.Image:
    """Cut an emoji to its ink and centre it in a square tile, RGBA."""
    bitmap = bitmap.convert("RGBA")
    visible = np.asarray(bitmap.getchannel("A")) > 8
    ink = bitmap.crop(Image.fromarray(visible.astype(np.uint8)).getbbox())
    scale = sprites.TILE / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    ink = ink.resize((width, height), Image.Resampling.LANCZOS)
    tile = Image.new("RGBA", (sprites.TILE, sprites.TILE))
    tile.paste(ink, ((sprites.TILE - width) // 2, (sprites.TILE - height) // 2))
    pixels = np.asarray(tile).copy()
    pixels[pixels[..., 3] == 0] = 0
    return Image.fromarray(pixels)


def make(font_path: pathlib.Path, folder: pathlib.Path) -> None:
    """Write sprites.png and sprites.json into the folder."""
    from fontTools import ttLib  # only this script needs it

    font: Any = ttLib.TTFont(font_path)
    pictures = bitmaps(font)
    rows = -(-len(OBJECTS) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * sprites.TILE, rows * sprites.TILE))
    for i, code_point in enumerate(OBJECTS.values()):
        row, column = divmod(i, COLUMNS)
        sheet.paste(
            sprite(pictures[code_point]), (column * sprites.TILE, row * sprites.TILE)
        )
    sheet.save(folder / "sprites.png", optimize=True)
    table = {
        "font": "Noto Color Emoji",
        "font_version": font["name"].getDebugName(5),
        "license": "SIL Open Font License 1.1, see OFL.txt",
        "tile": sprites.TILE,
        "columns": COLUMNS,
        "objects": [
            {
                "name": name,
                "code_point": f"U+{code_point:04X}",
                "unicode_name": unicodedata.name(chr(code_point)),
            }
            for name, code_point in OBJECTS.items()
        ],
    }
    (folder / "sprites.json").write_text(json.dumps(table, indent=1) + "\n")


def main() -> None:
    """Read the command line and make the sheet."""
    parser = argparse.ArgumentParser(description="Make the sprite sheet of the emoji.")
    parser.add_argument("font", type=pathlib.Path, help="NotoColorEmoji.ttf")
    parser.add_argument(
        "--folder", type=pathlib.Path, default=sprites.ASSETS, help="where to write"
    )
    arguments = parser.parse_args()
    make(arguments.font, arguments.folder)


if __name__ == "__main__":
    main()
