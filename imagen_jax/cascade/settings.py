"""Sampling recipes and plain values: keyword arguments, JSON files, metadata of PNGs.

It is generic over the fields of `SamplingRecipe` and of the solvers; a field that holds
an object has a line in `PARTS`.
"""

import dataclasses
import difflib
import json
import numbers
import pathlib
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imagen_jax.cascade import recipe
from imagen_jax.diffusion import grids, guidance_weights

Recipes = tuple[recipe.SamplingRecipe, ...]

# What people say -> the field.
SAID = {"guidance": "w"}
# Fields that hold an object, and what makes it of a name and parameters.
PARTS: dict[str, Callable[..., Any]] = {
    "solver": recipe.make_solver,
    "grid": grids.by_name,
    "guidance_schedule": guidance_weights.by_name,
}
# What a recipe file may hold beside the stages, as a run writes it.
RECORDED = (
    *("imagen_jax", "model", "pictures", "files", "complete"),
    *("size", "edit", "edited"),
)


def changed(recipes: Recipes, settings: Mapping[str, Any]) -> Recipes:
    """Recipes with settings changed.

    Args:
      recipes: one a stage.
      settings: each one value for all stages or a sequence of one a stage; None keeps
        what is there. Their names are the fields of `SamplingRecipe` ("guidance" is w)
        and of its solver, such as "gamma". "off" is None where a field has it.

    Raises:
      ValueError: for a name that is neither, another number of values, or a value that
        cannot be drawn with.
    """
    found = list(recipes)
    # A solver before its parameters; a grid, which may bring steps, before steps; how a
    # stage is guided after whether.
    order = lambda n: (n in recipe.OF_GUIDANCE, n not in PARTS)  # noqa: E731
    for name in sorted(settings, key=order):
        value = settings[name]
        if value is None:
            continue
        many = isinstance(value, Sequence) and not isinstance(value, str)
        values = list(value) if many else [value] * len(found)
        if len(values) != len(found):
            raise ValueError(
                f"sample: {name} must be one value or one for each of the "
                f"{len(found)} stages, got {len(values)}."
            )
        if not any(takes(r, name) for r in found):
            raise ValueError(unknown("sample: unknown setting", name, found))
        meant = [many or concerns(r, name) for r in found]
        for i, one in enumerate(values):
            if one is not None and (meant[i] or not any(meant)):
                found[i] = with_setting(found[i], name, one)
    for each in found:
        each.check()
    return tuple(found)


def takes(own: recipe.SamplingRecipe, name: str) -> bool:
    """Whether a recipe or its solver has a setting."""
    return name in names_of(own)


def concerns(own: recipe.SamplingRecipe, name: str) -> bool:
    """Whether one value for all stages is meant for a stage with this recipe too."""
    if name == "guidance_schedule":
        return own.w is not None
    return takes(own, name) and (own.guided or name not in recipe.OF_GUIDANCE)


def names_of(own: recipe.SamplingRecipe) -> list[str]:
    """The settings of a recipe and of its solver."""
    return [*SAID, *kinds_of(own), *kinds_of(own.solver)]


def kinds_of(thing: Any) -> dict[str, Any]:
    """The fields of a dataclass with their annotations."""
    return {f.name: f.type for f in dataclasses.fields(thing)}


def unknown(what: str, name: str, recipes: Sequence[recipe.SamplingRecipe]) -> str:
    """The error's text for a name that no recipe has."""
    known = sorted({n for r in recipes for n in names_of(r)})
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"{what} {name!r}; did you mean {close[0]!r}?"


def with_setting(
    own: recipe.SamplingRecipe, name: str, value: Any
) -> recipe.SamplingRecipe:
    """A recipe with one setting changed; None is a value, where the field has it.

    Raises:
      ValueError: if neither it nor its solver has this setting.
    """
    field = SAID.get(name, name)
    if not takes(own, name):
        solver = type(own.solver).__name__
        raise ValueError(unknown(f"sample: {solver} has no setting", name, [own]))
    if field in PARTS and isinstance(value, str | Mapping):
        part = made(field, getattr(own, field), value)
        length = getattr(part, "length", None)
        steps = {"steps": length} if field == "grid" and length else {}
        return dataclasses.replace(own, **{field: part, **steps})
    if field in kinds_of(own):
        return _replaced(own, {field: value})
    return dataclasses.replace(own, solver=_replaced(own.solver, {field: value}))


