import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from imagen_jax import partitioning
from imagen_jax.checkpoints import safetensors
from imagen_jax.models import clip
from imagen_jax.published import clip as published
from imagen_jax.published import clip_pictures

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "clip"
CONFIGS = {"openai": "config.json", "openclip": "config_openclip.json"}
PENULTIMATE = {"layer": "penultimate", "final_norm": False}


def config(kind):
    return json.loads((FOLDER / CONFIGS[kind]).read_text())


@pytest.fixture(scope="module")
def expected():
    return np.load(FOLDER / "expected.npz")


@pytest.fixture(scope="module")
def inputs(expected):
    return expected["ids"].astype(np.int32), expected["mask"]


@pytest.fixture(scope="module")
def text_params():
    return published.load_text_tower(str(FOLDER))[1]


@pytest.fixture(scope="module")
def image_params():
    return published.load_image_tower(str(FOLDER))[1]


@pytest.fixture(scope="module")
def results(inputs, text_params):
    """All that is read of the text tower, as one program a kind."""

    def made(kind):
        tower = published.text_tower(config(kind))

        def apply(params, ids, mask):
            def encode(mask=mask, **fields):
                module = tower.text.clone(**fields)
                return module.apply({"params": params["text"]}, ids, mask)

            pooled, text = tower.apply({"params": params}, ids, mask)
            found = {"pooled": pooled, "text": text, "last": encode()}
            if kind != "openai":
                return found
            return found | {
                "penultimate": encode(**PENULTIMATE),
                "penultimate_normed": encode(layer="penultimate"),
                "unmasked": encode(jnp.ones_like(mask)),
            }

        return jax.jit(apply)(text_params, *inputs)

    return {kind: made(kind) for kind in CONFIGS}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(
            ("openai", name)
            for name in ("penultimate", "penultimate_normed", "unmasked")
        ),
        *((kind, name) for kind in CONFIGS for name in ("last", "pooled", "text")),
    ],
)
def test_texts_equal_transformers(results, expected, inputs, kind, name):
    # tests/golden/make_clip.py says how the file was made. float32 sums in another
    # order on values of size 1: 1e-5.
    wanted, got = expected[f"{kind}/{name}"], results[kind][name]
    assert np.abs(wanted).max() > 1 and got.dtype == jnp.float32
    mask = inputs[1]
    if name in ("last", "penultimate", "penultimate_normed"):
        wanted, got = wanted[mask], got[mask]
    np.testing.assert_allclose(got, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_images_equal_transformers(image_params, expected, kind):
    module = published.image_tower(config(kind))
    got = jax.jit(module.apply)({"params": image_params}, expected["images"])
    wanted = expected[f"{kind}/image"]
    assert np.abs(wanted).max() > 1
    np.testing.assert_allclose(got, wanted, atol=1e-5, rtol=0)


def test_the_two_kinds_and_the_layers_differ(expected):
    for name in ("last", "text", "image"):
        difference = expected[f"openai/{name}"] - expected[f"openclip/{name}"]
        assert np.abs(difference).max() > 1e-3
    names = ["last", "penultimate", "penultimate_normed"]
    layers = [expected[f"openai/{name}"] for name in names]
    for i, one in enumerate(layers):
        assert all(np.abs(one - other).max() > 1e-2 for other in layers[:i])


def test_eos_is_found_by_its_id_or_as_the_largest(text_params):
    tower = published.text_tower(config("openai"))
    assert tower.eos_id is None
    tower = tower.clone(text=tower.text.clone(num_layers=0))
    text = {k: v for k, v in text_params["text"].items() if "layers" not in k}
    params = {**text_params, "text": text}
    # Padding after eos = 6: larger than it, itself, and smaller.
    ids = np.array([[4, 5, 6, 7, 7], [4, 6, 6, 6, 6], [4, 5, 5, 6, 0]])
    mask = np.ones(ids.shape, bool)

    @jax.jit
    def apply():
        hidden = tower.text.apply({"params": text}, ids, mask)
        towers = tower.clone(eos_id=6), tower
        return hidden, *(t.apply({"params": params}, ids, mask)[0] for t in towers)

    hidden, by_id, largest = apply()
    rows = np.arange(3)
    np.testing.assert_array_equal(by_id, hidden[rows, np.array([2, 1, 3])])
    np.testing.assert_array_equal(largest, hidden[rows, np.array([3, 1, 3])])


def test_no_token_sees_a_later_one(results, inputs, text_params):
    ids, _ = inputs
    encode = jax.jit(published.text_module(config("openai")).apply)
    full = np.ones(ids.shape, bool)
    changed = ids.copy()
    changed[:, 10] = (ids[:, 10] + 7) % 500
    got = encode({"params": text_params["text"]}, changed, full)
    before = results["openai"]["unmasked"]
    np.testing.assert_allclose(got[:, :10], before[:, :10], atol=1e-6)
    assert (np.abs(got[:, 10:] - before[:, 10:]).max((0, 2)) > 1e-3).all()
    # A wholly masked text stays finite.
    nothing = encode({"params": text_params["text"]}, ids, ~full)
    assert np.isfinite(nothing).all()


def test_every_choice_of_layer_has_the_same_parameters(text_params):
    module = published.text_module(config("openai"))
    shapes = jax.tree.map(np.shape, text_params["text"])
    ids = np.zeros((1, 3), np.int32)
    init = module.clone(**PENULTIMATE).init
    tree = jax.eval_shape(init, jax.random.key(0), ids, ids == 0)["params"]
    assert jax.tree.map(lambda a: a.shape, partitioning.unbox(tree)) == shapes


def test_parameters_are_sharded_by_their_axes():
    mesh = partitioning.make_mesh({"fsdp": 4, "tensor": 2})
    text = published.text_tower(config("openai"))
    ids = np.zeros((1, 3), np.int32)
    boxed = jax.eval_shape(text.init, jax.random.key(0), ids, ids == 0)["params"]
    found = safetensors.flatten(partitioning.param_shardings(mesh, boxed))
    specs = {name: sharding.spec for name, sharding in found.items()}
    layer = "text/layers_0"
    assert specs["text/token_embedder/embedding"] == P("tensor", "fsdp")
    assert specs["text/position_embedding"] == P(None, "fsdp")
    assert specs["projection/kernel"] == P("fsdp", "tensor")
    for name in ("attention/query", "attention/key", "attention/value", "mlp/wi"):
        assert specs[f"{layer}/{name}/kernel"] == P("fsdp", "tensor")
    for name in ("attention/out", "mlp/wo"):
        assert specs[f"{layer}/{name}/kernel"] == P("tensor", "fsdp")
    image = published.image_tower(config("openai"))
    pictures = np.zeros((1, 24, 24, 3), np.float32)
    boxed = jax.eval_shape(image.init, jax.random.key(0), pictures)["params"]
    found = safetensors.flatten(partitioning.param_shardings(mesh, boxed))
    assert found["patches/kernel"].spec == P(None, "fsdp")
    assert found["layers_1/mlp/wi/kernel"].spec == P("fsdp", "tensor")


def test_a_mesh_encodes_alike(inputs, text_params, results):
    ids, mask = (np.concatenate([a, a[:3]]) for a in inputs)
    module = published.text_module(config("openai"))
    boxed = jax.eval_shape(module.init, jax.random.key(0), ids, mask)["params"]
    mesh = partitioning.make_mesh({"fsdp": 4, "tensor": 2})
    placed = partitioning.place_params(mesh, boxed, text_params["text"])
    kernel = placed["layers_0"]["mlp"]["wi"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (6, 20)
    with partitioning.use(mesh):
        got = jax.jit(lambda p: module.apply({"params": p}, ids, mask))(placed)
    np.testing.assert_allclose(got[:5], results["openai"]["last"], atol=1e-5)


def test_bfloat16_activations_give_a_float32_result(inputs, text_params, results):
    module = published.text_module(config("openai")).clone(dtype="bfloat16")
    got = jax.jit(module.apply)({"params": text_params["text"]}, *inputs)
    assert got.dtype == jnp.float32
    mask = inputs[1]
    # bfloat16 has 8 bits; values are of size 1 after the last norm.
    np.testing.assert_allclose(
        got[mask], results["openai"]["last"][mask], atol=0.2, rtol=0
    )
    assert np.abs(got[mask] - results["openai"]["last"][mask]).mean() < 0.02


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer": "first"}, "layer must be"),
        ({"activation": "relu"}, "activation must be one of"),
        ({"num_heads": 5}, "multiple of num_heads, got 24 and 5"),
        ({"max_length": 2}, "texts may have 2 tokens"),
    ],
)
def test_what_cannot_be_made_is_said(fields, message):
    module = published.text_module(config("openai")).clone(**fields)
    ids = np.zeros((1, 3), np.int32)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(module.init, jax.random.key(0), ids, ids == 0)


