"""Make deepfloyd.npz: tiny random networks of DeepFloyd IF's kind, run by diffusers.

Not run by the tests. In an environment of its own:

    pip install torch==2.14.1 diffusers==0.42.1 jax==0.10.2
    python tests/golden/make_deepfloyd.py

Weights and inputs are made from their names (named_weights.py) and not stored; the
samplers' noise is drawn as this package draws it, one jax.random key a picture.
"""

import json
import pathlib

import diffusers
import jax
import named_weights
import numpy as np
import torch
from diffusers.pipelines.deepfloyd_if import (
    pipeline_if,
    pipeline_if_superresolution,
    timesteps,
)
from diffusers.schedulers import scheduling_ddpm

TEXT, TOKENS = 24, 7
COMMON = {
    "out_channels": 6,
    "encoder_hid_dim": TEXT,
    "encoder_hid_dim_type": "text_proj",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 4,
    "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "act_fn": "gelu",
    "norm_num_groups": 8,
    "resnet_time_scale_shift": "scale_shift",
    "cross_attention_norm": "group_norm",
}
# Both kinds of attention, lists and single numbers.
UNETS = {
    "1": {
        **COMMON,
        "sample_size": 8,
        "in_channels": 3,
        "block_out_channels": [32, 64],
        "layers_per_block": 1,
        "cross_attention_dim": 64,
        "attention_head_dim": [16, 32],
    },
    "2": {
        **COMMON,
        "sample_size": 16,
        "in_channels": 6,
        "block_out_channels": [32, 64],
        "layers_per_block": [1, 1],
        "cross_attention_dim": 32,
        "attention_head_dim": 16,
        "only_cross_attention": [False, True],
        "class_embed_type": "timestep",
        "time_embedding_dim": 48,
        "time_embedding_act_fn": "gelu",
        "resnet_skip_time_act": True,
        "resnet_out_scale_factor": 1.4142271248762552,
        "mid_block_scale_factor": 1.4142271248762552,
        "norm_eps": 1e-4,
    },
}
SCHEDULER = {
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "learned_range",
    "thresholding": True,
    "dynamic_thresholding_ratio": 0.95,
    "prediction_type": "epsilon",
}
CAPS = {"1": 1.5, "2": 1.0}
STEPS = torch.tensor([3, 250, 731])
LEVELS = torch.tensor([0, 250, 977])
TRAJECTORIES = {"1": "smart27", "2": 20}  # a preset, and so many leading steps
DRAWN = {"1": {"steps": 10, "w": 7.0}, "2": {"steps": 8, "w": 4.0}}
SEED = 5
# Three examples, not square.
SHAPE = (3, 8, 12, 3)
TRAINING = {"steps": 20, "learning_rate": 1e-3}


def unet(stage: str) -> diffusers.UNet2DConditionModel:
    model = diffusers.UNet2DConditionModel(**UNETS[stage])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            weight = named_weights.weight(f"{stage}/{name}", parameter.shape)
            parameter.copy_(torch.from_numpy(weight))
    return model


def scheduler(stage: str) -> diffusers.DDPMScheduler:
    return diffusers.DDPMScheduler(**SCHEDULER, sample_max_value=CAPS[stage])