def _replaced(thing: Any, values: Mapping[str, Any]) -> Any:
    kinds = kinds_of(thing)
    new = {name: number(value, kinds[name], name) for name, value in values.items()}
    return dataclasses.replace(thing, **new)


def made(field: str, own: Any, value: str | Mapping[str, Any]) -> Any:
    """An object of its name, or of a mapping of its name and parameters.

    By its name alone, an object of the kind that is there keeps its parameters.
    """
    if isinstance(value, str):
        part = PARTS[field](value)
        return own if type(part) is type(own) and named(own) == value else part
    rest = dict(value)
    name = rest.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"sample: {field} must have a name, got {dict(value)!r}.")
    part = PARTS[field](name)
    fields = {key: rest.pop(key) for key in kinds_of(part) if key in rest}
    try:
        # What is no field, the name's maker may know.
        part = PARTS[field](name, **rest)
    except (TypeError, ValueError) as error:
        known, key = list(kinds_of(part)), next(iter(rest))
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"sample: {field} {name!r} has no {key!r}{hint}") from error
    return _replaced(part, fields)


def number(value: Any, kind: Any, name: str) -> Any:
    """A value as its field has it: 3 is 3.0 where floats are, else 3 would recompile.

    Raises:
      ValueError: for a text where numbers are, or a number where texts are.
    """
    kinds = typing.get_args(kind) or (kind,)
    if value == "off" and type(None) in kinds:
        return None
    if value is None or isinstance(value, bool) or dataclasses.is_dataclass(value):
        return value
    if float in kinds and int not in kinds and isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, str) != (str in kinds) and {str, int, float} & set(kinds):
        wanted = "a name" if str in kinds else "a number"
        raise ValueError(f"sample: {name} must be {wanted}, got {value!r}.")
    return value


def plain(own: recipe.SamplingRecipe) -> dict[str, Any]:
    """All settings of a recipe as JSON has them; `from_plain` reads them."""
    said = {field: name for name, field in SAID.items()}
    return {said.get(name, name): _plain(getattr(own, name)) for name in kinds_of(own)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        names = [name for name in kinds_of(value) if name != "name"]
        return {"name": named(value), **{n: _plain(getattr(value, n)) for n in names}}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value


def named(value: Any) -> str:
    """The name by which `PARTS` make an object."""
    names = {cls: name for name, cls in reversed(recipe.SOLVERS.items())}
    return names.get(type(value)) or value.name


def from_plain(
    recipes: Recipes, stage_names: Sequence[str], stages: Sequence[Mapping[str, Any]]
) -> Recipes:
    """Recipes changed by the stages of a recipe file.

    Args:
      recipes: one a stage.
      stage_names: one a stage.
      stages: settings by name. Each goes to the stage that its key "stage" names, or
        else to that of its place. What is not given stays.

    Raises:
      ValueError: naming the stage or setting that there is not.
    """
    found = list(recipes)
    for place, values in enumerate(stages):
        if not isinstance(values, Mapping):
            raise ValueError(f"recipe: a stage must be an object, got {values!r}.")
        rest = dict(values)
        stage = rest.pop("stage", stage_names[min(place, len(found) - 1)])
        if stage not in stage_names or place >= len(found):
            raise ValueError(
                f"recipe: the model's stages are {list(stage_names)}, got {stage!r} "
                f"in place {place}."
            )
        i = list(stage_names).index(stage)
        for name in sorted(rest, key=lambda n: n not in PARTS):
            if not takes(found[i], name):
                raise ValueError(
                    unknown(f"recipe: stage {stage} has no setting", name, [found[i]])
                )
            found[i] = with_setting(found[i], name, rest[name])
        found[i].check()
    return tuple(found)


def read(path: str | pathlib.Path) -> list[Mapping[str, Any]]:
    """The stages of a recipe file, such as the settings.json that a run writes.

    Raises:
      ValueError: if it is no JSON object, or has keys that it should not have.
    """
    try:
        values = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"recipe: {path} is no JSON file ({error}).") from error
    if not isinstance(values, dict) or not isinstance(values.get("stages"), list):
        raise ValueError(
            f'recipe: {path} must be an object {{"stages": [{{...}}, ...]}} of one '
            "object a stage."
        )
    known = ("stages", *RECORDED)
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ValueError(
                f"recipe: {path} has the unknown key {key!r}; did you mean "
                f"{close[0]!r}?"
            )
    return values["stages"]
