"""Pictures of one's own in a trained cascade: change them, enlarge them, vary them.

`edit`, `upscale` and `variations` are methods of `TextToImage`. What they ask of the
cascade is a `Request`, made by `to_change`, `to_enlarge` and `to_vary`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from imagen_jax.cascade import images, sizes
from imagen_jax.cascade.request import Edit, Request

if TYPE_CHECKING:
    from imagen_jax.cascade.cascade import Cascade
    from imagen_jax.cascade.text_to_image import Samples, TextToImage

Size = tuple[int, int]

# Meng et al. 2021, section 4: realistic and faithful for t0 in [0.3, 0.6].
STRENGTH = 0.6
# Saharia et al. 2022, figure A.12: variations by other prompts.
VARIED = 0.3


def edit(
    model: "TextToImage",
    prompts: Sequence[str] | str,
    picture: Any,
    *,
    mask: Any = None,
    outpaint: Sequence[int] = (0, 0, 0, 0),
    size: Size | None = None,
    **settings: Any,
) -> "Samples":
    """Change a picture: all of it (SDEdit), what a mask shows, or what lies around it.

    Without a mask and padding the picture is noised up to t = `strength` and drawn from
    there (Meng et al. 2021). With them, what they show is drawn anew, and the rest of
    the result is the picture's to the bit; `resample=10` makes the two agree better, at
    ten times the cost (Lugmayr et al. 2022).

    Args:
      model: a trained cascade, self.
      prompts: what the picture shall show, one or more descriptions.
      picture: uint8 [H, W, 3], or a PIL image.
      mask: [H, W] of the picture's size, or a PIL image: bool, uint8 in [0, 255] or
        float in [0, 1]. White (True) is drawn anew, black stays, grey is mixed.
      outpaint: pixels to add at the left, top, right and bottom, in the picture's.
      size: (height, width) of the result; by default `sizes.fitting` the picture.
      **settings: as in `TextToImage.sample`: `num`, `seed`, `steps`, ...; and
        `strength` in (0, 1], by default 0.6 for a whole picture and 1 under a mask.

    Returns:
      The pictures of every stage; `images` is uint8 [P, height, width, 3].

    Raises:
      ValueError: for a picture, mask, padding, size or setting that cannot be.
    """
    request = to_change(model.cascade, picture, mask, outpaint, size)
    settings = with_defaults(request, settings)
    return model.sample(prompts, given=request, **settings)


def upscale(
    model: "TextToImage",
    prompts: Sequence[str] | str,
    picture: Any,
    *,
    size: Size | None = None,
    **settings: Any,
) -> "Samples":
    """Enlarge a picture by the stages of super-resolution that take its size.

    Args:
      model: a trained cascade, self.
      prompts: what the picture shows.
      picture: uint8 [H, W, 3], or a PIL image.
      size: (height, width) of the result; by default the picture's times what the
        stages enlarge by, beginning at the one made for pictures nearest in area.
      **settings: as in `TextToImage.sample`, such as `tile`, `aug_level`,
        `colour_fix`.

    Returns:
      The pictures of the stages drawn; `images` is uint8 [P, height, width, 3].

    Raises:
      ValueError: for a picture or size that cannot be, or a cascade without
        super-resolution.
    """
    request = to_enlarge(model.cascade, picture, size)
    return model.sample(prompts, given=request, **settings)


def variations(
    model: "TextToImage",
    prompts: Sequence[str] | str,
    picture: Any,
    *,
    size: Size | None = None,
    **settings: Any,
) -> "Samples":
    """Draw a picture anew from its small version, often with another prompt.

    The first stage of super-resolution gets the picture as small as the base draws it,
    with noise of `aug_level` 0.3, so that the prompt decides what it looks like
    (Saharia et al. 2022, figure A.12).

    Args:
      model: a trained cascade, self.
      prompts: what shall be seen.
      picture: uint8 [H, W, 3], or a PIL image.
      size: (height, width) of the result; by default `sizes.fitting` the picture.
      **settings: as in `TextToImage.sample`.

    Returns:
      The pictures of the stages drawn; `images` is uint8 [P, height, width, 3].

    Raises:
      ValueError: for a picture or size that cannot be, or a cascade without
        super-resolution.
    """
    request = to_vary(model.cascade, picture, size)
    settings = with_defaults(request, settings, varied=True)
    return model.sample(prompts, given=request, **settings)


def to_change(
    cascade: "Cascade",
    picture: Any,
    mask: Any = None,
    outpaint: Sequence[int] = (0, 0, 0, 0),
    size: Size | None = None,
) -> Request:
    """The request of `edit`: one row, the picture at the size of the result."""
    pixels = pixels_of(picture)
    shown = None if mask is None else shares_of(mask, pixels.shape[:2])
    if any(outpaint):
        pixels, shown = padded(pixels, shown, outpaint)
    if shown is not None and not shown.any():
        raise ValueError(
            "edit: the mask is black everywhere, so that nothing is to be drawn; white "
            "is what is drawn anew."
        )
    size = size or sizes.fitting(cascade.stages, pixels.shape[:2])
    # Before resizing: a size that cannot be drawn is refused here.
    sizes.of_stages(cascade.stages, size)
    if shown is not None:
        # Linear, not cubic: no overshoot.
        shown = resized(shown[..., None], size, "linear")
    return Request(
        edit=Edit(picture=in_range(resized(pixels, size)), mask=shown), size=size
    )


def to_enlarge(cascade: "Cascade", picture: Any, size: Size | None = None) -> Request:
    """The request of `upscale`: the picture as the stage that takes it wants it."""
    pixels, last = pixels_of(picture), cascade.stages[-1].resolution
    area = pixels.shape[0] * pixels.shape[1]
    if size is not None:
        # How large the base's picture would be if the result had the known area.
        area = area * last**2 / (size[0] * size[1])
    lows = {
        s.low_resolution: i
        for i, s in enumerate(cascade.stages)
        if s.low_resolution is not None
    }
    if not lows:
        raise ValueError(
            "upscale: a stage of super-resolution is required, got a base alone."
        )
    low = min(lows, key=lambda side: abs(np.log(side**2 / area)))
    stages = cascade.stages[lows[low] :]
    if size is None:
        height, width = (side * last // low for side in pixels.shape[:2])
        size = sizes.nearest(stages, (height, width))
    sizes.of_stages(stages, size)
    small = (size[0] * low // last, size[1] * low // last)
    return Request(low_res=in_range(resized(pixels, small)), size=size)


def to_vary(cascade: "Cascade", picture: Any, size: Size | None = None) -> Request:
    """The request of `variations`: the picture as the base would have drawn it."""
    if len(cascade.stages) < 2:
        raise ValueError(
            "variations: a stage of super-resolution is required, got a base alone."
        )
    pixels = pixels_of(picture)
    size = size or sizes.fitting(cascade.stages, pixels.shape[:2])
    small = sizes.of_stages(cascade.stages, size)[0]
    return Request(low_res=in_range(resized(pixels, small)), size=size)


def with_defaults(
    request: Request, settings: dict[str, Any], *, varied: bool = False
) -> dict[str, Any]:
    """Settings with the strength of a whole picture or the noise of variations."""
    filled = dict(settings)
    whole = request.edit is not None and request.edit.mask is None
    if whole and filled.get("strength") is None:
        filled["strength"] = STRENGTH
    if varied and filled.get("aug_level") is None:
        filled["aug_level"] = VARIED
    return filled


def pixels_of(picture: Any) -> np.ndarray:
    """uint8 [H, W, 3] of an array or a PIL image.

    Raises:
      ValueError: for another shape or type.
    """
    if hasattr(picture, "convert"):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"edit: a picture must be uint8 [H, W, 3] in [0, 255], got {pixels.dtype} "
            f"{list(pixels.shape)}."
        )
    if not pixels.size:
        raise ValueError(f"edit: the picture is empty, {list(pixels.shape)}.")
    return pixels


def shares_of(mask: Any, size: Size) -> np.ndarray:
    """float32 [H, W] in [0, 1] of a mask of a picture's size.

    Raises:
      ValueError: for another size, shape or range.
    """
    if hasattr(mask, "convert"):
        mask = mask.convert("L")
    shown = np.asarray(mask)
    scale = 255.0 if shown.dtype == np.uint8 else 1.0
    shown = shown.astype(np.float32) / scale
    if shown.shape != tuple(size):
        raise ValueError(
            f"edit: the mask must have the picture's size, {size[1]} x {size[0]} "
            f"(width x height), one number a pixel, got {list(shown.shape)}."
        )
    if not (shown.min() >= 0.0 and shown.max() <= 1.0):
        raise ValueError(
            "edit: a mask must be bool, uint8 in [0, 255] or float in [0, 1], got "
            f"values from {shown.min()} to {shown.max()}."
        )
    return shown


def padded(
    pixels: np.ndarray, shown: np.ndarray | None, outpaint: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """A picture with room around it, its edges drawn out, and the mask of that room.

    Drawn out, because lower stages' known pixels are averages that reach across.

    Raises:
      ValueError: unless there are four numbers >= 0.
    """
    if len(outpaint) != 4 or min(outpaint) < 0:
        raise ValueError(
            "edit: outpaint must be pixels >= 0 at the left, top, right and bottom, "
            f"got {tuple(outpaint)}."
        )
    left, top, right, bottom = outpaint
    around = ((top, bottom), (left, right))
    if shown is None:
        shown = np.zeros(pixels.shape[:2], np.float32)
    shown = np.pad(shown, around, constant_values=1.0)
    return np.pad(pixels, (*around, (0, 0)), mode="edge"), shown


def resized(pixels: np.ndarray, size: Size, kernel: str = "cubic"):
    """One row [1, H, W, C]: uint8 stays uint8."""
    rows = jnp.asarray(pixels)[None]
    if rows.dtype == jnp.uint8:
        return images.to_uint8(images.resize(images.to_float(rows), size, kernel))
    return jnp.clip(images.resize(rows, size, kernel), 0.0, 1.0)


def in_range(rows):
    """uint8 to [-1, 1]."""
    return images.to_float(rows)
