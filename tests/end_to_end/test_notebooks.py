"""The notebooks of docs/colab run from top to bottom, at small size."""

import importlib.util
import json
import pathlib
import re
import shutil

import flax.linen as nn
import jax
import pytest

from imagen_jax import build, hub
from imagen_jax.checkpoints import model_directory
from imagen_jax.commands import configs

DOCS = pathlib.Path(__file__).parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "colab").glob("*.ipynb"))
TOKENIZER = hub.PUBLISHED / "emoji" / "spiece.model"
STAGES = {
    "emoji/base": ("--config.network.channels=16", "--config.network.head_dim=16"),
    "emoji/sr_64": ("--config.network.channels=(8, 8)", "--config.network.heads=1"),
    "emoji/sr_256": ("--config.sampling.steps=1",),
}


def runner():
    spec = importlib.util.spec_from_file_location(
        "run_notebooks", DOCS / "run_notebooks.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path):
    return json.loads(path.read_text())


def code(notebook):
    return [c for c in notebook["cells"] if c["cell_type"] == "code"]


def pictures(notebook):
    outputs = [o for c in code(notebook) for o in c["outputs"]]
    return [o for o in outputs if "image/png" in o.get("data", {})]


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A cascade like the emoji's, with small networks that nobody trained."""
    found, trees = [], {}
    for name, small in STAGES.items():
        config = configs.load(name)
        configs.override(config, small)
        config.text.sentencepiece = str(TOKENIZER)
        init = build.make_stage(config).init
        trees[config.name] = nn.unbox(jax.jit(init)(jax.random.key(0)))
        found.append(config)
    text = build.make_text_encoder(found[0])
    trees["text"] = nn.unbox(jax.jit(text.init)(jax.random.key(0)))
    folder = tmp_path_factory.mktemp("noise")
    shutil.copy(TOKENIZER, folder)
    for config in found:
        config.text.sentencepiece = TOKENIZER.name
    model_directory.write(folder, [c.to_dict() for c in found], trees, "float32")
    return folder


def test_there_are_four():
    assert [path.stem for path in NOTEBOOKS] == [
        "editing",
        "guidance_and_thresholding",
        "sampling",
        "training_a_small_cascade",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, noise, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEN_JAX_SMALL", "1")
    monkeypatch.setenv("IMAGEN_JAX_MODEL", str(noise))
    monkeypatch.chdir(tmp_path)
    notebook = read(path)
    runner().execute(notebook)
    assert pictures(notebook)
    printed = "".join(
        line for c in code(notebook) for o in c["outputs"] for line in o.get("text", ())
    )
    assert "SMALL" in printed and "False" not in printed


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_carries_its_pictures_of_the_full_size(path):
    notebook = read(path)
    cells = code(notebook)
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    assert len(pictures(notebook)) >= 4
    assert "SMALL" not in json.dumps(cells[1]["outputs"])
    assert path.stat().st_size < 1.2e6


def test_all_notebooks_begin_with_the_same_installation_but_for_extras():
    firsts = {
        re.sub(r"EXTRAS = .*", "", "".join(code(read(path))[0]["source"]))
        for path in NOTEBOOKS
    }
    assert len(firsts) == 1


def test_the_runner_keeps_order_and_values():
    outputs = runner().outputs_of("print('a')\ndisplay(1)\nprint('b')\n2", {})
    assert [o.get("text") or o["data"]["text/plain"] for o in outputs] == [
        ["a\n"],
        ["1"],
        ["b\n"],
        ["2"],
    ]


def test_the_runner_reports_a_command_that_fails():
    with pytest.raises(RuntimeError, match=r"failed: ls a\b[^}]*7$"):
        runner().outputs_of("x = 7\n!ls a \\\n  {x}\nx = 8", {})
