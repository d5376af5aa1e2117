import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagen_jax import build, loading, partitioning
from imagen_jax.cascade import images, request
from imagen_jax.checkpoints import model_directory, safetensors, tensors
from imagen_jax.commands import configs as commands_configs
from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import prediction, schedules
from imagen_jax.published import deepfloyd as published
from imagen_jax.published import deepfloyd_config, t5
from imagen_jax.text import encoder
from tests import deepfloyd
from tests.golden import named_weights

ABOUT = deepfloyd.ABOUT
# A ByT5: no tokenizer's file.
TEXT_ENCODER = {
    "model_type": "t5",
    "vocab_size": 384,
    "d_model": deepfloyd.TEXT,
    "num_layers": 1,
    "num_heads": 2,
    "d_kv": 4,
    "d_ff": 8,
    "feed_forward_proj": "gated-gelu",
}


def write(folder, name, values):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(values))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Both stages as diffusers saves them."""
    root = tmp_path_factory.mktemp("if")
    for number in "12":
        folder = root / number
        write(folder / "unet", "config.json", ABOUT["unets"][number])
        plan = {"_class_name": "DDPMScheduler", **ABOUT["schedulers"][number]}
        for place in ("scheduler", "image_noising_scheduler"):
            write(folder / place, "scheduler_config.json", plan)
        source = deepfloyd.Named(number)
        safetensors.save(
            folder / "unet" / "diffusion_pytorch_model.safetensors",
            {name: source.read(name) for name in source.names()},
            {},
        )
    write(root / "1" / "text_encoder", "config.json", TEXT_ENCODER)
    write_text_encoder(root / "1" / "text_encoder" / "model.safetensors")
    return [str(root / "1"), str(root / "2")]


def write_text_encoder(path):
    module = t5.module_of(TEXT_ENCODER)
    shapes = build.shapes_of(build.encoder_init(module, 4))
    flat, arrays = safetensors.flatten(shapes), {}
    for ours, source in t5.table(module).items():
        shape = flat[ours].shape
        turned = shape if "embedder" in ours else shape[::-1]
        arrays[source.names[0]] = named_weights.weight(source.names[0], turned)
    safetensors.save(path, arrays, {})


@pytest.fixture(scope="module")
def converted(folders):
    return published.convert(folders, dtype="float32")


@pytest.fixture(scope="module")
def configs(converted):
    return converted.stages


def made(config):
    values = build.ml_collections.ConfigDict(copy.deepcopy(dict(config)))
    return build.make_stage(values), build.make_recipe(values)


def test_the_defaults_are_those_of_diffusers_pipelines(configs):
    (first, drawn), (second, enlarged) = map(made, configs)
    assert (first.resolution, first.low_resolution) == (8, None)
    assert (second.resolution, second.low_resolution) == (16, 8)
    assert first.schedule == second.aug_schedule == schedules.DiscreteSchedule()
    assert first.parameterization is prediction.EPS
    assert first.null_text == second.null_text == "empty_prompt"
    assert (drawn.steps, drawn.w, drawn.grid.name) == (100, 7.0, "leading")
    assert (enlarged.steps, enlarged.w, enlarged.aug_level) == (50, 4.0, 0.25)
    assert (drawn.percentile, drawn.threshold_cap) == (0.95, 1.5)
    assert (enlarged.percentile, enlarged.threshold_cap) == (0.95, 1.0)


def test_networks_are_told_the_steps_of_the_table(configs):
    first, _ = made(configs[0])
    t = jnp.array([0.0, 0.421, 0.999])
    told = first.noise_input(first.schedule(t))
    steps = published.deepfloyd_unet.timestep(told, 1000)
    np.testing.assert_array_equal(steps, [0, 421, 999])


def test_its_parts_come_from_its_folders(converted):
    names = [part.name for part in converted.parts]
    assert names == ["text", "if_8", "if_16"]
    for number, part in zip("12", converted.parts[1:], strict=True):
        tree = tensors.transfer(part.tensors, part.table, part.shapes)
        same = jax.tree.map(np.array_equal, tree, deepfloyd.params(number))
        assert all(jax.tree.leaves(same))


def test_its_text_is_cleaned_and_not_masked(converted, configs):
    for text in (converted.text, *(config["text"] for config in configs)):
        assert (text["length"], text["unmasked"]) == (77, True)
        assert text["cleaning"] == "deepfloyd"
    assert converted.notice == published.NOTICE


def test_a_text_encoder_of_another_width_is_refused(folders, converted):
    text = {**converted.text, "encoder": {**converted.text["encoder"], "d_model": 32}}
    with pytest.raises(ValueError, match="encoder_hid_dim must be the text encoder's"):
        deepfloyd_config.stage_config(folders[0], text)


def test_the_licence_is_said():
    words = " ".join(published.NOTICE.split())
    assert "research only" in words and "may not redistribute" in words
    assert (
        "DeepFloyd is licensed under the DeepFloyd License, Copyright (c) Stability AI "
        "Ltd. All Rights Reserved." in words
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("act_fn", "mish", "activation must be one of"),
        ("attention_head_dim", [16], "attention_head_dim must be one value or 2"),
        ("center_input_sample", True, "center_input_sample must be False, got True"),
        ("class_embed_type", "timestep", "class_embed_type must be None beside 3"),
        ("cross_attention_norm", None, "cross_attention_norm must be 'group_norm'"),
        ("down_block_types", ["DownBlock2D"] * 2, "down_block_types must be 2 of"),
        ("encoder_hid_dim", None, "encoder_hid_dim must be given, got None"),
        ("flip_sin_to_cos", False, "flip_sin_to_cos must be True, got False"),
        ("freq_shift", 1, "freq_shift must be 0, got 1"),
        ("new_key", 3, "new_key must be absent: the key is not known, got 3"),
        ("resnet_time_scale_shift", "default", "must be 'scale_shift', got 'default'"),
        ("up_block_types", ["ResnetUpsampleBlock2D"] * 2, "down_block_types in rev"),
    ],
)
def test_what_the_network_cannot_do_is_named(key, value, words):
    config = {**ABOUT["unets"]["1"], key: value}
    with pytest.raises(ValueError, match=words):
        fields = deepfloyd_config.network_fields(config, "unet/config.json")
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        published.deepfloyd_unet.DeepFloydUNet(**fields)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_class_name", "DDIMScheduler"),
        ("beta_schedule", "sigmoid"),
        ("rescale_betas_zero_snr", True),
        ("timestep_spacing", "trailing"),
        ("trained_betas", [0.1]),
    ],
)
def test_what_the_schedule_cannot_do_is_named(key, value):
    plan = {"_class_name": "DDPMScheduler", **ABOUT["schedulers"]["1"], key: value}
    with pytest.raises(ValueError, match=f"plan: {key} must be .*, got "):
        deepfloyd_config.schedule_fields(plan, "plan")


def test_thresholds_are_those_of_the_scheduler():
    clipped = {"clip_sample": True}
    assert deepfloyd_config.threshold_fields(clipped, "plan") == {"threshold": "static"}
    free = {"clip_sample": False}
    assert deepfloyd_config.threshold_fields(free, "plan") == {"threshold": "none"}
    with pytest.raises(ValueError, match=r"clip_sample_range must be 1\.0"):
        deepfloyd_config.threshold_fields({"clip_sample_range": 2.0}, "plan")


def embedded(name):
    """Named tokens, the same for two pictures."""
    values = np.repeat(deepfloyd.tokens(name, 1), 2, axis=0)
    return encoder.TextEmbedding(jnp.asarray(values), jnp.ones(values.shape[:2], bool))


def own_third_stage(text):
    """A 16 -> 32 px stage of ours, on IF's text encoder: what is trained behind IF."""
    config = commands_configs.load("imagen/sr_256")
    config.name, config.text = "own", text
    config.stage.resolution, config.stage.low_resolution = 32, 16
    config.network.update(
        channels=(16, 16), num_res_blocks=(1, 1), strides=(2, 2), heads=2,
        attention=("none", "self"), embedding_features=32, text_features=16,
        dtype="float32",
    )  # fmt: skip
    config.sampling.update(steps=2, w=2.0)
    params = partitioning.unbox(build.make_stage(config).init(jax.random.key(0)))
    return json.loads(config.to_json_best_effort()), params


