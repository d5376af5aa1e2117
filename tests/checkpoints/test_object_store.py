import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy

from imagen_jax import partitioning
from imagen_jax.checkpoints import safetensors
from imagen_jax.training import loop
from tests import compiling
from tests.checkpoints import object_store

ROOT = pathlib.Path(__file__).parents[2]
READ = """
import sys
import numpy as np
from etils import epath
from imagen_jax.checkpoints import huggingface, safetensors, store
where = sys.argv[1] + "/checkpoints"
parts = {p: store.load(where, p) for p in ("params", "ema_params")}
log = epath.Path(sys.argv[1], "metrics.jsonl").read_text()
parts["published"] = {"a": huggingface.open_folder(sys.argv[1] + "/t5").read("a")}
np.savez(sys.argv[2], steps=store.steps(where), log=log, **safetensors.flatten(parts))
"""


@pytest.mark.slow
def test_a_workdir_in_an_object_store_is_as_good_as_a_disk(tmp_path):
    """gs:// as TensorStore and gcsfs see it, over HTTP to a server of this process."""
    pytest.importorskip("gcsfs")

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command],
            env=os.environ
            | objects.environment
            | {
                "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                "XLA_FLAGS": compiling.for_devices(2),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    with object_store.running() as objects:
        for steps in ("5", "8"):  # the second start goes on from the first one's end
            run(toy.__file__, "gs://bucket/run", steps, "0")
        published = tmp_path / "model.safetensors"
        safetensors.save(published, {"a": np.arange(300, dtype=np.float16)})
        objects.there["bucket/run/t5/model.safetensors"] = (published.read_bytes(), 1)
        published.unlink()
        run("-c", READ, "gs://bucket/run", str(tmp_path / "read.npz"))
        names = sorted(objects.there)
    assert not [name for name in names if not name.startswith("bucket/run/")]
    here = [path.name for path in tmp_path.iterdir()]
    assert here == ["read.npz"], "it wrote here too"
    found = dict(np.load(tmp_path / "read.npz"))
    assert found.pop("steps").tolist() == [4, 5, 8]
    assert str(found.pop("log")).count("\n") == 8
    parts = safetensors.unflatten(found)
    np.testing.assert_array_equal(parts["published"]["a"], np.arange(300))
    mesh = partitioning.make_mesh({"fsdp": 2}, jax.devices()[:2])
    whole = loop.train(toy.run(mesh), toy.settings(tmp_path / "disk"))
    toy.assert_identical(parts["params"], whole.params)
    toy.assert_identical(parts["ema_params"], whole.ema_params)
