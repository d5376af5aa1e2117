import functools
import json
import pathlib

import flax.serialization
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import safetensors.numpy

from imagen_jax import build, partitioning
from imagen_jax.checkpoints import model_directory, tensors
from imagen_jax.checkpoints import safetensors as our_safetensors
from imagen_jax.models import t5
from imagen_jax.published import placing
from imagen_jax.published import t5 as published
from imagen_jax.text import tokenizer
from tests.published import t5_precision

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "t5_published.npz"
CASES = ("v1_1", "v1_0", "byt5")


@functools.cache
def golden(case):
    data = np.load(GOLDEN)
    return {k.removeprefix(f"{case}/"): data[k] for k in data if k.startswith(case)}


def tensors_of(case):
    found = golden(case)
    prefix = "tensor/"
    return {k.removeprefix(prefix): a for k, a in found.items() if prefix in k}


def write_folder(folder, case, arrays=None, **changes):
    folder.mkdir(exist_ok=True)
    config = json.loads(str(golden(case)["config"])) | changes
    (folder / "config.json").write_text(json.dumps(config))
    arrays = tensors_of(case) if arrays is None else arrays
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    return str(folder)


def mesh_of(**sizes):
    count = int(np.prod(list(sizes.values())))
    return partitioning.make_mesh(sizes, jax.devices()[:count])


class Guarded:
    """A checkpoint of which only some arrays may be looked at."""

    where = "guarded"

    def __init__(self, arrays, others):
        self.arrays, self.others = arrays, others

    def names(self):
        return sorted([*self.arrays, *self.others])

    def shape(self, name):
        return self.arrays[name].shape  # a KeyError for the others

    def dtype(self, name):
        return self.arrays[name].dtype

    def read(self, name):
        return self.arrays[name]


