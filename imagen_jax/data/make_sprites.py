"""Make the sprite sheet of the emoji task from the font Noto Color Emoji.

    python -m imagen_jax.data.make_sprites NotoColorEmoji.ttf

The font comes with the Debian package fonts-noto-color-emoji. The sheet and its table
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

# Our name, the code point and synonyms. Names are the common words a person would type,
# not the Unicode names ("dog" for DOG FACE); the table beside the sheet has them all.
# Left out: what a person would confuse at 16 pixels, what vanishes on a background,
# what is too thin to be drawn small.
OBJECTS: dict[str, tuple[Any, ...]] = {
    "red apple": (0x1F34E, "apple"),
    "green apple": (0x1F34F,),
    "pear": (0x1F350,),
    "orange": (0x1F34A, "tangerine", "mandarin"),
    "lemon": (0x1F34B,),
    "banana": (0x1F34C,),
    "watermelon": (0x1F349, "watermelon slice"),
    "strawberry": (0x1F353,),
    "cherry": (0x1F352,),
    "peach": (0x1F351,),
    "mango": (0x1F96D,),
    "pineapple": (0x1F34D,),
    "kiwi": (0x1F95D, "kiwi fruit"),
    "eggplant": (0x1F346, "aubergine"),
    "avocado": (0x1F951,),
    "broccoli": (0x1F966,),
    "chili pepper": (0x1F336, "hot pepper", "chili"),
    "corn cob": (0x1F33D, "sweetcorn"),
    "carrot": (0x1F955,),
    "mushroom": (0x1F344, "toadstool"),
    "croissant": (0x1F950,),
    "pretzel": (0x1F968,),
    "waffle": (0x1F9C7,),
    "cheese": (0x1F9C0, "piece of cheese"),
    "drumstick": (0x1F357, "chicken leg"),
    "burger": (0x1F354, "hamburger"),
    "pizza": (0x1F355, "pizza slice"),
    "hot dog": (0x1F32D,),
    "taco": (0x1F32E,),
    "egg": (0x1F95A,),
    "fried egg": (0x1F373,),
    "salad": (0x1F957, "bowl of salad"),
    "popcorn": (0x1F37F, "box of popcorn"),
    "rice ball": (0x1F359, "onigiri"),
    "sushi": (0x1F363,),
    "lobster": (0x1F99E,),
    "ice cream": (0x1F366, "soft serve"),
    "donut": (0x1F369, "doughnut"),
    "cookie": (0x1F36A, "biscuit"),
    "cake": (0x1F382, "birthday cake"),
    "cupcake": (0x1F9C1, "muffin"),
    "chocolate bar": (0x1F36B, "chocolate"),
    "candy": (0x1F36C, "sweet"),
    "lollipop": (0x1F36D,),
    "honey pot": (0x1F36F, "honey jar"),
    "coffee cup": (0x2615, "cup of coffee"),
    "teapot": (0x1FAD6,),
    "beer mug": (0x1F37A, "beer"),
    "dog": (0x1F436, "puppy"),
    "cat": (0x1F431, "kitten"),
    "hamster": (0x1F439,),
    "rabbit": (0x1F430, "bunny"),
    "fox": (0x1F98A,),
    "bear": (0x1F43B, "brown bear"),
    "panda": (0x1F43C,),
    "koala": (0x1F428,),
    "tiger": (0x1F42F,),
    "lion": (0x1F981,),
    "cow": (0x1F42E,),
    "pig": (0x1F437, "piglet"),
    "frog": (0x1F438, "toad"),
    "monkey": (0x1F435, "ape"),
    "chicken": (0x1F414, "hen"),
    "penguin": (0x1F427,),
    "chick": (0x1F424, "baby bird"),
    "duck": (0x1F986, "mallard"),
    "owl": (0x1F989,),
    "wolf": (0x1F43A,),
    "horse": (0x1F434, "pony"),
    "unicorn": (0x1F984,),
    "bee": (0x1F41D, "honeybee"),
    "caterpillar": (0x1F41B,),
    "butterfly": (0x1F98B,),
    "snail": (0x1F40C,),
    "ladybug": (0x1F41E, "ladybird"),
    "turtle": (0x1F422, "tortoise"),
    "snake": (0x1F40D, "serpent"),
    "brontosaurus": (0x1F995, "long necked dinosaur"),
    "octopus": (0x1F419,),
    "crab": (0x1F980,),
    "pufferfish": (0x1F421, "blowfish"),
    "fish": (0x1F420, "tropical fish"),
    "dolphin": (0x1F42C,),
    "whale": (0x1F433,),
    "shark": (0x1F988,),
    "crocodile": (0x1F40A, "alligator"),
    "zebra": (0x1F993,),
    "elephant": (0x1F418,),
    "rhino": (0x1F98F, "rhinoceros"),
    "camel": (0x1F42A, "dromedary"),
    "giraffe": (0x1F992,),
    "sheep": (0x1F411, "lamb"),
    "hedgehog": (0x1F994,),
    "raccoon": (0x1F99D,),
    "rooster": (0x1F413, "cockerel"),
    "peacock": (0x1F99A,),
    "parrot": (0x1F99C, "macaw"),
    "dragon": (0x1F432,),
    "snowman": (0x26C4,),
    "tree": (0x1F333, "oak"),
    "pine tree": (0x1F332, "fir tree"),
    "palm tree": (0x1F334,),
    "cactus": (0x1F335,),
    "sunflower": (0x1F33B,),
    "rose": (0x1F339,),
    "tulip": (0x1F337,),
    "cherry blossom": (0x1F338, "pink flower"),
    "clover": (0x1F340, "shamrock"),
    "maple leaf": (0x1F341, "autumn leaf"),
    "bouquet": (0x1F490, "bunch of flowers"),
    "star": (0x2B50,),
    "moon": (0x1F319, "crescent moon"),
    "sun": (0x2600,),
    "rainbow": (0x1F308,),
    "flame": (0x1F525, "fire"),
    "lightning bolt": (0x26A1, "thunderbolt"),
    "earth": (0x1F30D, "globe"),
    "volcano": (0x1F30B,),
    "car": (0x1F697, "automobile"),
    "taxi": (0x1F695, "cab"),
    "bus": (0x1F68C,),
    "truck": (0x1F69A, "lorry"),
    "fire engine": (0x1F692, "fire truck"),
    "ambulance": (0x1F691,),
    "tractor": (0x1F69C,),
    "scooter": (0x1F6F5, "moped"),
    "train": (0x1F682, "locomotive"),
    "airplane": (0x2708, "plane"),
    "helicopter": (0x1F681, "chopper"),
    "rocket": (0x1F680, "spaceship"),
    "flying saucer": (0x1F6F8, "ufo"),
    "sailboat": (0x26F5, "yacht"),
    "ship": (0x1F6A2, "ocean liner"),
    "traffic light": (0x1F6A6,),
    "house": (0x1F3E0, "home"),
    "castle": (0x1F3F0, "fortress"),
    "tent": (0x26FA,),
    "ferris wheel": (0x1F3A1,),
    "guitar": (0x1F3B8,),
    "saxophone": (0x1F3B7,),
    "drum": (0x1F941,),
    "piano": (0x1F3B9, "keyboard"),
    "microphone": (0x1F3A4,),
    "headphone": (0x1F3A7, "headset"),
    "bell": (0x1F514,),
    "gift": (0x1F381, "present"),
    "balloon": (0x1F388,),
    "crown": (0x1F451,),
    "top hat": (0x1F3A9,),
    "umbrella": (0x2602,),
    "book": (0x1F4D5,),
    "envelope": (0x2709, "letter"),
    "pencil": (0x270F,),
    "key": (0x1F511,),
    "padlock": (0x1F512, "lock"),
    "hammer": (0x1F528,),
    "axe": (0x1FA93, "hatchet"),
    "gear": (0x2699, "cogwheel"),
    "magnet": (0x1F9F2,),
    "light bulb": (0x1F4A1, "lamp"),
    "flashlight": (0x1F526, "torch"),
    "camera": (0x1F4F7,),
    "television": (0x1F4FA, "tv"),
    "telephone": (0x260E,),
    "smartphone": (0x1F4F1, "mobile phone"),
    "laptop": (0x1F4BB, "computer"),
    "alarm clock": (0x23F0, "clock"),
    "hourglass": (0x231B, "sand timer"),
    "battery": (0x1F50B,),
    "heart": (0x2764,),
    "diamond": (0x1F48E, "gem"),
    "robot": (0x1F916,),
    "alien": (0x1F47D, "extraterrestrial"),
    "skull": (0x1F480,),
    "pumpkin": (0x1F383,),
    "clown": (0x1F921,),
    "soccer ball": (0x26BD, "football"),
    "basketball": (0x1F3C0,),
    "rugby ball": (0x1F3C8, "american football"),
    "trophy": (0x1F3C6, "cup"),
    "dart board": (0x1F3AF, "target"),
    "kite": (0x1FA81,),
    "puzzle piece": (0x1F9E9,),
    "die": (0x1F3B2, "game die"),
    "shirt": (0x1F455,),
    "dress": (0x1F457,),
    "sneaker": (0x1F45F, "running shoe"),
    "high heel": (0x1F460,),
    "boot": (0x1F462,),
    "backpack": (0x1F392, "rucksack"),
    "handbag": (0x1F45C, "purse"),
    "couch": (0x1F6CB, "sofa"),
    "basket": (0x1F9FA,),
    "bucket": (0x1FAA3,),
    "money bag": (0x1F4B0, "sack of money"),
    "bomb": (0x1F4A3,),
    "pill": (0x1F48A, "capsule"),
    "fire extinguisher": (0x1F9EF,),
    "yarn ball": (0x1F9F6, "ball of wool"),
    "pushpin": (0x1F4CC,),
    "package": (0x1F4E6, "box"),
    "mailbox": (0x1F4EB,),
    "stone head": (0x1F5FF, "moai"),
    "nesting doll": (0x1FA86,),
    "lantern": (0x1F3EE, "paper lantern"),
}
COLUMNS = 15


def bitmaps(font: Any) -> dict[int, Image.Image]:
    """Read the font's own 136 x 128 pictures, RGBA with straight alpha."""
    glyphs, cmap = font["CBDT"].strikeData[0], font.getBestCmap()
    return {
        code_point: Image.open(io.BytesIO(glyphs[cmap[code_point]].imageData))
        for code_point, *_ in OBJECTS.values()
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
    for i, (code_point, *_) in enumerate(OBJECTS.values()):
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
                "synonyms": synonyms,
                "code_point": f"U+{code_point:04X}",
                "unicode_name": unicodedata.name(chr(code_point)),
            }
            for name, (code_point, *synonyms) in OBJECTS.items()
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
