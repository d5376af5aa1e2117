"""The order of the house: lower floors never know upper ones (docs/architecture.md)."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "imagen_jax"

# Which rooms a room may import. A room not listed here is an error: give it a place.
GROUND = {"types", "pytrees", "conditioning"}
WINGS = GROUND | {"diffusion", "models"}
SECOND = {"partitioning", "text", "checkpoints"}
ALLOWED = {
    "types": set(),
    "pytrees": set(),
    "chips": set(),
    "constructing": set(),
    "distributed": set(),
    "hub": set(),
    "conditioning": {"types", "pytrees"},
    "diffusion": GROUND,
    "models": GROUND,
    "partitioning": WINGS,
    "text": WINGS,
    "checkpoints": GROUND,
    "cascade": WINGS | SECOND,
    "data": {"types", "text"},
    "published": WINGS | SECOND | {"cascade", "data"},
    "training": WINGS | SECOND | {"cascade", "data", "chips"},
    "evaluation": WINGS | SECOND | {"cascade", "data", "training"},
    "build": WINGS
    | SECOND
    | {"cascade", "data", "published", "training", "evaluation", "constructing"}
    | {"hub", "tokenizers"},
    "tokenizers": {"text", "constructing"},
    "converting": {"checkpoints", "published"},
    "loading": WINGS | SECOND | {"cascade", "data", "evaluation", "build", "hub"},
    "export": WINGS
    | SECOND
    | {"cascade", "data", "evaluation", "build", "hub", "loading"},
    "embed": WINGS | SECOND | {"data", "build", "chips"},
    "planning": WINGS | SECOND | {"cascade", "training", "build", "chips"},
    "benchmark": WINGS | SECOND | {"chips", "training", "build", "planning"},
    "acceptance": WINGS
    | SECOND
    | {"cascade", "evaluation", "build", "hub", "loading", "benchmark", "commands"}
    | {"distributed"},
    "serving": {"cascade", "diffusion"},
    "commands": WINGS
    | SECOND
    | {"cascade", "data", "published", "training", "evaluation", "build"}
    | {"loading", "export", "embed", "planning", "benchmark", "distributed", "chips"}
    | {"converting", "hub"}
    | {"acceptance", "serving"},
    "__init__": {"loading"},
    "__main__": {"commands"},
}
# Only these modules of a room may be imported by the rooms named.
NARROW = {("data", "text"): {"tokenizer"}, ("evaluation", "training"): {"state"}}
FORBIDDEN = {
    "diffusion": {"flax", "optax", "orbax", "seqio", "tensorflow"},
    "models": {"optax", "orbax", "seqio", "tensorflow"},
    "checkpoints": {"flax", "optax", "seqio", "tensorflow"},
}
LAZY = {
    "tensorflow",
    "seqio",
    "tensorflow_datasets",
    "clu",
    "grain",
    "tensorboardX",
    "wandb",
    "huggingface_hub",
}
LAZY_ROOMS = {"data", "training"}
# A library that belongs to one room alone.
OWNED = {"huggingface_hub": {"hub"}, "aiohttp": {"serving"}}


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: pathlib.Path) -> list[tuple[str, bool]]:
    """(dotted name, whether it stands at the top level of the module)."""
    tree = ast.parse(path.read_text())
    found = []
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            found += [(alias.name, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found += [(f"{node.module}.{alias.name}", top) for alias in node.names]
    return found


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_room_imports_only_lower_floors(path):
    room = room_of(path)
    assert room in ALLOWED, f"{room} has no floor; see docs/architecture.md"
    for name, _ in imports_of(path):
        parts = name.split(".")
        if parts[0] != "imagen_jax" or len(parts) < 2 or parts[1] == "__version__":
            continue
        other = parts[1]
        if other == room:
            continue
        assert other in ALLOWED[room], f"{room} must not import {name}"
        narrow = NARROW.get((room, other))
        if narrow:
            assert parts[2] in narrow, f"{room} may import only {narrow} of {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_third_parties_stay_in_their_rooms(path):
    room = room_of(path)
    for name, top in imports_of(path):
        library = name.split(".")[0]
        assert library not in FORBIDDEN.get(room, ()), f"{room} must not use {library}"
        rooms = OWNED.get(library, LAZY_ROOMS if library in LAZY else {room})
        assert room in rooms, f"{library} belongs to {rooms}"
        if library in LAZY:
            assert not top, f"{path}: import {library} inside the function using it"


def test_the_server_is_imported_by_its_command_alone_and_there_lazily():
    """Its library is an extra: nothing else may need it."""
    for path in MODULES:
        if room_of(path) != "serving":
            for name, top in imports_of(path):
                if name.startswith("imagen_jax.serving"):
                    assert path.name == "serve.py" and not top, path


def test_only_layers_knows_partitioning():
    for path in (PACKAGE / "models").glob("*.py"):
        if path.name != "layers.py":
            text = path.read_text()
            assert "with_logical" not in text and "PartitionSpec" not in text, path


def test_pytrees_are_registered_so_that_their_classes_differ():
    for path in MODULES:
        if path.name != "pytrees.py":
            text = path.read_text()
            assert "tree_util.register" not in text, f"{path}: use imagen_jax.pytrees"
            assert not any(n.startswith("flax.struct") for n, _ in imports_of(path))


def test_no_module_is_called_utils():
    banned = {"utils", "helpers", "base", "common", "misc"}
    assert not [p for p in MODULES if p.stem in banned]


def test_rooms_have_empty_doors():
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent != PACKAGE:
            assert path.read_text() == "", f"{path} must be empty"


def test_files_and_functions_keep_their_size():
    for path in MODULES:
        source = path.read_text()
        assert source.count("\n") <= 500, f"{path} is over 500 lines"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                wall = 160 if (path.name, node.name) == ("loop.py", "train") else 80
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= wall, f"{path}:{node.lineno} {node.name}: {length}"
