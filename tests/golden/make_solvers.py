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
# At sigma = 0 theirs has no step of order 3, and none of B(h) = h.
TO_THE_FIRST = {"lower_order_final": False, "final_sigmas_type": "sigma_min"}
# The cosine's last level, alpha = 5e-5, would magnify roundings to 1e-3 in epsilon; and
# DDPM's last step adds noise, unless it is the table's first.
CASES = {
    "ddpm_small": (
        "DDPMScheduler",
        "leading",
        COSINE | {"variance_type": "fixed_small"},
    ),
    "ddpm_large": (
        "DDPMScheduler",
        "leading",
        LINEAR | {"variance_type": "fixed_large"},
    ),
    "ddim_0": ("DDIMScheduler", "leading", LINEAR),
    "ddim_1": ("DDIMScheduler", "trailing", LINEAR),
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
        LINEAR | TO_THE_FIRST | {"solver_type": "bh1"},
    ),
    "unipc_3": (
        "UniPCMultistepScheduler",
        "trailing",
        LINEAR | TO_THE_FIRST | {"solver_order": 3},
    ),
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
    """z after each step, the last of them the picture; and the table's steps."""
    kind, spacing, settings = CASES[name]
    extra = {"clip_sample": False} if kind in ("DDPMScheduler", "DDIMScheduler") else {}
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
            sigma = plan.sigmas[plan.step_index or 0]
            kept = 1 / (1 + sigma**2)
            z = plan.step(eps(plan.scale_model_input(z, t), kept), t, z).prev_sample
            after = plan.sigmas[plan.step_index]
            if kind.startswith("Heun") and i % 2 == 0 and after > 0:
                continue  # The first of a step's two calls; the last step has one.
            states.append(z / (1 + after**2).sqrt())
        else:
            settings = {"eta": float(name[-1])} if name.startswith("ddim") else {}
            z = plan.step(eps(z, table[t]), t, z, **settings).prev_sample
            states.append(z)
    return np.stack([s.numpy() for s in states]), times


def spacing(name: str, steps: int) -> list[int]:
    plan = diffusers.DDIMScheduler(timestep_spacing=name)
    plan.set_timesteps(steps)
    return plan.timesteps.tolist()


if __name__ == "__main__":
    found = {name: run(name) for name in CASES}
    description = {
        "made_with": f"diffusers {diffusers.__version__}, torch {torch.__version__}",
        "steps": STEPS,
        "shape": SHAPE,
        "mixture": MIXTURE,
        "cases": CASES,
        "spacings": {
            name: {n: spacing(name, n) for n in (7, 20, 54)}
            for name in ("leading", "trailing", "linspace")
        },
        "times": {name: times for name, (_, times) in found.items()},
    }
    arrays = {name: states for name, (states, _) in found.items()}
    np.savez_compressed(
        pathlib.Path(__file__).with_name("solvers.npz"),
        description=json.dumps(description),
        **arrays,
    )