def test_a_converted_model_draws_what_diffusers_draws(converted, configs, tmp_path):
    """Both stages from a model directory, with diffusers' noise but fewer steps.

    A third one, of ours, goes on from their pictures.
    """
    stages = copy.deepcopy(list(configs))
    trees = {c["name"]: deepfloyd.params(n) for n, c in zip("12", stages, strict=True)}
    for number, config in zip("12", stages, strict=True):
        config["sampling"] |= ABOUT["drawn"][number]
    text = converted.parts[0]
    trees["text"] = tensors.transfer(
        text.tensors, text.table, text.shapes, unused=text.unused
    )
    third, trees["own"] = own_third_stage(stages[0]["text"])
    model_directory.write(tmp_path, [*stages, third], trees, "float32")
    model = loading.load(str(tmp_path))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.key(ABOUT["seed"]), jnp.arange(2)
    )
    drawn = model.cascade.sample(
        keys,
        [read() for read in model.params],
        request.Request(text=embedded("prompt"), empty=embedded("empty")),
        model.recipes,
    )
    assert drawn[2].shape == (2, 32, 32, 3) and np.isfinite(drawn[2]).all()
    assert np.abs(drawn[2] - images.resize(drawn[1], (32, 32))).max() > 0.01
    for number, x in zip("12", drawn, strict=False):
        pictures = np.asarray(images.to_uint8(x)).astype(int)
        golden = deepfloyd.GOLDEN[f"drawn/{number}"]
        assert golden.std() > 30  # of 255
        # A value on the border of two of a file's levels may fall on either side:
        # guidance by 7 on random weights makes 4e-5 of rounding, a 200th of a level.
        assert np.abs(pictures - golden).max() <= 1
        assert np.mean(pictures != golden) < 0.03


