"""Objects of classes that plain values name: what `build` is made of."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

LINEN_FIELDS = {"parent", "name"}


def construct(cls: type, where: str, values: Mapping[str, Any]) -> Any:
    """Call a dataclass with config values, checking their names first."""
    known = {
        f.name for f in dataclasses.fields(cls) if f.init and f.name not in LINEN_FIELDS
    }
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)
            raise ValueError(
                f"config.{where}.{name}: {cls.__name__} has no such field; did you "
                f"mean {close[0]!r}?"
            )
    return cls(**{name: frozen(value) for name, value in values.items()})


def frozen(value: Any) -> Any:
    """Lists and config groups as hashable tuples."""
    return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value


def typed(
    cls_by_name: Mapping[str, type], where: str, values: Mapping[str, Any]
) -> Any:
    """Construct the class that the group's `type` names with its other keys."""
    rest = dict(values)
    name = rest.pop("type")
    if name not in cls_by_name:
        raise ValueError(
            f"config.{where}.type: must be one of {sorted(cls_by_name)}, got {name!r}."
        )
    return construct(cls_by_name[name], where, rest)
