"""How far two shares of the same prompts differ, and how sure that is."""

import math

import numpy as np


def interval(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of share(ours) - share(theirs), for paired answers.

    Half a pair is added to each of the four cells (right or wrong, of either) and the
    normal interval taken (Agresti & Min 2005): without these the interval of two that
    never differ would be a point.

    Args:
      ours, theirs: whether each prompt was right, bool [N], in the same order.

    Raises:
      ValueError: if they are not of the same prompts, or there are none.
    """
    if ours.shape != theirs.shape or not ours.size:
        raise ValueError(
            "pairs: ours and theirs must be one answer for each of the same prompts, "
            f"got {ours.shape} and {theirs.shape}."
        )
    gained = int(np.sum(ours & ~theirs)) + 0.5
    lost = int(np.sum(~ours & theirs)) + 0.5
    number = ours.size + 2
    middle = (gained - lost) / number
    spread = gained + lost - (gained - lost) ** 2 / number
    half = 1.96 * math.sqrt(spread) / number
    return max(middle - half, -1.0), min(middle + half, 1.0)