@pytest.mark.parametrize("case", CASES)
def test_the_encoder_equals_transformers(case, tmp_path):
    # tests/golden/make_t5_published.py says how the file was made. float32 sums in
    # another order on values of size 1: 1e-5.
    mesh = mesh_of(fsdp=2, tensor=2) if case == "v1_1" else mesh_of(fsdp=1)
    module, params = published.load(
        write_folder(tmp_path / "t5", case), mesh, jnp.float32
    )
    assert module.gated == (case != "v1_0")
    ids, mask, expected = (golden(case)[n] for n in ("ids", "mask", "output"))
    with partitioning.use(mesh):
        got = jax.jit(module.apply)({"params": params}, ids, mask)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(got[mask], expected[mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_arrays_go_to_their_part_of_the_mesh_in_their_type(tmp_path, dtype):
    mesh = mesh_of(fsdp=2, tensor=2)
    folder = write_folder(tmp_path / "t5", "v1_1")
    module, params = published.load(folder, mesh, dtype)
    assert module.dtype == dtype
    wi = params["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]
    assert wi.dtype == dtype and wi.shape == (16, 20)
    assert {s.data.shape for s in wi.addressable_shards} == {(8, 10)}
    theirs = tensors_of("v1_1")["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"]
    np.testing.assert_array_equal(np.asarray(wi), theirs.T.astype(wi.dtype))
    assert params["token_embedder"]["embedding"].dtype == dtype
    assert params["encoder"]["encoder_norm"]["scale"].dtype == jnp.float32
    assert params["encoder"]["relpos_bias"]["rel_embedding"].dtype == jnp.float32


def test_a_model_directory_in_eight_bits_goes_to_its_place_too(tmp_path):
    module = t5.T5Encoder(64, 32, 1, 2, 16, 40)
    rng = np.random.default_rng(0)
    shapes = partitioning.unbox(published.boxed(module))
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype("f4"), shapes)
    model_directory.write_parameters(tmp_path, "text", params, "int8")
    place = placing.placing(
        mesh_of(fsdp=2, tensor=2), published.boxed(module), "bfloat16"
    )
    got = model_directory.parameters(tmp_path, "text", place)(shapes)
    wi = got["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]
    assert wi.dtype == jnp.bfloat16
    assert {s.data.shape for s in wi.addressable_shards} == {(16, 20)}
    exact = params["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]
    # Half a step of a column's 127, and half of bfloat16's 2**-8.
    off = np.abs(np.asarray(wi, np.float32) - exact).max()
    assert 0 < off < np.abs(exact).max() * (1 / 254 + 2**-8)


def test_shards_and_either_name_of_the_table_give_the_same(tmp_path):
    arrays = tensors_of("v1_0")
    (table,) = (n for n in (published.SHARED, published.OWN) if n in arrays)
    whole = published.read(write_folder(tmp_path / "whole", "v1_0"))
    found = []
    for number, names in enumerate(
        ((published.SHARED,), (published.OWN,), (published.SHARED, published.OWN))
    ):
        some = {k: a for k, a in arrays.items() if k != table}
        some |= dict.fromkeys(names, arrays[table])
        folder = tmp_path / str(number)
        write_folder(folder, "v1_0", some)
        (folder / "model.safetensors").unlink()
        weight_map = {}
        for part in (0, 1):
            file = f"model-0000{part + 1}-of-00002.safetensors"
            share = {name: some[name] for name in sorted(some)[part::2]}
            safetensors.numpy.save_file(share, folder / file)
            weight_map |= dict.fromkeys(share, file)
        index = json.dumps({"weight_map": weight_map})
        (folder / "model.safetensors.index.json").write_text(index)
        found.append(published.read(str(folder)))
    for model in (whole, *found):
        shapes = partitioning.unbox(published.boxed(model.module))
        params = tensors.transfer(
            model.source, model.table, shapes, unused=model.unused
        )
        got = params["token_embedder"]["embedding"]
        np.testing.assert_array_equal(got, arrays[table])


def test_the_decoder_is_never_looked_at():
    arrays, others = tensors_of("v1_0"), golden("v1_0")["others"].tolist()
    assert len(others) > 20 and all(name not in arrays for name in others)
    module = published.module_of(json.loads(str(golden("v1_0")["config"])))
    table = published.table(module, published.SHARED)
    arrays.setdefault(published.SHARED, arrays.get(published.OWN))
    shapes = partitioning.unbox(published.boxed(module))
    guarded = Guarded(arrays, [*others, "lm_head.weight"])
    got = tensors.transfer(guarded, table, shapes, unused=published.unused)
    assert len(our_safetensors.flatten(got)) == len(table)
    guarded = Guarded(arrays, ["encoder.block.2.layer.0.layer_norm.weight"])
    with pytest.raises(ValueError, match=r"encoder\.block\.2.*has no place"):
        tensors.transfer(guarded, table, shapes, unused=published.unused)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "umt5"}, "model_type must be one of"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj must be one of"),
        ({"feed_forward_proj": "gelu"}, "feed_forward_proj must be one of"),
        ({"dense_act_fn": "silu"}, "dense_act_fn must be 'gelu_new'"),
        ({"is_gated_act": False}, "is_gated_act must be True"),
        ({"num_layers": 2**30}, "num_layers must be an integer"),
        ({"num_layers": True}, "num_layers must be an integer"),
        ({"d_model": "16"}, "d_model must be an integer"),
        ({"d_kv": None}, "d_kv must be an integer"),
        ({"relative_attention_num_buckets": 3}, "relative.* must be at least 4"),
        ({"relative_attention_max_distance": 8}, "relative.* must be at least 4"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon must be a number"),
        ({"quantization_config": {}}, "quantization_config must be absent"),
    ],
)
def test_a_config_of_another_network_is_named(changes, match):
    config = json.loads(str(golden("v1_1")["config"])) | changes
    with pytest.raises(ValueError, match=f"config.json: {match}"):
        published.module_of(config)


def test_left_out_values_are_those_of_transformers():
    sizes = dict.fromkeys(published.SIZES, 8)
    assert not published.module_of({"model_type": "t5", **sizes}).gated
    module = published.module_of({"model_type": "mt5", **sizes})
    assert module.gated and module.epsilon == 1e-6
    assert (module.relpos_buckets, module.relpos_max_distance) == (32, 128)


def test_a_lost_or_misshapen_tensor_is_named(tmp_path):
    arrays, mesh = tensors_of("v1_1"), mesh_of(fsdp=1)
    name = "encoder.block.1.layer.1.DenseReluDense.wo.weight"
    less = {k: a for k, a in arrays.items() if k != name}
    with pytest.raises(ValueError, match=rf"{name} is missing"):
        published.load(write_folder(tmp_path / "less", "v1_1", less), mesh)
    wide = {**arrays, name: np.zeros((16, 21), np.float32)}
    with pytest.raises(ValueError, match=r"layers_1/mlp/wo/kernel of shape \(20, 16\)"):
        published.load(write_folder(tmp_path / "wide", "v1_1", wide), mesh)


def test_a_number_that_float16_does_not_hold_is_refused(tmp_path):
    arrays = tensors_of("v1_1")
    name = "encoder.block.1.layer.1.DenseReluDense.wo.weight"
    arrays[name] = arrays[name] * 0 + 1e5
    folder, mesh = write_folder(tmp_path / "t5", "v1_1", arrays), mesh_of(fsdp=1)
    with pytest.raises(ValueError, match="layers_1/mlp/wo/kernel has numbers"):
        published.load(folder, mesh, "float16")
    published.load(folder, mesh, "bfloat16")


def write_t5x(folder, module, params):
    folder.mkdir()
    target = {**params, "decoder": {"decoder_norm": {"scale": np.ones(3)}}}
    tree = {"optimizer": {"target": target, "state": {"step": np.int32(1)}}}
    data = flax.serialization.msgpack_serialize(tree)
    (folder / "checkpoint").write_bytes(data)
    return str(folder)


@pytest.mark.parametrize("gated", [True, False])
def test_a_checkpoint_of_t5x_tells_its_sizes_and_keeps_its_names(tmp_path, gated):
    module = t5.T5Encoder(40, 8, 2, 3, 2, 10, relpos_buckets=16, gated=gated)
    shapes = partitioning.unbox(published.boxed(module))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype("f4"), shapes)
    folder = write_t5x(tmp_path / "checkpoint_1", module, params)
    got_module, got = published.load(folder, mesh_of(fsdp=2), "float32")
    assert got_module == module.clone(dtype="float32")
    jax.tree.map(np.testing.assert_array_equal, got, params)
    del params["encoder"]["layers_0"]["attention"]
    other = write_t5x(tmp_path / "checkpoint_2", module, params)
    with pytest.raises(ValueError, match="no matrix encoder/layers_0/attention/query"):
        published.read(other)


def test_a_conversion_rebuilds_the_text_encoder(tmp_path):
    folder = tmp_path / "t5"
    write_folder(folder, "v1_1", vocab_size=99)
    with pytest.raises(ValueError, match=r"there is no .*spiece\.model"):
        published.convert([str(folder)])
    # Only its being copied is of interest here, not which pieces it holds.
    pieces = tokenizer.ASSETS / "captions.model"
    made = published.convert([str(folder), str(pieces)], length=77, dtype="float16")
    assert made.files == {"spiece.model": str(pieces)} and made.stages == ()
    (part,) = made.parts
    assert part.name == "text"
    tensors.check(part.tensors, part.table, part.shapes, part.unused)
    config = ml_collections.ConfigDict({"text": made.text})
    module = build.make_text_module(config)
    assert module == published.read(str(folder)).module.clone(dtype="float16")
    assert config.text.length == 77


def test_a_conversion_of_byt5_needs_no_pieces(tmp_path):
    folder = write_folder(tmp_path / "byt5", "byt5")
    made = published.convert([folder])
    config = ml_collections.ConfigDict({"text": made.text})
    encoder = build.make_text_encoder(config)
    assert encoder.tokenizer == tokenizer.ByteTokenizer() and not made.files
    assert encoder.module.epsilon == 1e-3 and encoder.length == 128


@pytest.mark.parametrize(("told", "extra"), [({"extra_ids": 7}, 7), ({}, 0)])
def test_a_conversion_takes_the_number_of_extra_ids(tmp_path, told, extra):
    folder = tmp_path / "t5"
    write_folder(folder, "v1_1")
    (folder / "spiece.model").write_bytes(b"")
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    assert published.convert([str(folder)]).text["extra_ids"] == extra


def test_the_error_of_every_type_is_measured():
    module = t5.T5Encoder(64, 64, 1, 2, 32, 96)
    params = t5_precision.random_params(module, 8)
    ids = np.random.default_rng(0).integers(3, 64, (2, 8)).astype(np.int32)
    mask = np.arange(8) < np.array([[8], [3]])
    found = t5_precision.errors(module, params, ids, mask)
    # One half step: 2**-9, 2**-12, and 1/254 of a column's largest number.
    for name, (low, high) in {
        "bfloat16": (5e-4, 2e-2),
        "float16": (5e-5, 3e-3),
        "int8": (5e-4, 2e-2),
    }.items():
        whole, worst = found[name]
        assert low < whole < high and whole <= worst < 2 * high, (name, found)
