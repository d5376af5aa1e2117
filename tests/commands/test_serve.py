"""`imagen-jax serve`: what it refuses to start with, prints and writes."""

import argparse

import numpy as np
import pytest
from PIL import Image

from imagen_jax import loading
from imagen_jax.cascade.samples import Samples
from imagen_jax.commands import main, serve
from imagen_jax.serving import app, asking, guard, queue
from tests import tiny_cascade


def args(*argv):
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args([str(a) for a in argv])


@pytest.fixture
def served(monkeypatch):
    """What would be served, in place of serving it."""
    found = []
    monkeypatch.setattr(app, "run", lambda *told: found.append(told))
    monkeypatch.setattr(loading, "load", lambda *_, **__: tiny_cascade.model())
    return found


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--token", "short"], "at least 16"),
        (["--port", 0], "from 1 to 65535"),
        (["--most", 0], "pictures must be >= 1"),
        (["--steps", 0], "steps must be >= 1"),
    ],
)
def test_a_mistake_is_one_line(capsys, served, argv, named):
    status = main.main(["serve", *map(str, argv)])
    lines = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
    assert status == 2 and len(lines) == 1 and named in lines[0]
    assert not served


def test_it_listens_on_this_machine_alone_unless_told(capsys, served):
    assert main.main(["serve"]) == 0
    _, host, port, greeting = served[0]
    assert (host, port) == ("127.0.0.1", 8000)
    assert "http://127.0.0.1:8000/ " in greeting and "token" not in greeting
    assert main.main(["serve", "--host", "0.0.0.0", "--port", "9000"]) == 0
    _, host, port, greeting = served[1]
    token = greeting.split("token=")[1].split()[0]
    assert (host, port) == ("0.0.0.0", 9000) and len(token) >= guard.SHORTEST


def test_nothing_is_written_but_where_it_is_asked_for(tmp_path):
    keep = serve.keeper(str(tmp_path))
    pictures = np.full((1, 8, 8, 3), 7, np.uint8)
    samples = Samples(("a cat",), (pictures,), ("base",))
    for _ in range(2):
        asked = asking.Asked(prompt="a cat")
        keep(queue.Drawing(asked, samples=samples))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00001", "00002"]
    drawn = np.asarray(Image.open(tmp_path / "00002" / "000_base_8.png"))
    np.testing.assert_array_equal(drawn, pictures[0])
