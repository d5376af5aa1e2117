import dataclasses

import jax
import ml_collections
import pytest

from imagen_jax import build
from imagen_jax.commands import configs
from imagen_jax.published import deepfloyd_config


@pytest.mark.parametrize("name", configs.names())
def test_every_shipped_config_builds(name):
    config = configs.load(name)
    if config.kind == "stage":
        build.make_stage(config)
        build.make_recipe(config).check()
    elif config.kind == "scorer":
        build.make_detection_task(config)
    else:
        build.make_text_task(config)
    build.make_optimizer(config)
    build.loop_settings(config, "somewhere")


@pytest.mark.parametrize("name", configs.names())
def test_every_config_says_what_it_is_and_how_to_run_it(name):
    text = (configs.directory() / f"{name}.py").read_text()
    assert f"imagen-jax train --config {name}" in text


def counted(name):
    return build.param_counts(configs.load(name))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("imagen/base_64", 2.0e9, 2.4e9),
        ("imagen/base_64_500m", 0.45e9, 0.6e9),
        ("imagen/base_64_300m", 0.27e9, 0.35e9),
        ("imagen/sr_256", 0.55e9, 0.65e9),
        ("imagen/sr_1024", 0.35e9, 0.45e9),
    ],
)
def test_paper_sizes(name, low, high):
    counts = counted(name)
    assert low <= sum(counts["network"].values()) <= high
    assert 4.6e9 <= sum(counts["text encoder (frozen)"].values()) <= 4.8e9


# The values of UNet2DConditionModel's config.json that make the network; II-L's differ.
IF_I_XL = {
    "sample_size": 64,
    "in_channels": 3,
    "out_channels": 6,
    "block_out_channels": [704, 1408, 2112, 2816],
    "layers_per_block": 3,
    "cross_attention_dim": 2816,
    "attention_head_dim": 64,
    "encoder_hid_dim": 4096,
    "encoder_hid_dim_type": "text_proj",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 64,
    "class_embed_type": None,
    "down_block_types": ["ResnetDownsampleBlock2D"]
    + 3 * ["SimpleCrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": 3 * ["SimpleCrossAttnUpBlock2D"] + ["ResnetUpsampleBlock2D"],
    "act_fn": "gelu",
    "resnet_time_scale_shift": "scale_shift",
    "cross_attention_norm": "group_norm",
}
IF_II_L = IF_I_XL | {
    "sample_size": 256,
    "in_channels": 6,
    "block_out_channels": [160, 320, 640, 960, 1280],
    "layers_per_block": [2, 2, 3, 5, 5],
    "cross_attention_dim": 1280,
    "class_embed_type": "timestep",
    "down_block_types": 3 * ["ResnetDownsampleBlock2D"]
    + 2 * ["SimpleCrossAttnDownBlock2D"],
    "up_block_types": 2 * ["SimpleCrossAttnUpBlock2D"] + 3 * ["ResnetUpsampleBlock2D"],
    "time_embedding_act_fn": "gelu",
    "time_embedding_dim": 1280,
    "resnet_skip_time_act": True,
    "resnet_out_scale_factor": 1.4142271248762552,
    "mid_block_scale_factor": 1.4142271248762552,
}


@pytest.mark.parametrize(
    ("name", "values"),
    [("deepfloyd/if_i_xl", IF_I_XL), ("deepfloyd/if_ii_l", IF_II_L)],
)
def test_deepfloyds_configs_are_those_of_its_files(name, values):
    config = configs.load(name)
    network = {
        "type": "deepfloyd",
        **deepfloyd_config.network_fields(values, name),
        "steps": 1000,
        "remat": "block",
        "dtype": "bfloat16",
    }
    stage = build.make_stage(config)
    config.network = ml_collections.ConfigDict(network)
    same = build.make_stage(config).network
    names = {f.name for f in dataclasses.fields(same)} - {"parent", "name"}
    got, want = ({f: getattr(n, f) for f in names} for n in (stage.network, same))
    # Nothing says the same of the way up as of the way down.
    got["head_dim_up"] = got["head_dim_up"] or got["head_dim"]
    assert got == want


def test_a_key_is_overridden_with_its_own_type():
    config = configs.load("shapes/base")
    configs.override(
        config,
        [
            "--config.training.steps=7",
            "--config.sampling.w=2",
            "--config.network.channel_mult=(1, 3)",
            "--config.data.task=emoji",
        ],
    )
    assert config.training.steps == 7
    assert config.sampling.w == 2.0 and isinstance(config.sampling.w, float)
    assert config.network.channel_mult == (1, 3)
    assert config.data.task == "emoji"


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--config.training.step=7", "Did you mean 'training.steps'"),
        ("--config.training=7", "a group"),
        ("--config.training.steps=many", "must be int"),
        ("--config.diffusion.stratified=3", "must be bool"),
        ("--confg.training.steps=7", "unknown argument"),
        ("--config.training.steps", "unknown argument"),
    ],
)
def test_a_bad_override_is_named(flag, named):
    with pytest.raises(ValueError, match=named):
        configs.override(configs.load("shapes/base"), [flag])


def test_an_unknown_config_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'emoji/base'"):
        configs.load("emoji/bas")


def test_a_file_of_the_users_own_is_a_config(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from imagen_jax.commands import configs\n"
        "def get_config():\n"
        "    c = configs.load('shapes/base')\n"
        "    c.name = 'mine'\n"
        "    return c\n"
    )
    assert configs.load(str(path)).name == "mine"


def test_an_unknown_field_of_a_network_is_named():
    config = configs.load("shapes/base")
    with config.unlocked():
        config.network.chanels = 3
    with pytest.raises(ValueError, match=r"config.network.chanels.*'channels'"):
        build.make_stage(config)


def test_a_config_survives_json():
    config = configs.load("emoji/sr_256")
    again = ml_collections.ConfigDict(config.to_dict())
    assert build.make_stage(again) == build.make_stage(config)
    assert jax.tree.leaves(build.make_recipe(again)) == jax.tree.leaves(
        build.make_recipe(config)
    )


def test_guidance_may_be_said_in_a_config_and_older_ones_lack_it():
    config = configs.load("emoji/base")
    assert build.make_recipe(config).interval is None
    with config.unlocked():
        config.sampling.guidance_schedule = "oscillating:1:5"
        config.sampling.guidance_low = 0.3
    made = build.make_recipe(config)
    made.check()
    assert made.interval == (0.3, float("inf"))
    assert (made.guidance_schedule.name, made.guidance_schedule.first) == (
        "oscillating",
        5,
    )
