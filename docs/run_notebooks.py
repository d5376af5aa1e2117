"""Run the notebooks of docs/colab from top to bottom and write their outputs back.

    python docs/run_notebooks.py docs/colab/sampling.ipynb

This needs no Jupyter. It knows what these notebooks use: the value of a cell's last
line and `display`, as text or as a PNG; what is printed; and lines `!imagen-jax ...`,
whose {names} are filled in, and which run in this process.
"""

import ast
import contextlib
import io
import json
import pathlib
import re
import shlex
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from PIL import Image

Output = dict[str, Any]
COMMAND = re.compile(r"^!((?:.*\\\n)*.*)", re.MULTILINE)


def execute(notebook: Mapping[str, Any]) -> None:
    """Run all code cells, one after the other, and give them what they put out.

    Args:
      notebook: as JSON has it (nbformat 4), changed in place.

    Raises:
      Whatever a cell raises, and RuntimeError if a command fails.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(code, start=1):
        cell["outputs"] = outputs_of("".join(cell["source"]), names)
        cell["execution_count"] = count


def outputs_of(source: str, names: dict[str, Any]) -> list[Output]:
    """Run one cell with these global names; what it put out, as nbformat has it."""
    found: list[Output] = []
    printed = io.StringIO()

    def flush():
        if text := printed.getvalue():
            lines = text.splitlines(keepends=True)
            found.append({"output_type": "stream", "name": "stdout", "text": lines})
        printed.seek(0)
        printed.truncate()

    def display(*values):
        flush()
        for value in values:
            found.append({"output_type": "display_data", **shown(value)})

    def command(line: str):
        from imagen_jax.commands import main

        program, *argv = shlex.split(line.replace("\\\n", " "))
        if program != "imagen-jax" or main.main(argv):
            raise RuntimeError(f"run_notebooks: failed: {line}")

    names |= {"display": display, "_command": command}
    # As an f-string, so that {names} are filled in.
    tree = ast.parse(COMMAND.sub(lambda m: f"_command(f{m[1]!r})", source))
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        tree.body.pop()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        if value is not None:
            display(value)
    flush()
    return found


def shown(value: Any) -> Output:
    """A value as a notebook shows it: its picture, if it has one."""
    png = getattr(value, "_repr_png_", lambda: None)()
    data: Output = {"text/plain": [f"<{type(value).__name__}>" if png else repr(value)]}
    if png:
        data["image/png"] = b64encode(png).decode()
    return {"data": data, "metadata": {}}


def fewer_colours(notebook: Mapping[str, Any]) -> None:
    """Keep still pictures with 256 colours, small enough for a repository."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = b64encode(smaller(data["image/png"])).decode()


def smaller(encoded: str) -> bytes:
    """The PNG of a base64 string with 256 colours; an animation as it is."""
    png = b64decode(encoded)
    picture = Image.open(io.BytesIO(png))
    if getattr(picture, "n_frames", 1) > 1:
        return png
    found = io.BytesIO()
    few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(found, "PNG", optimize=True)
    return min(png, found.getvalue(), key=len)


def main() -> None:
    """Run the notebooks named on the command line."""
    for path in map(pathlib.Path, sys.argv[1:]):
        notebook = json.loads(path.read_text())
        execute(notebook)
        fewer_colours(notebook)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