# The text pooling's key bias moves all scores alike: its gradient is 0 but for
# rounding, which Adam makes into steps of its own size.
IDLE = "add_embedding.pool.k_proj.bias"


def assert_same(tree, golden, tolerance, idle):
    """Compare with stored norms and projections, one row a tensor of diffusers'.

    Of a kernel joined from several of theirs each is projected apart.
    """
    flat, shapes = safetensors.flatten(tree), ABOUT["tensors"]["1"]
    rows = dict(zip(sorted(shapes), golden, strict=True))
    for ours, source in deepfloyd.table("1").items():
        array = np.asarray(flat[ours], np.float64)
        for name in source.names:
            norm, against = rows[name][0], rows[name][1:]
            found = []
            for i in range(len(against)):
                numbers = [np.zeros(shapes[n], np.float32) for n in source.names]
                number = named_weights.normal(f"{name}/{i}", shapes[name])
                numbers[source.names.index(name)] = number
                found.append(np.vdot(array, source.make(*numbers)))
            # Projections on unit normals are as large as what is projected.
            error = np.sqrt(np.mean(np.square(found - against)))
            assert error <= (idle if name == IDLE else tolerance * norm), name


def test_stage_1_is_called_and_trained_as_in_diffusers_and_torch(configs):
    module, _ = made(configs[0])
    about, params, shape = ABOUT["training"], deepfloyd.params("1"), deepfloyd.SHAPE
    # Of one vector: less to compile.
    rule = optax.flatten(optax.adamw(about["learning_rate"], weight_decay=0.01))

    def loss(params, i, x, eps, tokens):
        steps = jnp.stack([37 * i, 421 + i, 999 - 41 * i])
        level = module.schedule(steps.astype(jnp.float32) / 1000)
        alpha, sigma = (a[:, None, None, None] for a in (level.alpha, level.sigma))
        cond = Conditioning(tokens=tokens, mask=jnp.ones(tokens.shape[:2], bool))
        output = module.output(params, alpha * x + sigma * eps, level, cond)
        error = jnp.square(prediction.split(output, x)[0] - eps)
        return jnp.mean(error), output

    @jax.jit
    def step(params, state, *batch):
        found, gradient = jax.value_and_grad(loss, has_aux=True)(params, *batch)
        updates, state = rule.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, found, gradient

    state, losses = rule.init(params), []
    golden = {k: deepfloyd.GOLDEN[f"training/{k}"] for k in ("output", "gradients")}
    for i in range(about["steps"]):
        x = np.clip(named_weights.normal(f"x{i}", shape), -1, 1)
        eps = named_weights.normal(f"noise{i}", shape)
        tokens = deepfloyd.tokens(f"text{i}", 3)
        params, state, (value, output), gradient = step(
            params, state, i, x, eps, tokens
        )
        losses.append(float(value))
        if not i:
            # Mean and variance channels; three examples, not square.
            size = golden["output"].std()
            assert output.shape == (3, 8, 12, 6) and size > 0.3
            np.testing.assert_allclose(output, golden["output"], atol=1e-4 * size)
            assert_same(gradient, golden["gradients"], 1e-4, idle=1e-6)
            assert np.median(golden["gradients"][:, 0]) > 1e-3
    np.testing.assert_allclose(losses, deepfloyd.GOLDEN["training/losses"], rtol=1e-4)
    assert losses[-1] < losses[0]
    walked = about["steps"] * about["learning_rate"]
    assert_same(params, deepfloyd.GOLDEN["training/parameters"], 1e-3, idle=walked)
