"""What a person asks for on the page: checked, then drawn."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from imagen_jax.cascade.drawing import Progress
from imagen_jax.cascade.samples import Samples
from imagen_jax.cascade.text_to_image import TextToImage
from imagen_jax.serving import pictures
from imagen_jax.serving.limits import Limits

SEEDS = 2**32
# What the brush asks for beside a picture and a mask.
OF_EDITING = ("strength", "resample")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """One drawing.

    Attributes:
      prompt: what is to be seen.
      negative: what guidance leads away from; "" is the model's own null.
      num: pictures.
      seed: of the noise, in [0, 2^32).
      stages: settings of stages, as a recipe file has them.
      picture: uint8 [H, W, 3], what is changed; None draws from nothing.
      mask: uint8 [H, W], 255 where it is drawn anew; None changes all of it.
      editing: the settings of `OF_EDITING` that were given.
    """

    prompt: str
    negative: str = ""
    num: int = 1
    seed: int = 0
    stages: tuple[Mapping[str, Any], ...] = ()
    picture: np.ndarray | None = None
    mask: np.ndarray | None = None
    editing: Mapping[str, float] = dataclasses.field(default_factory=dict)


def parse(body: Any, model: TextToImage, limits: Limits) -> Asked:
    """What was asked for, from the JSON of a request.

    Nothing in it is run or is the name of a file: names are looked up among those of
    the model's stages, settings and solvers.

    Raises:
      ValueError: in one line, what is required and what was got.
    """
    fields = _Fields(body, "drawing")
    prompt = fields.text("prompt", limits.prompt)
    if not prompt.strip():
        raise ValueError("The prompt is empty; describe a picture.")
    negative = fields.text("negative", limits.prompt).strip()
    asked = Asked(
        prompt=prompt.strip(),
        negative=negative,
        num=fields.number("num", int, 1, limits.pictures, 1),
        seed=fields.number("seed", int, 0, SEEDS - 1, 0),
        stages=tuple(fields.objects("stages", len(model.stage_names))),
        **_editing(fields.object("edit"), limits),
    )
    fields.finish()
    check(asked, model, limits)
    return asked


def check(asked: Asked, model: TextToImage, limits: Limits) -> None:
    """Refuse settings that cannot be drawn with, before waiting for their turn."""
    recipes = model.recipes_with(recipe=asked.stages, **asked.editing)
    bounds = {"steps": limits.steps, "resample": limits.repeats}
    for i, recipe in enumerate(recipes):
        for name, most in bounds.items():
            value = getattr(recipe, name, None)
            if value is not None and value > most:
                raise ValueError(
                    f"Stage {model.stage_names[i]}: {name} must be at most {most} "
                    f"here, got {value}."
                )


def draw(model: TextToImage, asked: Asked, progress: Progress) -> Samples:
    """Draw what was asked for, or what of it is done when `progress` raises `Stop`."""
    options: dict[str, Any] = {
        "num": asked.num,
        "seed": asked.seed,
        "recipe": asked.stages,
        "negative": asked.negative,
        "progress": progress,
        **asked.editing,
    }
    if asked.picture is None:
        return model.sample([asked.prompt], **options)
    return model.edit([asked.prompt], asked.picture, mask=asked.mask, **options)


def _editing(edit: "_Fields | None", limits: Limits) -> dict:
    if edit is None:
        return {}
    found = {
        "picture": pictures.decoded(
            edit.text("picture"), "The picture to change", "RGB", limits
        )
    }
    if mask := edit.text("mask"):
        found["mask"] = pictures.decoded(mask, "The mask", "L", limits)
        if found["mask"].shape != found["picture"].shape[:2]:
            raise ValueError("The mask must have the picture's size.")
        if not found["mask"].any():
            raise ValueError("The mask is empty; paint over what is to be drawn anew.")
    given = {
        "strength": edit.number("strength", float, 0.0, 1.0, None),
        "resample": edit.number("resample", int, 1, limits.repeats, None),
    }
    edit.finish()
    return {**found, "editing": {k: v for k, v in given.items() if v is not None}}


class _Fields:
    """A JSON object whose keys are taken one by one; those left over are refused."""

    def __init__(self, body: Any, what: str):
        if not isinstance(body, dict):
            raise ValueError(f"The {what} must be a JSON object.")
        self._rest, self._what = dict(body), what

    def text(self, name: str, most: int | None = None) -> str:
        value = self._rest.pop(name, "")
        if value is None:
            return ""
        if not isinstance(value, str):
            raise ValueError(f"The {name} must be text, got {_short(value)}.")
        if most is not None and len(value) > most:
            raise ValueError(
                f"The {name} must have at most {most} characters, got {len(value)}."
            )
        return value

    def number(
        self,
        name: str,
        kind: Callable[[Any], Any],
        low: float,
        high: float,
        default: Any,
    ) -> Any:
        value = self._rest.pop(name, None)
        if value is None:
            return default
        whole = kind is not int or isinstance(value, int)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not whole or not low <= value <= high:
            raise ValueError(
                f"The {name} must be a number from {low} to {high}, got "
                f"{_short(value)}."
            )
        return kind(value)

    def objects(self, name: str, most: int) -> Sequence[dict[str, Any]]:
        value = self._rest.pop(name, None) or []
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            raise ValueError(f"The {name} must be a list of one object a stage.")
        if len(value) > most:
            raise ValueError(f"The {name} must be at most {most}, got {len(value)}.")
        return value

    def object(self, name: str) -> "_Fields | None":
        value = self._rest.pop(name, None)
        return None if value is None else _Fields(value, name)

    def finish(self) -> None:
        if self._rest:
            key = _short(next(iter(self._rest)))
            raise ValueError(f"The {self._what} has the unknown key {key}.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
