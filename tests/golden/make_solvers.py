"""Make solvers.npz: diffusers' schedulers on a denoiser in closed form.

Not run by the tests. In an environment of its own:

    pip install torch==2.14.1 diffusers==0.42.1
    python tests/golden/make_solvers.py

The data are a mixture of two Gaussians, whose E[eps | z] is known; z begins as named
numbers, and the noise of every step is named too (named_weights.py), so that only what
comes out is stored. All z are kept as they are where variance is preserved.
"""

import json
import pathlib

import diffusers
import named_weights
import numpy as np
import torch
from diffusers.schedulers import (
    scheduling_ddim,
    scheduling_ddpm,
    scheduling_dpmsolver_multistep,
)

SHAPE, STEPS = (2, 3, 4, 2), 20
# Weights, means and standard deviations.
MIXTURE = ((0.3, -0.6, 0.15), (0.7, 0.4, 0.3))
COMMON = {"num_train_timesteps": 1000, "prediction_type": "epsilon"}
LINEAR = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
CASES = {
    "ddpm_small": ("DDPMScheduler", "leading", COSINE | {"variance_type": "fixed_small"}),
    "ddpm_large": (
        "DDPMScheduler",
        "trailing",
        LINEAR | {"variance_type": "fixed_large"},
    ),
    "ddim_0": ("DDIMScheduler", "leading", LINEAR),
    "ddim_1": ("DDIMScheduler", "trailing", COSINE),
    "linspace": ("EulerDiscreteScheduler", "linspace", LINEAR),
    "euler": ("EulerDiscreteScheduler", "trailing", LINEAR),
    "heun": ("HeunDiscreteScheduler", "trailing", LINEAR),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", "trailing", LINEAR),
    "dpmpp_2m_sde": (
        "DPMSolverMultistepScheduler",
        "trailing",
        LINEAR | {"algorithm_type": "sde-dpmsolver++"},
    ),
    "unipc": ("UniPCMultistepScheduler", "trailing", LINEAR),
    "unipc_bh1": (
        "UniPCMultistepScheduler",
        "trailing",
        COSINE | {"solver_type": "bh1"},
    ),
    # Theirs lowers the order in the last steps, of which the last alone ends at 0.
    "unipc_3": ("UniPCMultistepScheduler", "trailing", LINEAR | {"solver_order": 3}),
}


def eps(z: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """E[eps | z], where kept = alpha^2, in float64."""
    z, kept = z.double(), torch.as_tensor(kept).double()
    logs, means = [], []
    for weight, mean, std in MIXTURE:
        variance = kept * std**2 + 1 - kept
        off = z - kept.sqrt() * mean
        logs.append(np.log(weight) - 0.5 * variance.log() - 0.5 * off**2 / variance)
        means.append((1 - kept).sqrt() * off / variance)
    shares = torch.softmax(torch.stack(logs), 0)
    return (shares * torch.stack(means)).sum(0).float()


def numbers(name: str) -> torch.Tensor:
    return torch.from_numpy(named_weights.normal(name, SHAPE))


def supply() -> None:
    """Let diffusers draw named numbers, one array a step."""
    queue = [numbers(f"noise{i}") for i in range(STEPS)]

    def randn_tensor(shape, **_):
        return queue.pop(0)

    for module in (
        scheduling_ddim,
        scheduling_ddpm,
        scheduling_dpmsolver_multistep,
    ):
        module.randn_tensor = randn_tensor


def run(name: str) -> tuple[np.ndarray, list[int]]:
    """z after each step but the last, then the picture; and the table's steps."""
    kind, spacing, settings = CASES[name]
    extra = {"clip_sample": False} if kind in ("DDPMScheduler", "DDIMScheduler") else {}
    if name == "unipc_3":
        extra["lower_order_final"] = True
    plan = getattr(diffusers, kind)(
        **COMMON, **settings, **extra, timestep_spacing=spacing
    )
    plan.set_timesteps(STEPS)
    supply()
    exploding = kind in ("EulerDiscreteScheduler", "HeunDiscreteScheduler")
    z, states, table = numbers("prior"), [], plan.alphas_cumprod
    times = [float(t) for t in plan.timesteps]
    if exploding:
        # Theirs moves z / alpha, whose noise is sigma / alpha.
        z = z * (1 + plan.sigmas[0] ** 2).sqrt()
    for i, t in enumerate(plan.timesteps):
        if exploding:
            sigma = plan.sigmas[i if kind.startswith("Euler") else plan.step_index or 0]
            kept = 1 / (1 + sigma**2)
            z = plan.step(eps(plan.scale_model_input(z, t), kept), t, z).prev_sample
            after = plan.sigmas[plan.step_index]
            if kind.startswith("Heun") and not plan.state_in_first_order:
                continue
            states.append(z / (1 + after**2).sqrt())
        else:
            settings = {"eta": float(name[-1])} if name.startswith("ddim") else {}
            z = plan.step(eps(z, table[t]), t, z, **settings).prev_sample
            states.append(z)
    return np.stack([s.numpy() for s in states]), times


if __name__ == "__main__":
    found = {name: run(name) for name in CASES}
    description = {
        "made_with": f"diffusers {diffusers.__version__}, torch {torch.__version__}",
        "steps": STEPS,
        "shape": SHAPE,
        "mixture": MIXTURE,
        "cases": CASES,
        "times": {name: times for name, (_, times) in found.items()},
    }
    arrays = {name: states for name, (states, _) in found.items()}
    np.savez_compressed(
        pathlib.Path(__file__).with_name("solvers.npz"),
        description=json.dumps(description),
        **arrays,
    )
