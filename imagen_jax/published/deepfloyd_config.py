"""DeepFloyd IF's configs, as diffusers saves them, in our terms.

What this network or sampler is not is an error that names the file and the key.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath

from imagen_jax.checkpoints import huggingface
from imagen_jax.diffusion import schedules

CHANNELS = 3
NOISE_LEVEL = 250  # steps of noise on stage II's low-resolution picture
RATIO = 4  # stage II's resolution over stage I's
BASE = {"steps": 100, "w": 7.0, "aug_level": 0.0}
UP = {"steps": 50, "w": 4.0}
PARAMETERIZATIONS = {"epsilon": "eps", "sample": "x", "v_prediction": "v"}

# Keys of UNet2DConditionModel's config that may be absent, with the class's default.
DEFAULTS: dict[str, Any] = {
    "act_fn": "silu",
    "addition_embed_type_num_heads": 64,
    "attention_head_dim": 8,
    "class_embed_type": None,
    "cross_attention_dim": 1280,
    "dropout": 0.0,
    "layers_per_block": 2,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
}
REQUIRED = (
    *("block_out_channels", "down_block_types", "encoder_hid_dim", "in_channels"),
    *("out_channels", "sample_size", "up_block_types"),
)
# What this network is; the first value is the class's default.
FIXED: dict[str, tuple[Any, ...]] = {
    "addition_embed_type": (None, "text"),
    "addition_time_embed_dim": (None,),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embeddings_concat": (False,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None, "group_norm"),
    "downsample_padding": (1, 0, None),
    "dual_cross_attention": (False,),
    "encoder_hid_dim_type": ("text_proj", None),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2DSimpleCrossAttn"),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "projection_class_embeddings_input_dim": (None,),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "reverse_transformer_layers_per_block": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
    "transformer_layers_per_block": (1,),
    "upcast_attention": (False, None),
    "use_linear_projection": (False,),
}
# Whose default is not this network's: they must be said.
SAID = {
    "addition_embed_type": "text",
    "cross_attention_norm": "group_norm",
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "resnet_time_scale_shift": "scale_shift",
}
DOWN = {"ResnetDownsampleBlock2D": False, "SimpleCrossAttnDownBlock2D": True}
UP_BLOCKS = {"ResnetUpsampleBlock2D": False, "SimpleCrossAttnUpBlock2D": True}
SCHEDULER: dict[str, tuple[Any, ...]] = {
    "_class_name": ("DDPMScheduler",),
    "rescale_betas_zero_snr": (False,),
    "steps_offset": (0,),
    "timestep_spacing": ("leading",),
    "trained_betas": (None,),
}


def refuse(where: str, key: str, value: Any, wanted: str) -> ValueError:
    """The error of a config value that this network or sampler is not."""
    return ValueError(f"{where}: {key} must be {wanted}, got {value!r}.")


def network_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of `DeepFloydUNet` that a unet/config.json describes, plain values.

    Raises:
      ValueError: naming `where` and the key whose value is missing or cannot be.
    """
    for key in config:
        known = key in DEFAULTS or key in REQUIRED or key in FIXED
        if not known and not key.startswith("_"):
            raise refuse(where, key, config[key], "absent: the key is not known")
    for key in REQUIRED:
        if config.get(key) is None:
            raise refuse(where, key, None, "given")
    for key, values in FIXED.items():
        wanted = (SAID[key],) if key in SAID else values
        if config.get(key, values[0]) not in wanted:
            given = config.get(key, values[0])
            raise refuse(where, key, given, " or ".join(map(repr, wanted)))
    c = {**DEFAULTS, **config}
    levels = len(c["block_out_channels"])
    attends = _attention(c, where, levels)
    only = c["only_cross_attention"]
    middle_only = c["mid_block_only_cross_attention"]
    if middle_only is None:
        middle_only = only if isinstance(only, bool) else False
    head_dim = c["attention_head_dim"]
    up = head_dim if isinstance(head_dim, int) else list(reversed(head_dim))
    _check_class(c, where)
    return {
        "channels": list(c["block_out_channels"]),
        "num_res_blocks": c["layers_per_block"],
        "attention_levels": [i for i in range(levels) if attends[i]],
        "head_dim": head_dim,
        # diffusers turns a list of them about for its own use on the way up, but not
        # this one.
        "head_dim_up": up,
        "text_only_levels": [
            i for i in range(levels) if (only if isinstance(only, bool) else only[i])
        ],
        "text_only_middle": middle_only,
        "text_features": c["cross_attention_dim"],
        "pooling_heads": c["addition_embed_type_num_heads"],
        "embedding_width": c["time_embedding_dim"],
        "embedding_activation": c["time_embedding_act_fn"],
        "activate_embedding": not c["resnet_skip_time_act"],
        "out_channels": c["out_channels"],
        "activation": c["act_fn"],
        "num_groups": c["norm_num_groups"],
        "epsilon": c["norm_eps"],
        "residual_factor": 1.0 / c["resnet_out_scale_factor"],
        "middle_residual_factor": 1.0 / c["mid_block_scale_factor"],
        "dropout": c["dropout"],
    }


def _attention(c: Mapping[str, Any], where: str, levels: int) -> list[bool]:
    """Which levels attend; the way up must mirror the way down."""
    found = []
    for key, kinds in (("down_block_types", DOWN), ("up_block_types", UP_BLOCKS)):
        if len(c[key]) != levels or not set(c[key]) <= set(kinds):
            raise refuse(where, key, c[key], f"{levels} of {sorted(kinds)}")
        found.append([kinds[name] for name in c[key]])
    if found[0] != found[1][::-1]:
        key = "up_block_types"
        raise refuse(where, key, c[key], "down_block_types in reverse")
    for key in ("layers_per_block", "attention_head_dim", "only_cross_attention"):
        if isinstance(c[key], list | tuple) and len(c[key]) != levels:
            raise refuse(where, key, c[key], f"one value or {levels}")
    return found[0]


