"""The notebooks of docs/colab run from top to bottom, at small size."""

import importlib.util
import os
import pathlib
import re
import shutil

import flax.linen as nn
import jax
import nbformat
import pytest

from imagen_jax import build, hub
from imagen_jax.checkpoints import model_directory
from imagen_jax.commands import configs
from tests import compiling

DOCS = pathlib.Path(__file__).parents[2] / "docs"
NOTEBOOKS = sorted((DOCS / "colab").glob("*.ipynb"))
TOKENIZER = hub.PUBLISHED / "emoji" / "spiece.model"
STAGES = {
    "emoji/base": (
        "--config.network.channels=16",
        "--config.network.channel_mult=(1,)",
        "--config.network.attention_levels=(0,)",
        "--config.network.feed_forward=(0,)",
        "--config.network.text_map=0",
        "--config.network.head_dim=16",
    ),
    "emoji/sr_64": (
        "--config.network.channels=(8, 8)",
        "--config.network.num_res_blocks=(1, 1)",
        "--config.network.attention=('none', 'text')",
        "--config.network.feed_forward=0",
        "--config.network.text_map=0",
        "--config.network.heads=1",
    ),
    "emoji/sr_256": (
        "--config.network.channels=(8, 8)",
        "--config.network.num_res_blocks=(1, 1)",
        "--config.network.heads=1",
        "--config.sampling.steps=1",
    ),
}


def runner():
    spec = importlib.util.spec_from_file_location(
        "run_notebooks", DOCS / "run_notebooks.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


def pictures(notebook):
    outputs = [o for c in code(notebook) for o in c.outputs]
    return [o for o in outputs if "image/png" in o.get("data", {})]


def printed(notebook):
    return "".join(o.get("text", "") for c in code(notebook) for o in c.outputs)


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
    # The kernel compiles nothing that another one has compiled before.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(noise.parent / "compiled"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("IMAGEN_JAX_TYPECHECK", "0")
    monkeypatch.setenv("XLA_FLAGS", compiling.for_devices(1))
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    monkeypatch.setenv("PATH", os.environ["PATH"])  # Which the runner adds to.
    notebook = runner().execute(path, tmp_path)
    assert pictures(notebook)
    assert "SMALL" in printed(notebook) and "False" not in printed(notebook)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_carries_its_pictures_of_the_full_size(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code(notebook)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert len(pictures(notebook)) >= 4
    assert "full size" in printed(notebook) and "False" not in printed(notebook)
    assert path.stat().st_size < 1.2e6


def test_all_notebooks_begin_with_the_same_installation_but_for_extras():
    firsts = {
        re.sub(r"EXTRA = .*", "", code(nbformat.read(path, as_version=4))[0].source)
        for path in NOTEBOOKS
    }
    assert len(firsts) == 1
