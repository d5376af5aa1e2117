"""Find an experiment's config by name, and override its keys from the command line."""

import ast
import difflib
import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections


def directory() -> pathlib.Path:
    """Where the shipped configs lie: in the wheel, or beside an editable package."""
    package = pathlib.Path(__file__).parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return folder
    raise ValueError(f"configs: no folder beside {package}; reinstall imagen_jax.")


def names() -> list[str]:
    """Every shipped config, as `--config` takes it."""
    root = directory()
    found = (p.relative_to(root).with_suffix("") for p in root.rglob("*.py"))
    return sorted(p.as_posix() for p in found if not p.name.startswith("_"))


def load(name: str) -> Any:
    """The config of a shipped experiment ("emoji/base") or of a Python file.

    Raises:
      ValueError: when there is none, naming the nearest.
    """
    path = pathlib.Path(name)
    if path.suffix != ".py":
        path = directory() / f"{name}.py"
    if not path.is_file() or path.stem.startswith("_"):
        raise ValueError(
            f"--config: no config {name!r}.{nearest(name, names())} "
            "Give a name or the path of a Python file with get_config()."
        )
    spec = importlib.util.spec_from_file_location("imagen_jax_config", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"--config: {path} must define get_config().")
    return module.get_config()


def override(config: Any, flags: Sequence[str]) -> None:
    """Apply flags of the form `--config.key.subkey=value` in place.

    Raises:
      ValueError: for another flag, an unknown key (naming the nearest) or a value of
        another type.
    """
    for flag in flags:
        if not flag.startswith("--config.") or "=" not in flag:
            raise ValueError(
                f"unknown argument {flag!r}; a config key is overridden as "
                "--config.key=value."
            )
        key, text = flag.removeprefix("--config.").split("=", 1)
        *parents, last = key.split(".")
        node = config
        for name in parents:
            node = node.get(name) if isinstance(node, ml_collections.ConfigDict) else 0
        if not isinstance(node, ml_collections.ConfigDict) or last not in node:
            raise ValueError(
                f"--config.{key}: no such key.{nearest(key, flat_keys(config))}"
            )
        if isinstance(node[last], ml_collections.ConfigDict):
            raise ValueError(f"--config.{key}: a group; set one of its keys instead.")
        node[last] = parse(f"--config.{key}", text, node[last])


def parse(flag: str, text: str, old: Any) -> Any:
    """Read `text` as a value of the type of `old`."""
    if isinstance(old, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(old, float) and isinstance(value, int) and value is not True:
        value = float(value)
    if isinstance(old, tuple | list) and isinstance(value, tuple | list):
        value = tuple(value)
    elif old is not None and type(value) is not type(old):
        raise ValueError(f"{flag}: must be {type(old).__name__}, got {text!r}.")
    return value


def flat_keys(config: Any, prefix: str = "") -> list[str]:
    """Every key that can be set, dotted."""
    keys = []
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            keys += flat_keys(value, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def nearest(name: str, known: Sequence[str]) -> str:
    """A sentence that proposes the most similar known name, or nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f" Did you mean {close[0]!r}?" if close else ""
