"""CLIP and BERT behind the text encoder's door: all that a config can ask of them."""

import json
import pathlib
import shutil

import flax.errors
import jax
import ml_collections
import numpy as np
import pytest

from imagen_jax import build, converting, embed, export, loading, partitioning
from imagen_jax.cascade import stage
from imagen_jax.checkpoints import model_directory
from imagen_jax.commands import configs
from imagen_jax.planning import programs
from imagen_jax.published import bert, clip
from tests.golden import prompts

GOLDEN = pathlib.Path(__file__).parent / "golden"
KINDS = {"clip": clip, "bert": bert}


def written(kind, folder):
    """A converted text encoder as a model directory, and its config group."""
    model = KINDS[kind].convert([str(GOLDEN / kind)])
    converting.convert(model, folder, dtype="float32", origin={})
    return ml_collections.ConfigDict(model_directory.read(folder).text)


@pytest.fixture(scope="module", params=sorted(KINDS))
def config(request, tmp_path_factory):
    """A tiny stage that is conditioned on a converted encoder."""
    folder = tmp_path_factory.mktemp(request.param)
    c = configs.load("shapes/base")
    c.text = written(request.param, folder)
    c.text.weights = str(folder)
    c.text.tokenizer_file = str(folder / c.text.tokenizer_file)
    return c


def golden(config):
    return np.load(GOLDEN / config.text.tokenizer / "expected.npz")


def test_prompts_become_the_embeddings_of_transformers(config):
    config = config.copy_and_resolve_references()
    config.text.length = 24
    params = build.text_params(config)
    encoder = build.make_text_encoder(config)
    data = golden(config)
    rows = [2, 3] if config.text.tokenizer == "clip" else [3]
    places = {"clip": [1, 2], "bert": [1]}[config.text.tokenizer]
    prefix = "openai/" if config.text.tokenizer == "clip" else ""
    got = encoder(params, [prompts.PROMPTS[row] for row in rows])
    assert got.mask.sum() >= 10
    np.testing.assert_array_equal(got.mask, data["mask"][places])
    wanted = np.where(got.mask[:, :, None], data[f"{prefix}last"][places], 0)
    np.testing.assert_allclose(got.values, wanted, atol=1e-5, rtol=0)


def test_a_stage_takes_the_encoders_width_and_its_loss_uses_it(config):
    module = build.make_stage(config)
    assert isinstance(module, stage.Stage) and module.text_dim == 24
    params = build.shapes_of(module.init)
    frozen = build.text_params(config)
    batch = {
        "image": np.zeros((2, module.resolution, module.resolution, 3), np.uint8),
        "tokens": np.zeros((2, config.text.length), np.int32),
        "mask": np.ones((2, config.text.length), bool),
    }
    losses, _ = jax.eval_shape(module.loss, jax.random.key(0), params, frozen, batch)
    assert losses.shape == (2,)
    with pytest.raises(flax.errors.ScopeCollectionNotFound):
        module.encode({}, batch)


def test_captions_are_embedded_as_the_encoder_does(config, tmp_path):
    texts = {b"a": "a small red cube", b"b": "hello"}
    params = build.text_params(config)
    vectors = embed.make_writer(config, params, 8).vectors(texts)
    want = build.make_text_encoder(config)(params, list(texts.values()))
    for i, name in enumerate(texts):
        wanted = want.values[i][want.mask[i]]
        np.testing.assert_allclose(vectors[name], wanted, atol=1e-5)
    manifest = embed.begin(str(tmp_path), config, "identity", "float32", 10)
    assert (manifest["d_model"], manifest["length"]) == (24, config.text.length)


def test_plans_hold_the_encoder(config):
    mesh = partitioning.make_mesh({"data": 8})
    program = programs.make(config, "encode", mesh, 8)
    ids = program.arguments[1]
    assert ids.shape == (8, config.text.length)
    assert program.parameters == sum(
        leaf.size for leaf in jax.tree.leaves(build.text_params(config))
    )
    values, _ = programs._text_shapes(config, encoded=True)["text_values"]
    assert values == (config.text.length, 24)


