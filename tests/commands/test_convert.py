"""The command on small models in the formats of the published ones."""

import json

import jax
import ml_collections
import numpy as np
import pytest

from imagen_jax import build, loading
from imagen_jax.checkpoints import model_directory, safetensors
from imagen_jax.commands import main
from tests import deepfloyd
from tests.published import test_deepfloyd, test_published_t5


def run(capsys, *argv):
    status = main.main(["convert", *map(str, argv)])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return captured


def text_of(folder):
    """The encoder of a directory without stages: (module, parameters)."""
    config = ml_collections.ConfigDict({"text": model_directory.read(folder).text})
    module = build.make_text_module(config)
    shapes = build.shapes_of(build.encoder_init(module, config.text.length))
    return module, model_directory.parameters(folder, "text")(shapes)


@pytest.mark.parametrize("kind", ["byt5", "t5"])
def test_a_converted_t5_is_transformers_encoder(tmp_path, capsys, kind):
    case = {"byt5": "byt5", "t5": "v1_0"}[kind]
    folder, out = tmp_path / "theirs", tmp_path / "ours"
    test_published_t5.write_folder(folder, case)
    (folder / "spiece.model").write_bytes(b"not looked into by converting")
    args = ("--from", kind, folder, "--to", out, "--dtype", "float32")
    run(capsys, *args, "--option", "dtype=float32", "--option", "length=9")
    assert model_directory.read(out).text["length"] == 9
    module, params = text_of(out)
    golden = test_published_t5.golden(case)
    ids, mask, expected = (golden[n] for n in ("ids", "mask", "output"))
    got = jax.jit(module.apply)({"params": params}, ids, mask)
    np.testing.assert_allclose(got[mask], expected[mask], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Both stages of a small DeepFloyd IF, the first with its text encoder."""
    root = tmp_path_factory.mktemp("if")
    for number in "12":
        folder, about = root / number, deepfloyd.ABOUT
        test_deepfloyd.write(folder / "unet", "config.json", about["unets"][number])
        plan = {"_class_name": "DDPMScheduler", **about["schedulers"][number]}
        for place in ("scheduler", "image_noising_scheduler"):
            test_deepfloyd.write(folder / place, "scheduler_config.json", plan)
        source = deepfloyd.Named(number)
        arrays = {name: source.read(name) for name in source.names()}
        file = folder / "unet" / "diffusion_pytorch_model.safetensors"
        safetensors.save(file, arrays)
    encoder = root / "1" / "text_encoder"
    test_deepfloyd.write(encoder, "config.json", test_deepfloyd.TEXT_ENCODER)
    test_deepfloyd.write_text_encoder(encoder / "model.safetensors")
    return [str(root / "1"), str(root / "2")]


def test_deepfloyd_if_becomes_a_cascade_with_its_licence(stages, tmp_path, capsys):
    out = tmp_path / "if"
    told = run(capsys, "--from", "deepfloyd", *stages, "--to", out)
    assert "may not redistribute" in told.err and "imagen-jax sample" in told.out
    assert "may not redistribute" in (out / "NOTICE").read_text()
    names = [stage["name"] for stage in model_directory.read(out).stages]
    origin = json.loads((out / "manifest.json").read_text())["origin"]
    assert origin["files"].keys() == {"text", *names}
    model = loading.load(str(out))
    assert [stage.name for stage in model.cascade.stages] == names
    for number, read in zip("12", model.params, strict=True):
        got = safetensors.flatten(read())
        for name, want in safetensors.flatten(deepfloyd.params(number)).items():
            np.testing.assert_allclose(
                np.asarray(got[name], np.float32), want, rtol=2**-8, err_msg=name
            )


def test_a_dry_run_of_deepfloyd_if_says_where_every_tensor_goes(
    stages, tmp_path, capsys
):
    out = tmp_path / "if"
    told = run(capsys, "--from", "deepfloyd", *stages, "--to", out, "--dry_run")
    assert "may not redistribute" in told.err and not out.exists()
    for number in "12":
        for name in deepfloyd.Named(number).names():
            assert f" {name} [" in told.out
