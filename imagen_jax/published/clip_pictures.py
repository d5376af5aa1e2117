"""What the Hugging Face folder of a CLIP model says is done to pictures first."""

from typing import Any

from imagen_jax.checkpoints import huggingface
from imagen_jax.models import clip

# 3 is Pillow's number for the bicubic filter.
PREPROCESSING = {
    "do_resize": True,
    "do_center_crop": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": 3,
    "rescale_factor": 1 / 255,
}


def preprocessing(folder: str) -> clip.Preprocessing:
    """What a folder's preprocessor_config.json says is done to pictures.

    Raises:
      ValueError: if it is anything else than `clip.Preprocessing` does.
    """
    name = "preprocessor_config.json"
    where = f"{folder}/{name}"
    values = huggingface.read_config(folder, name)
    for key, wanted in PREPROCESSING.items():
        if values.get(key, wanted) != wanted:
            raise ValueError(f"{where}: {key} must be {wanted}, got {values[key]!r}.")
    default = clip.Preprocessing()
    return clip.Preprocessing(
        resize=_side(where, values.get("size", default.resize), "shortest_edge"),
        crop=_side(where, values.get("crop_size", default.crop), "height", "width"),
        mean=tuple(values.get("image_mean", default.mean)),
        std=tuple(values.get("image_std", default.std)),
    )


def _side(where: str, value: Any, *names: str) -> int:
    """A length, which older files give as a number and newer ones as an object."""
    sides = [value]
    if isinstance(value, dict):
        sides = list(value.values()) if set(value) == set(names) else []
    if any(type(side) is not int for side in sides) or len(set(sides)) != 1:
        raise ValueError(
            f"{where}: a size must be one number, or the same one for "
            f"{' and '.join(names)}, got {value!r}."
        )
    return sides[0]