def test_an_exported_model_carries_the_tokenizer(config, tmp_path):
    names = export.tokenizer_names(config)
    wanted = {"clip": {"vocab.json", "merges.txt"}, "bert": {"vocab.txt"}}
    assert set(names.values()) == wanted[config.text.tokenizer]
    for file, name in names.items():
        shutil.copyfile(file, tmp_path / name)
    portable = export.portable(config)
    assert portable.text.weights == ""
    assert "/" not in portable.text.tokenizer_file
    params = build.text_params(config)
    model_directory.write(tmp_path, [portable.to_dict()], {"text": params}, "float32")
    model = loading.load(str(tmp_path))
    text = list(prompts.PROMPTS[2:4])
    for a, b in zip(
        model.encoder.tokenizer.encode(text, 24),
        build.make_tokenizer(config).encode(text, 24),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_an_embeddings_identity_changes_with_all_that_makes_it(config, tmp_path):
    params = build.text_params(config)
    seen = {build.text_identity(config, params)}
    other = config.copy_and_resolve_references()
    other.text.encoder.epsilon = 1e-3
    seen.add(build.text_identity(other, params))
    other = config.copy_and_resolve_references()
    option = {"clip": ("pad", "!"), "bert": ("lowercase", False)}
    name, value = option[config.text.tokenizer]
    other.text.tokenizer_options[name] = value
    seen.add(build.text_identity(other, params))
    other = config.copy_and_resolve_references()
    for file in build.tokenizer_files(config):
        shutil.copyfile(file, tmp_path / file.name)
    last = tmp_path / build.tokenizer_files(config)[-1].name
    last.write_bytes(last.read_bytes() + b"\n")
    other.text.tokenizer_file = str(tmp_path / build.tokenizer_files(config)[0].name)
    seen.add(build.text_identity(other, params))
    assert len(seen) == 4


def test_what_a_config_lacks_is_said(config):
    c = config.copy_and_resolve_references()
    c.text.tokenizer_file = ""
    with pytest.raises(ValueError, match=r"config.text.tokenizer_file: required"):
        build.make_tokenizer(c)
    c = config.copy_and_resolve_references()
    c.text.tokenizer_options = {"padd": "!"}
    with pytest.raises(ValueError, match=r"text.tokenizer_options.padd: .* no such"):
        build.make_tokenizer(c)
    c = config.copy_and_resolve_references()
    c.text.encoder.type = "elmo"
    with pytest.raises(ValueError, match=r"must be one of \['bert', 'clip', 't5'\]"):
        build.make_text_module(c)
    c = config.copy_and_resolve_references()
    c.text.encoder.relpos_buckets = 3
    with pytest.raises(ValueError, match=r"text.encoder.relpos_buckets"):
        build.make_text_module(c)
    c = config.copy_and_resolve_references()
    c.text.length = 999
    with pytest.raises(ValueError, match=r"texts may have .* got 999"):
        build.text_params(c)


def test_only_t5_is_pretrained(config):
    c = configs.load("text/byte_t5")
    c.text = config.text
    with pytest.raises(ValueError, match="trained as 't5', got"):
        build.make_text_task(c)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        # OpenAI's text encoder; bert-large-uncased without its pooler's 1,049,600.
        ("imagen/base_64_300m_clip", 123_060_480),
        ("imagen/base_64_300m_bert", 335_141_888 - 1_049_600),
    ],
)
def test_shipped_configs_have_the_published_sizes(name, size):
    c = configs.load(name)
    module = build.make_text_module(c)
    one = build.encoder_init(module.clone(num_layers=1), c.text.length)
    counts = build.count(build.shapes_of(one))
    layer = counts.pop("layers_0")
    assert sum(counts.values()) + module.num_layers * layer == size
    assert json.dumps(c.text.to_dict())
