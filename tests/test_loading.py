"""What loading makes of model directories beyond drawing, which end_to_end/ tests."""

import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import hub, loading
from imagen_jax.checkpoints import model_directory
from imagen_jax.commands import main


def test_kernels_are_kept_in_the_networks_type_and_the_rest_in_float32():
    place = loading.kept("bfloat16")
    half = np.ones((2, 3), np.float16)
    assert place("a/dense/kernel", half).dtype == jnp.bfloat16
    assert place("token_embedder/embedding", half).dtype == jnp.bfloat16
    assert place("a/dense/bias", half).dtype == np.float32
    assert loading.kept(jnp.float32)("a/kernel", half).dtype == np.float32


def test_a_text_encoder_alone_draws_nothing_and_says_so(tmp_path, capsys):
    folder = tmp_path / "t5"
    model_directory.write(folder, [], {}, "float32")
    assert main.main(["sample", "a fox", "--model", str(folder)]) == 2
    assert "text encoder without stages" in capsys.readouterr().err


def test_another_packages_folder_says_that_it_must_be_converted(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no model\.json but model_index\.json"):
        loading.load(str(tmp_path))


def test_a_models_place_is_a_shipped_name_or_a_folder(tmp_path):
    assert (hub.model_folder("emoji") / "model.json").is_file()
    assert hub.model_folder(str(tmp_path)) == tmp_path
    with pytest.raises(ValueError, match=r"neither a shipped model \(emoji\), a dir"):
        hub.model_folder("emojy")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--model", "emoji"], "--model: takes --program sample or encode"),
        (
            ["--model", "emoji", "--program", "sample", "--stage", "sr_9"],
            "must be one of ['base', 'sr_64', 'sr_256']",
        ),
    ],
)
def test_a_plan_of_a_model_names_its_stages(argv, line, capsys):
    assert main.main(["plan", "--topology", "v5e:1x1", *argv]) == 2
    assert line in capsys.readouterr().err
