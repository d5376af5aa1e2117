"""The runs of a sweep: which values, which names, which commands; checked first."""

import argparse
import dataclasses
import hashlib
import itertools
import json
import pathlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import training_command
from imagen_jax.commands import configs, train
from shell import LaunchError

LONGEST = 120
LONGEST_SLUG = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One training run of a sweep.

    Attributes:
      name: of its folder: the last words of the keys with their values.
      slug: the same of lower-case letters, digits and hyphens, for schedulers.
      values: key of the config -> value, as the table shows it.
      steps: the step at which it has finished.
      workdir: where its checkpoints and metrics are.
      command: `imagen-jax train ...`.
    """

    name: str
    slug: str
    values: Mapping[str, str]
    steps: int
    workdir: str
    command: Sequence[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which values there are."""
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE,...",
        help="each of these with each of the other keys' values; may be repeated",
    )
    parser.add_argument(
        "--list",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE,...",
        help="the first with the first of other lists, and so on; may be repeated",
    )
    parser.add_argument(
        "--file", help="TOML or JSON with the tables grid and list, and runs"
    )


def choices(args: argparse.Namespace) -> list[dict[str, str]]:
    """The values of every run: the grid times the lists, then single runs of the file.

    Raises:
      LaunchError: for what cannot be read.
    """
    file = read_file(args.file) if args.file else {}
    grid = {**table(file, "grid"), **dict(map(values_of, args.grid))}
    lists = {**table(file, "list"), **dict(map(values_of, args.list))}
    twice = sorted(set(grid) & set(lists))
    if twice:
        raise LaunchError(f"{twice[0]} is in the grid and in a list; keep one.")
    lengths = {key: len(values) for key, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise LaunchError(f"lists must be equally long, got {lengths}.")
    rows = [
        dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)
    ] or [{}]
    found = [
        {**dict(zip(grid, point, strict=True)), **row}
        for point in itertools.product(*grid.values())
        for row in rows
    ]
    found += [
        {key: text(value) for key, value in flat(run).items()}
        for run in file.get("runs", [])
    ]
    found = [run for run in found if run]
    if not found:
        raise LaunchError("no values; give --grid KEY=VALUE,VALUE, --list or --file.")
    return found


def make(args: argparse.Namespace) -> list[Run]:
    """Every run of the sweep, each of whose configs was made once.

    Raises:
      LaunchError: with the config's own words for a wrong key or value, or when two
        runs have one name.
    """
    command = training_command.checked(args.command, processes=1)
    if command[1] != "train":
        raise LaunchError(f"a sweep runs imagen-jax train, not {command[1]}.")
    if training_command.flag(command, "--workdir") is not None:
        raise LaunchError("--workdir is the sweep's to choose; leave it out.")
    all_values = choices(args)
    heads = short_keys({key: None for values in all_values for key in values})
    runs, errors = [], {}
    for values in all_values:
        try:
            runs.append(make_one(command, values, heads, args.out))
        except ValueError as error:
            errors[str(error)] = None
    if errors:
        first, *others = errors
        more = f" ({len(others)} other errors.)" if others else ""
        raise LaunchError(f"{first}{more} Nothing was started.")
    refuse_same(runs)
    return runs


def make_one(
    command: Sequence[str],
    values: Mapping[str, str],
    heads: Mapping[str, str],
    out: str,
) -> Run:
    """One run, its config made as `imagen-jax train` makes it."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    train.add_arguments(parser)
    flags = [f"--config.{key}={value}" for key, value in values.items()]
    known, rest = parser.parse_known_args([*command[2:], "--workdir=", *flags])
    config = configs.load(known.config)
    configs.override(config, rest)
    shown = {key: text(at(config, key)) for key in values}
    name = ",".join(f"{heads[key]}={plain(value)}" for key, value in shown.items())
    name = cut(name, LONGEST)
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    workdir = f"{out.rstrip('/')}/{name}"
    return Run(
        name=name,
        slug=cut(slug if slug[:1].isalpha() else f"run-{slug}", LONGEST_SLUG),
        values=shown,
        steps=int(config.training.steps),
        workdir=workdir,
        command=[*command, "--workdir", workdir, *flags],
    )


def refuse_same(runs: Sequence[Run]) -> None:
    """Raise when two runs would share a folder or a scheduler's name."""
    for what in ("name", "slug"):
        seen: dict[str, Run] = {}
        for run in runs:
            other = seen.setdefault(getattr(run, what), run)
            if other is run:
                continue
            if other.values == run.values:
                raise LaunchError(f"the run {run.name} is there twice; leave one out.")
            raise LaunchError(
                f"two runs would both be called {getattr(run, what)!r}: "
                f"{dict(other.values)} and {dict(run.values)}; change a value."
            )


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """The shortest ends of dotted keys that still tell them apart."""
    keys = list(keys)

    def end(key: str, words: int) -> str:
        return ".".join(key.split(".")[-words:])

    def shortest(key: str) -> str:
        for words in range(1, key.count(".") + 1):
            if [end(other, words) for other in keys].count(end(key, words)) == 1:
                return end(key, words)
        return key

    return {key: shortest(key) for key in keys}


def values_of(setting: str) -> tuple[str, list[str]]:
    """KEY=VALUE,VALUE as key and values; commas inside brackets do not part them."""
    key, equals, rest = setting.partition("=")
    values = re.findall(r"(?:\([^()]*\)|\[[^\[\]]*\]|[^,(\[])+", rest)
    if not equals or not key or not values:
        raise LaunchError(f"must be KEY=VALUE,VALUE,..., got {setting!r}.")
    return key.removeprefix("config."), values


def read_file(name: str) -> dict[str, Any]:
    """A sweep's file."""
    path = pathlib.Path(name)
    try:
        read = path.read_text()
        found = json.loads(read) if path.suffix == ".json" else tomllib.loads(read)
    except (OSError, ValueError) as error:
        raise LaunchError(f"--file {name}: {error}") from None
    unknown = sorted(set(found) - {"grid", "list", "runs"})
    if unknown:
        raise LaunchError(
            f"--file {name}: has grid, list and runs, and no {unknown[0]!r}."
        )
    return found


def table(file: Mapping[str, Any], name: str) -> dict[str, list[str]]:
    """A table of the file: key -> values."""
    found = {}
    for key, values in flat(file.get(name, {})).items():
        if not isinstance(values, list) or not values:
            raise LaunchError(f"--file: {name}.{key} must be a list of values.")
        found[key] = [text(value) for value in values]
    return found


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    found = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def text(value: Any) -> str:
    """A value as a flag of the command takes it."""
    if isinstance(value, list):
        value = tuple(value)
    return value if isinstance(value, str) else repr(value)


def at(config: Any, key: str) -> Any:
    """The value of a dotted key."""
    for word in key.split("."):
        config = config[word]
    return config


def plain(value: str) -> str:
    """A value as a part of a file's name: (1, 2) is 1x2."""
    value = re.sub(r"[()'\"]", "", value).rstrip(",")
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", re.sub(", *", "x", value))


def cut(name: str, longest: int) -> str:
    """A name that is not too long, still its own."""
    if len(name) <= longest:
        return name
    return f"{name[: longest - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
