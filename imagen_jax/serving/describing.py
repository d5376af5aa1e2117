"""What the page must know of a model, and of a drawing, as JSON has it."""

import dataclasses
import math
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from imagen_jax.cascade import recipe, settings
from imagen_jax.cascade.recipe import SamplingRecipe
from imagen_jax.cascade.text_to_image import TextToImage
from imagen_jax.diffusion import grids, guidance_weights
from imagen_jax.serving import asking, pictures
from imagen_jax.serving.limits import Limits
from imagen_jax.serving.queue import Drawing

# What the brush and not the table of stages asks for.
ELSEWHERE = set(asking.OF_EDITING)
# The names that make the objects of `settings.PARTS`.
PARTS: dict[str, Iterable[str]] = {
    "solver": recipe.SOLVERS,
    "grid": grids.NAMES,
    "guidance_schedule": guidance_weights.KINDS,
}


def model(of: TextToImage, limits: Limits) -> dict[str, Any]:
    """The model's stages with their settings, and what may be asked for.

    The settings and their kinds are read off `SamplingRecipe` and the solvers, so that
    a new one is on the page without a line here.
    """
    return {
        "name": of.name,
        "stages": [
            {"name": stage.name, "side": stage.resolution, "settings": plain(own)}
            for stage, own in zip(of.cascade.stages, of.plain(of.recipes), strict=True)
        ],
        "settings": list(_settings(of)),
        "limits": dataclasses.asdict(limits),
    }


def drawing(of: Drawing, seen: int = -1) -> dict[str, Any]:
    """A drawing as it stands; of its pictures in the making those changed since."""
    told: dict[str, Any] = {
        "drawing": of.id,
        "state": of.state,
        "place": of.place,
        "unknown": list(of.unknown),
        "seconds": round(of.seconds, 1),
    }
    if of.total:
        told |= {
            "stage": of.stage,
            "step": of.step,
            "steps": of.steps,
            "done": of.done,
            "total": of.total,
        }
    if of.error:
        told["error"] = of.error
    if of.looks:
        told["looks"] = [
            {
                "picture": place,
                "stage": look.stage,
                "side": max(look.pixels.shape[:2]),
                "source": pictures.preview(look.pixels),
            }
            for place, look in sorted(of.looks.items())
            if look.version > seen
        ]
    if of.samples is not None:
        told["settings"] = plain(of.samples.settings)
        told["stages"] = [
            {"name": name, "height": s.shape[1], "width": s.shape[2], "count": len(s)}
            for name, s in zip(of.samples.stage_names, of.samples.stages, strict=True)
        ]
    return told


def plain(value: Any) -> Any:
    """The same with null for infinite numbers, which JSON has not."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _settings(of: TextToImage) -> Iterator[dict[str, Any]]:
    """What a person can set of a stage: its name, and what it may be."""
    said = {field: name for name, field in settings.SAID.items()}
    alone = all(stage.weak is None for stage in of.cascade.stages)
    for field, annotation in settings.kinds_of(SamplingRecipe).items():
        if field in ELSEWHERE or (field == "autoguidance" and alone):
            continue
        name, kind = said.get(field, field), _number(annotation)
        if field in PARTS:
            make = settings.PARTS[field]
            parts = {part: _numbers(make(part)) for part in PARTS[field]}
            yield {"name": name, "kind": "part", "parts": parts}
        elif field == "threshold":
            yield {"name": name, "kind": "choice", "choices": recipe.THRESHOLDS}
        elif kind is not None:
            yield {"name": name, **kind}


def _numbers(part: Any) -> list[dict[str, Any]]:
    """The numbers of a solver, a grid, ..., with their values by default."""
    kinds = {name: _number(kind) for name, kind in settings.kinds_of(part).items()}
    return [
        {"name": name, "value": plain(getattr(part, name)), **kind}
        for name, kind in kinds.items()
        if kind is not None
    ]


def _number(annotation: Any) -> dict[str, Any] | None:
    """Of numbers: whether whole, and whether there may be none."""
    kinds = typing.get_args(annotation) or (annotation,)
    if not {int, float} & set(kinds):
        return None
    return {
        "kind": "number" if float in kinds else "integer",
        "optional": type(None) in kinds,
    }