def _check_class(c: Mapping[str, Any], where: str) -> None:
    """Stage I reads the noisy picture; stage II also another, with its noise level."""
    if c["in_channels"] not in (CHANNELS, 2 * CHANNELS):
        key = "in_channels"
        raise refuse(where, key, c[key], f"{CHANNELS} or {2 * CHANNELS}")
    wanted = None if c["in_channels"] == CHANNELS else "timestep"
    if c["class_embed_type"] != wanted:
        key = "class_embed_type"
        raise refuse(where, key, c[key], f"{wanted!r} beside {c['in_channels']} inputs")
    if type(c["cross_attention_dim"]) is not int:
        key = "cross_attention_dim"
        raise refuse(where, key, c[key], "one number")


def schedule_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The config group `diffusion.schedule` of a scheduler_config.json.

    Raises:
      ValueError: naming `where` and the key whose value is not DDPM's as IF has it.
    """
    for key, values in SCHEDULER.items():
        if config.get(key, values[0]) not in values:
            raise refuse(where, key, config[key], " or ".join(map(repr, values)))
    betas = config.get("beta_schedule", "linear")
    if betas not in schedules.BETAS:
        raise refuse(where, "beta_schedule", betas, f"one of {schedules.BETAS}")
    return {
        "type": "discrete",
        "betas": betas,
        "steps": config.get("num_train_timesteps", 1000),
        "beta_first": config.get("beta_start", 1e-4),
        "beta_last": config.get("beta_end", 0.02),
    }


def threshold_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """How a scheduler_config.json keeps x in range, as keys of `sampling`."""
    if config.get("thresholding", False):
        return {
            "threshold": "dynamic",
            "percentile": config.get("dynamic_thresholding_ratio", 0.995),
            "threshold_cap": config.get("sample_max_value", 1.0),
        }
    if not config.get("clip_sample", True):
        return {"threshold": "none"}
    if config.get("clip_sample_range", 1.0) != 1.0:
        key = "clip_sample_range"
        raise refuse(where, key, config[key], "1.0")
    return {"threshold": "static"}


def stage_config(
    folder: str, text: Mapping[str, Any], low_resolution: int | None = None
) -> dict[str, Any]:
    """The config of the stage in a folder, plain values.

    Args:
      folder: with unet/ and scheduler/.
      text: the config group of its text encoder.
      low_resolution: of the pictures that a stage II starts from; by default a quarter
        of its own.

    Raises:
      ValueError: for a value that is not IF's kind.
    """
    root = epath.Path(folder)
    where, plan = f"{root}/unet/config.json", f"{root}/scheduler/scheduler_config.json"
    unet = huggingface.read_config(root / "unet")
    scheduler = huggingface.read_config(root / "scheduler", "scheduler_config.json")
    network = network_fields(unet, where)
    schedule = schedule_fields(scheduler, plan)
    if unet["encoder_hid_dim"] != text["encoder"]["d_model"]:
        key, width = "encoder_hid_dim", text["encoder"]["d_model"]
        raise refuse(where, key, unet[key], f"the text encoder's width {width}")
    kind = scheduler.get("variance_type", "fixed_small")
    learned = unet["out_channels"] == 2 * CHANNELS
    if not learned and unet["out_channels"] != CHANNELS:
        key = "out_channels"
        raise refuse(where, key, unet[key], f"{CHANNELS} or {2 * CHANNELS}")
    if kind != ("learned_range" if learned else "fixed_small"):
        wanted = "'learned_range' with 6 output channels, 'fixed_small' with 3"
        raise refuse(plan, "variance_type", kind, wanted)
    target = scheduler.get("prediction_type", "epsilon")
    if target not in PARAMETERIZATIONS:
        wanted = f"one of {sorted(PARAMETERIZATIONS)}"
        raise refuse(plan, "prediction_type", target, wanted)
    size, steps = unet["sample_size"], schedule["steps"]
    defaults, low, aug_schedule = BASE, 0, schedule
    if unet["in_channels"] > CHANNELS:
        low = low_resolution or size // RATIO
        noising = root / "image_noising_scheduler"
        aug = huggingface.read_config(noising, "scheduler_config.json")
        aug_schedule = schedule_fields(aug, f"{noising}/scheduler_config.json")
        defaults = {**UP, "aug_level": NOISE_LEVEL / aug_schedule["steps"]}
    return {
        "kind": "stage",
        "name": f"if_{size}",
        "seed": 0,
        "text": dict(text),
        "stage": {"resolution": size, "low_resolution": low},
        "network": {
            "type": "deepfloyd",
            **network,
            "steps": steps,
            "dtype": text["encoder"].get("dtype", "float32"),
        },
        "diffusion": {
            "schedule": schedule,
            "parameterization": PARAMETERIZATIONS[target],
            "weight": "uniform",
            "stratified": False,
            # Its null is the empty prompt, which no batch brings.
            "text_drop": 0.0,
            "aug_schedule": aug_schedule,
            "aug_max": 1.0,
            "blur_max": 0.0,
            "enlargement": "bilinear_noised",
            "null_text": "empty_prompt",
        },
        "sampling": {
            # gamma is the network's where its variance is learned.
            "solver": {"name": "ancestral", "gamma": 0.0},
            "grid": "leading",
            **defaults,
            **threshold_fields(scheduler, plan),
        },
    }
