"""Make cleaning.json: captions cleaned by diffusers' DeepFloyd IF.

Not run by the tests. In an environment of its own:

    pip install diffusers==0.42.1 transformers==5.24.0 torch ftfy==6.3.1 beautifulsoup4
    python tests/golden/make_cleaning.py

`ftfy` says whether ftfy.fix_text, which this package does not call, changed the caption
on its way.
"""

import importlib.metadata
import json
import pathlib

import diffusers
import ftfy

CAPTIONS = [
    "a red circle left of a blue square",
    "",
    "   A Photo of a CAT   ",
    "a <person> walking <b>bold</b> streets of <i>Rome</i>",
    "Buy now at https://www.example.com/shop/item?id=42 best price",
    "see www.cats.co/photos and http://dogs.org for more",
    "mail to someone@example.com today",
    "photo by @photo_grapher99 on instagram",
    "猫 a cat 在 the garden 木の上の赤い円 かな",
    "em — dash – en ― bar ‐ hyphen 〜 wave",
    "“curly” ‘quotes’ «angles» `ticks` ´acute´ ¨dots¨",
    "black &amp; white &quot;portrait&quot; &lt;tag&gt; &copy; 2020",
    "server 192.168.0.1 rack",
    "score 3:45   ",
    "first\\nsecond line",
    "real\nnew line\tand tab",
    "#1 best #123 and #12345 and #1234 kept, 1234567 gone 12345 kept",
    "IMG_0042.jpg holiday.png a sunset over sea.jpeg",
    '***SOLD OUT*** """wow""" \'\'two\'\' ... and .. dots . here',
    "this-is-my-cute-cat-picture",
    "this_is_my_cute_cat_picture_too",
    "one-two three-four five",
    "jc6640 and jc6640vc and 6640vc231 in j2d1a2a style",
    "free shipping worldwide free shipping on all lamps",
    "free download free wallpaper download of a tiger",
    "click on image, click for more details",
    "png image of a rose, jpg images, pdf",
    "page 12 of the old book",
    "poster 10x15 cm and 3.5×5 inch",
    "title : subtitle ,comma.dot/slash a,b.c/d",
    "'quoted entirely'",
    '"double quoted entirely"',
    "-leading dash and trailing dash-",
    ":colon start; _under_",
    ".hidden",
    "50% off+today+only%21 a%20b",
    "<a href='http://x.com/y'>link text</a><br/>after<script>var x = 1;</script> end",
    "a < b and b > c & d",
    "unclosed <b tag and &unknown; entity &#65; &#x42;",
    "ﬁne ligature and ｆｕｌｌ width",
    "e\u0301te\u0301 decomposed",
    "â€œmojibakeâ€\u009d quotes",
    "®™©•· º ½ ¾ ¿ ¡ § ~ (round) [square] {curly} |bar| \\back/slash",
    "a 🍎 emoji, 🏳️‍🌈 flag",
    "Ünïcödé ÄÖÜ ß İstanbul",
    "double  spaces   and\u00a0no-break",
    "https://shop.example.it/a-b_c/d",
    "www:/odd and https:nothing",
    "https%3A%2F%2Fexample.com%2Fhidden picture of a boat",
    "'",
    "a painting, oil on canvas, 24x36in, c.1890.",
]


def main() -> None:
    """Write the file."""
    fix, touched = ftfy.fix_text, []

    def recorded(text: str, *args, **kwargs) -> str:
        fixed = fix(text, *args, **kwargs)
        touched.append(fixed != text)
        return fixed

    ftfy.fix_text = recorded
    pipeline = diffusers.IFPipeline.__new__(diffusers.IFPipeline)
    rows = []
    for caption in CAPTIONS:
        touched.clear()
        (cleaned,) = pipeline._text_preprocessing(caption, clean_caption=True)
        assert len(touched) == 2
        rows.append({"caption": caption, "cleaned": cleaned, "ftfy": any(touched)})
    libraries = ("diffusers", "ftfy", "beautifulsoup4")
    made_with = {name: importlib.metadata.version(name) for name in libraries}
    path = pathlib.Path(__file__).with_name("cleaning.json")
    path.write_text(json.dumps({"made_with": made_with, "rows": rows}, indent=0) + "\n")


if __name__ == "__main__":
    main()
