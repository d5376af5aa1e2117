"""Heights and widths of a picture in all stages: any, if every network takes them."""

import math
from collections.abc import Sequence

from imagen_jax.cascade.stage import Stage

Size = tuple[int, int]


def of_stages(stages: Sequence[Stage], size: Size) -> tuple[Size, ...]:
    """(height, width) at every stage, from that of the last stage's picture.

    Each stage keeps the ratio to the next that it was made for. The networks are
    convolutions, and attention whose positions, if it has any, follow the picture's
    shape, so they take any size that their down-sampling divides.

    Raises:
      ValueError: for a size that some stage's network does not take.
    """
    step = multiple(stages)
    if min(size) < 1 or any(side % step for side in size):
        height, width = nearest(stages, size)
        raise ValueError(
            f"Cascade: height and width must be multiples of {step}, so that the "
            f"networks of {', '.join(s.name for s in stages)} can halve them, got "
            f"{size[0]} x {size[1]}; the nearest is {height} x {width} "
            "(height x width)."
        )
    last = stages[-1].resolution
    height, width = size
    return tuple(
        (height * s.resolution // last, width * s.resolution // last) for s in stages
    )


def multiple(stages: Sequence[Stage]) -> int:
    """What the sides of the last stage's picture must be multiples of."""
    last = stages[-1].resolution
    steps = [1]
    for stage in stages:
        own = getattr(stage.network, "size_multiple", 1)
        # The least side of the last picture whose share at this stage is own's.
        steps.append(last * own // math.gcd(last * own, stage.resolution))
    return math.lcm(*steps)


def nearest(stages: Sequence[Stage], size: tuple[float, float]) -> Size:
    """The size nearest to `size`, side by side, that all stages take."""
    step = multiple(stages)
    height, width = (max(1, round(side / step)) * step for side in size)
    return height, width


def fitting(stages: Sequence[Stage], size: Size) -> Size:
    """The size for a picture of `size`: its shape, the area that the cascade knows.

    A picture that all stages take, of half to twice that area, keeps its own size.
    """
    known = stages[-1].resolution ** 2
    area = size[0] * size[1]
    step = multiple(stages)
    if known <= 2 * area <= 4 * known and not any(side % step for side in size):
        return size
    scale = math.sqrt(known / area)
    return nearest(stages, (size[0] * scale, size[1] * scale))


def check_tile(stage: Stage, tile: int, size: Size) -> None:
    """Refuse tiles that a stage's network cannot see a picture of this size in.

    Raises:
      ValueError: for a side that the network does not take, or a network that knows
        where in the picture it is.
    """
    if not tile or max(size) <= tile:
        return
    step = stage.tile_multiple
    if tile % step:
        raise ValueError(
            f"Stage {stage.name}: tile must be a multiple of {step}, got {tile}; the "
            f"nearest is {max(1, round(tile / step)) * step}."
        )
    if getattr(stage.network, "positions", "none") != "none":
        raise ValueError(
            f"Stage {stage.name}: its attention reads the coordinates of whole "
            f"pictures, so that a tile would be drawn as one; set tile of this stage "
            f"to 0 or to {max(size)}, got {tile}."
        )