def picture(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Named numbers [B, H, W, C], as torch has pictures."""
    return chw(named_weights.normal(name, shape))


def chw(a: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(a, np.float32).transpose(0, 3, 1, 2).copy())


def hwc(a: torch.Tensor) -> np.ndarray:
    return a.detach().numpy().transpose(0, 2, 3, 1)


def tokens(name: str, batch: int) -> torch.Tensor:
    return torch.from_numpy(named_weights.normal(name, (batch, TOKENS, TEXT)))


def forward() -> np.ndarray:
    """One call of stage II, each example at its own step and noise level."""
    inputs = torch.cat([picture("z", SHAPE), picture("planes", SHAPE)], dim=1)
    with torch.no_grad():
        model = unet("2").eval()
        text = tokens("tokens", 3)
        return hwc(model(inputs, STEPS, text, class_labels=LEVELS).sample)


def keys_of(batch: int) -> list[jax.Array]:
    return [jax.random.fold_in(jax.random.key(SEED), i) for i in range(batch)]


def noise(keys: list[jax.Array], shape: tuple[int, ...]) -> torch.Tensor:
    return chw(np.stack([jax.random.normal(k, shape) for k in keys]))


def folded(keys: list[jax.Array], number: int) -> list[jax.Array]:
    return [jax.random.fold_in(k, number) for k in keys]


def supply(queue: list[torch.Tensor]) -> None:
    """Let diffusers draw these numbers, one array after the other."""

    def randn_tensor(shape, **_):
        found = queue.pop(0)
        assert tuple(found.shape) == tuple(shape)
        return found

    for module in (scheduling_ddpm, pipeline_if, pipeline_if_superresolution):
        module.randn_tensor = randn_tensor


def trajectory(stage: str) -> dict[str, np.ndarray]:
    """z after every step, and the last x, from outputs made of z and of named numbers.

    They lead z to pictures of standard deviation 0.6, so that the threshold acts.
    """
    plan, grid, shape = scheduler(stage), TRAJECTORIES[stage], (2, 6, 6, 3)
    if isinstance(grid, str):
        plan.set_timesteps(timesteps=getattr(timesteps, f"{grid}_timesteps"))
    else:
        plan.set_timesteps(grid)
    keys = keys_of(2)
    supply([noise(folded(keys, i), shape[1:]) for i in range(len(plan.timesteps))])
    z, states = picture("prior", shape), []
    for i, t in enumerate(plan.timesteps):
        kept = plan.alphas_cumprod[t]
        likely = (1 - kept) ** 0.5 / (0.36 * kept + 1 - kept)
        eps = likely * z + 0.3 * picture(f"eps{i}", shape)
        learned = torch.tanh(picture(f"variance{i}", shape))
        found = plan.step(torch.cat([eps, learned], dim=1), t, z)
        z = found.prev_sample
        states.append(hwc(z))
    return {"z": np.stack(states), "x": hwc(found.pred_original_sample)}


def draw() -> dict[str, np.ndarray]:
    """Two pictures of one prompt through both stages, the noise supplied."""
    keys, none = keys_of(2), {"safety_checker": None, "feature_extractor": None}
    none |= {"tokenizer": None, "text_encoder": None, "watermarker": None}
    text = {
        "prompt_embeds": tokens("prompt", 1).repeat(2, 1, 1),
        "negative_prompt_embeds": tokens("empty", 1).repeat(2, 1, 1),
        "output_type": "pt",
    }

    def drawn_noise(stage: int, size: int, steps: int, low_res: bool):
        stage_keys, shape = folded(keys, stage), (size, size, 3)
        first = [noise(folded(stage_keys, i), shape) for i in range(1 + low_res)]
        step_keys = folded(stage_keys, 2)
        return first + [noise(folded(step_keys, i), shape) for i in range(steps)]

    first = diffusers.IFPipeline(
        unet=unet("1"), scheduler=scheduler("1"), requires_safety_checker=False, **none
    )
    settings = DRAWN["1"]
    supply(drawn_noise(0, 8, settings["steps"], low_res=False))
    small = first(
        num_inference_steps=settings["steps"], guidance_scale=settings["w"], **text
    ).images
    # What a file of it holds goes on.
    small = torch.round((small.clamp(-1, 1) + 1) * 127.5)
    second = diffusers.IFSuperResolutionPipeline(
        unet=unet("2"),
        scheduler=scheduler("2"),
        image_noising_scheduler=diffusers.DDPMScheduler(**SCHEDULER),
        requires_safety_checker=False,
        **none,
    )
    settings = DRAWN["2"]
    supply(drawn_noise(1, 16, settings["steps"], low_res=True))
    large = second(
        image=small / 127.5 - 1,
        num_inference_steps=settings["steps"],
        guidance_scale=settings["w"],
        noise_level=250,
        **text,
    ).images
    large = torch.round((large.clamp(-1, 1) + 1) * 127.5)
    return {"1": hwc(small).astype(np.uint8), "2": hwc(large).astype(np.uint8)}


def train() -> dict[str, np.ndarray]:
    """Stage I's first output, losses, and projections of tensors.

    Those are the first gradients and the last parameters.
    """
    model, plan = unet("1").train(), scheduler("1")
    rule = torch.optim.AdamW(
        model.parameters(), lr=TRAINING["learning_rate"], weight_decay=0.01
    )
    losses, gradients = [], {}
    for i in range(TRAINING["steps"]):
        x, eps = picture(f"x{i}", SHAPE).clamp(-1, 1), picture(f"noise{i}", SHAPE)
        t = torch.tensor([37 * i, 421 + i, 999 - 41 * i])
        output = model(plan.add_noise(x, eps, t), t, tokens(f"text{i}", 3)).sample
        loss = torch.mean((output[:, :3] - eps) ** 2)
        rule.zero_grad()
        loss.backward()
        if not i:
            first = hwc(output)
            gradients = {n: p.grad.numpy().copy() for n, p in model.named_parameters()}
        rule.step()
        losses.append(loss.item())
    after = {n: p.detach().numpy() for n, p in model.named_parameters()}
    found = {"output": first, "losses": np.array(losses)}
    for kind, arrays in (("gradients", gradients), ("parameters", after)):
        rows = [named_weights.projections(n, arrays[n]) for n in sorted(arrays)]
        found[kind] = np.stack(rows)
    return found


if __name__ == "__main__":
    torch.manual_seed(0)
    description = {
        "made_with": f"diffusers {diffusers.__version__}, torch {torch.__version__}, "
        f"jax {jax.__version__}",
        "unets": UNETS,
        "tensors": {
            s: {n: p.shape for n, p in unet(s).named_parameters()} for s in "12"
        },
        "schedulers": {s: dict(scheduler(s).config) for s in "12"},
        "trajectories": TRAJECTORIES,
        "drawn": DRAWN,
        "seed": SEED,
        "training": TRAINING,
        "presets": {
            name.removesuffix("_timesteps"): value
            for name, value in vars(timesteps).items()
            if name.endswith("_timesteps")
        },
    }
    arrays = {"description": json.dumps(description, default=list)}
    arrays["alphas"] = np.stack(
        [
            diffusers.DDPMScheduler(beta_schedule=betas).alphas_cumprod.numpy()
            for betas in ("squaredcos_cap_v2", "linear", "scaled_linear")
        ]
    )
    parts = {"drawn": draw(), "training": train(), "forward": {"output": forward()}}
    for stage in "12":
        parts[f"trajectory/{stage}"] = trajectory(stage)
    for part, named in parts.items():
        arrays |= {f"{part}/{name}": array for name, array in named.items()}
    np.savez_compressed(pathlib.Path(__file__).with_name("deepfloyd.npz"), **arrays)
