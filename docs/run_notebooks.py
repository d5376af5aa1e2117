"""Run the notebooks of docs/colab from top to bottom and write their outputs back.

    pip install nbclient ipykernel
    python docs/run_notebooks.py docs/colab/sampling.ipynb

They run in a folder of their own that is deleted afterwards. The saved ones were run
at full size with the emoji model; with IMAGEN_JAX_SMALL=1 and IMAGEN_JAX_MODEL=FOLDER
they take the fewest steps and that model.
"""

import base64
import io
import os
import pathlib
import sys
import tempfile

import nbclient
import nbformat
from PIL import Image


def execute(path: pathlib.Path, folder: pathlib.Path) -> nbformat.NotebookNode:
    """Run all cells in a Jupyter kernel that works in `folder`.

    Raises:
      nbclient.exceptions.CellExecutionError: with what the cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    # Lines with `!` find this environment's commands.
    here = pathlib.Path(sys.executable).parent
    os.environ["PATH"] = os.pathsep.join([str(here), os.environ["PATH"]])
    where = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(
        notebook, timeout=3600, resources=where, coalesce_streams=True
    ).execute()
    notebook.metadata = {
        "kernelspec": notebook.metadata.kernelspec,
        "language_info": {"name": "python"},
    }
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Keep what a reader wants: no progress bars, no times of cells, small pictures."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        for output in cell.get("outputs", ()):
            if "text" in output:
                lines = output.text.replace("\r\n", "\n").split("\n")
                output.text = "\n".join(line.split("\r")[-1] for line in lines)
            data = output.get("data", {})
            data.pop("image/jpeg", None)  # The same picture once more.
            if "image/png" in data:
                data["image/png"] = fewer_colours(data["image/png"])


def fewer_colours(encoded: str) -> str:
    """A still PNG in base64 with 256 colours; an animation as it is."""
    png = base64.b64decode(encoded)
    picture = Image.open(io.BytesIO(png))
    if getattr(picture, "n_frames", 1) > 1:
        return encoded
    found = io.BytesIO()
    few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(found, "PNG", optimize=True)
    return base64.b64encode(min(png, found.getvalue(), key=len)).decode()


def main() -> None:
    """Run the notebooks named on the command line."""
    for path in map(pathlib.Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(path, pathlib.Path(folder))
        tidy(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
