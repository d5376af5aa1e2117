"""Show and measure editing with a trained cascade.

    python docs/make_editing.py sheet --model emoji
    python docs/make_editing.py tiles --model emoji

`sheet` makes images/editing.png, with the first seed of everything. `tiles` prints how
far super-resolution in tiles is from that of whole pictures: PSNR, the drift of the
mean colour, the step between neighbouring pixels at the tiles' edges and elsewhere, and
how much more tiling adds to it at the edges.
"""

import argparse

import numpy as np
from make_figures import prompts, save
from PIL import Image

import imagen_jax
from imagen_jax.cascade.contact_sheet import contact_sheet
from imagen_jax.diffusion import tiling

PROMPT = "a dog to the left of a football on a pink background"
CHANGED = "a dog to the left of a pizza on a pink background"
APPLE = "a big red apple on a yellow background"
PIZZA = "a big pizza on a yellow background"
TILES = (256, 0.25), (128, 0.25), (64, 0.25), (128, 0.5), (64, 0.5), (64, 0.0)
GRID = 8  # The shipped last stage's tile multiple, in pixels.


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """A square picture at another size."""
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def sheet(model_name: str) -> None:
    """Each way of editing, once."""
    model = imagen_jax.load(model_name)
    drawn = model.sample([PROMPT, APPLE])
    dog, apple = drawn.images
    mask = np.zeros(dog.shape[:2], np.uint8)
    mask[40:220, 112:248] = 255
    shown = [(dog, PROMPT), (np.where(mask[..., None] > 0, 255, dog // 2), "the mask")]
    for turns in (None, (5, None, None)):
        found = model.edit(CHANGED, dog, mask=mask, resample=turns).images[0]
        same = (found == dog)[mask == 0].all()
        print(f"in-painted, resample {turns}: known pixels the same: {same}")
        shown.append((found, f"in-painted{', r = 5' if turns else ''}: {CHANGED}"))
    shown.append((apple, APPLE))
    for strength in (0.2, 0.4, 0.6):
        found = model.edit(PIZZA, apple, strength=strength).images[0]
        shown.append((found, f"strength {strength}: {PIZZA}"))
    small = shrunk(dog, 192)
    found = model.edit(PROMPT, small, outpaint=(64, 32, 64, 32)).images[0]
    shown.append((found, "192 px, out-painted to 320 x 256"))
    for level in (0.0, 0.3):
        found = model.variations(CHANGED, dog, aug_level=level).images[0]
        shown.append((found, f"variation, aug_level {level}: {CHANGED}"))
    low = drawn.stages[1][0]
    found = model.upscale(PROMPT, low).images[0]
    shown.append((found, f"{low.shape[1]} px enlarged to {found.shape[1]}"))
    fixed = model.upscale(PROMPT, low, colour_fix=2.0).images[0]
    for name, big in (("plain", found), ("colour_fix 2", fixed)):
        drift = shrunk(big, low.shape[1]).astype(float).mean((0, 1)) - low.mean((0, 1))
        print(f"enlarged, {name}: colour drift {drift.round(2)} of 255")
    wide = model.sample([PROMPT, "two dogs"], size=(192, 448))
    shown += [
        (p, f"448 x 192: {w}") for p, w in zip(wide.images, wide.prompts, strict=True)
    ]
    pictures, labels = zip(*shown, strict=True)
    save(
        contact_sheet([p.astype(np.uint8) for p in pictures], labels, cell=192),
        "editing",
    )


def tiles(model_name: str, count: int) -> None:
    """Super-resolution of 128 px pictures in tiles against whole ones.

    Each picture is rolled by a random offset, so that objects lie anywhere, and not
    more often at the tiles' edges than elsewhere.
    """
    model = imagen_jax.load(model_name)
    some = prompts(0, count)
    rng = np.random.default_rng(0)
    pictures = [
        np.roll(shrunk(p, 128), rng.integers(0, 128, 2), (0, 1))
        for p in model.sample(some).images
    ]
    whole = [model.upscale(t, p).images[0] for t, p in zip(some, pictures, strict=True)]
    side = whole[0].shape[1]
    print("| tile | overlap | PSNR | drift | at edges | elsewhere | more at edges |")
    print("|---|---|---|---|---|---|---|")
    for tile, overlap in TILES:
        found = [
            model.upscale(t, p, tile=tile, tile_overlap=overlap).images[0]
            for t, p in zip(some, pictures, strict=True)
        ]
        a, b = np.asarray(whole, np.float64), np.asarray(found, np.float64)
        errors = ((a - b) ** 2).mean((1, 2, 3))
        psnr = 10.0 * np.log10(255.0**2 / np.maximum(errors, 1e-9))
        drift = np.abs((a - b).mean((1, 2))).max()
        starts = tiling.places(side, tile, overlap, GRID)
        edges = sorted(
            {int(s) - 1 for s in starts[1:]} | {int(s) + tile - 1 for s in starts[:-1]}
        )
        # Where tiles may end: between the same columns of low-resolution pixels.
        inside = np.setdiff1d(np.arange(GRID - 1, side - 1, GRID), edges)
        ours, own = steps(b), steps(a)
        at, there = ours[:, edges].mean(1), own[:, edges].mean(1)
        among, elsewhere = ours[:, inside].mean(1), own[:, inside].mean(1)
        more, low, high = excess(at, there, among, elsewhere)
        print(
            f"| {tile} | {overlap:g} | {psnr.mean():.1f} dB (least {psnr.min():.1f}) | "
            f"{drift:.2f} | {at.mean():.3f} (untiled {there.mean():.3f}) | "
            f"{among.mean():.3f} (untiled {elsewhere.mean():.3f}) | "
            f"{more:+.1f} % ({low:+.1f} to {high:+.1f}) |",
            flush=True,
        )


def steps(pictures: np.ndarray) -> np.ndarray:
    """Mean absolute step from each column and row to the next, [pictures, side - 1]."""
    across = np.abs(np.diff(pictures, axis=2)).mean((1, 3))
    return 0.5 * (across + np.abs(np.diff(pictures, axis=1)).mean((2, 3)))


def excess(at, there, among, elsewhere) -> tuple[float, float, float]:
    """How much more tiling adds to the steps at edges than elsewhere, in per cent.

    Each is of the pictures, [pictures]: tiled and untiled at the edges, tiled and
    untiled elsewhere. With the 95 % interval of 10,000 draws of the pictures.
    """

    def ratio(rows):
        a, b, c, d = (x[rows].mean(-1) for x in (at, there, among, elsewhere))
        return 100.0 * ((a / b) / (c / d) - 1.0)

    drawn = np.random.default_rng(0).integers(0, len(at), (10_000, len(at)))
    low, high = np.percentile(ratio(drawn), (2.5, 97.5))
    return float(ratio(np.arange(len(at)))), float(low), float(high)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Show and measure editing.")
    parser.add_argument("what", choices=("sheet", "tiles"))
    parser.add_argument("--model", default="emoji", help="a model directory or name")
    parser.add_argument("--count", type=int, default=32, help="pictures in tiles")
    arguments = parser.parse_args()
    if arguments.what == "sheet":
        sheet(arguments.model)
    else:
        tiles(arguments.model, arguments.count)


if __name__ == "__main__":
    main()