def test_other_pictures_and_layers_are_refused():
    image = published.image_tower(config("openai"))
    with pytest.raises(ValueError, match=r"must be 24 x 24.* got 24 x 32"):
        jax.eval_shape(image.init, jax.random.key(0), np.zeros((1, 24, 32, 3)))
    tower = published.text_tower(config("openai"))
    tower = tower.clone(text=tower.text.clone(**PENULTIMATE))
    ids = np.zeros((1, 3), np.int32)
    with pytest.raises(ValueError, match=r"text.layer must be 'last'"):
        jax.eval_shape(tower.init, jax.random.key(0), ids, ids == 0)


@pytest.mark.parametrize("name", ["tall", "small"])
def test_pictures_are_prepared_as_by_transformers(expected, name):
    picture = expected[f"{name}/picture"].astype(np.float32) / 127.5 - 1
    prepare = clip_pictures.preprocessing(str(FOLDER))
    got = prepare(picture[None])[0]
    wanted = expected[f"{name}/pixels"]
    assert got.shape == wanted.shape == (24, 24, 3)
    # Pixel values are whole after each of the two passes there, not here: one of 255 at
    # most.
    error = np.abs(got - wanted) * np.array(prepare.std) * 255
    assert error.max() < 1.05 and error.mean() < 0.4


def test_a_picture_of_the_size_is_only_normalised():
    prepare = clip.Preprocessing(resize=8, crop=8)
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 3)).astype(np.float32)
    wanted = (picture / 2 + 0.5 - np.array(prepare.mean)) / np.array(prepare.std)
    np.testing.assert_allclose(prepare(picture), wanted, atol=1e-6)
    middle = dataclasses.replace(prepare, crop=4)(picture)
    np.testing.assert_allclose(middle, wanted[:, 2:6, 2:6], atol=1e-6)
    with pytest.raises(ValueError, match="crop must be between 1 and resize = 8"):
        clip.Preprocessing(resize=8, crop=9)
