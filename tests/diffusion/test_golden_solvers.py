"""Each solver against diffusers' on the same denoiser and the same noise."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import (
    grids,
    karras,
    multistep,
    noise,
    prediction,
    sampler,
    schedules,
    solvers,
)
from tests.golden import named_weights

GOLDEN = dict(np.load(pathlib.Path(__file__).parents[1] / "golden" / "solvers.npz"))
ABOUT = json.loads(str(GOLDEN.pop("description")))
STEPS, SHAPE = ABOUT["steps"], tuple(ABOUT["shape"])
SOLVERS = {
    "ddpm_small": solvers.ddpm("fixed_small"),
    "ddpm_large": solvers.ddpm("fixed_large"),
    "ddim_0": solvers.DDIM(),
    "ddim_1": solvers.DDIM(eta=1.0),
    "euler": karras.Euler(),
    "heun": karras.Heun(),
    "dpmpp_2m": multistep.DPMpp2M(),
    "dpmpp_2m_sde": multistep.DPMpp2MSDE(),
    "unipc": multistep.UniPC(),
    "unipc_bh1": multistep.UniPC(variant="bh1"),
    "unipc_3": multistep.UniPC(order=3),
}


def mixture(z, level, cond):
    """E[eps | z] for the mixture that make_solvers.py has."""
    weights, means, stds = (
        np.array(a, np.float32)[:, None, None, None, None]
        for a in zip(*ABOUT["mixture"], strict=True)
    )
    _, alpha, sigma = (field[None] for field in noise.broadcast(level, z))
    variance = alpha**2 * stds**2 + sigma**2
    off = z[None] - alpha * means
    logits = jnp.log(weights) - 0.5 * jnp.log(variance) - 0.5 * off**2 / variance
    shares = jax.nn.softmax(jnp.broadcast_to(logits, (2, *z.shape)), axis=0)
    eps = jnp.sum(shares * sigma * off / variance, axis=0)
    return prediction.from_eps(eps, z, level)


@pytest.fixture(scope="module")
def drawn_noise():
    """Stands for noise.normal: a step's keys name its numbers."""
    named = [named_weights.normal(f"noise{i}", SHAPE) for i in range(STEPS)]
    keys = jax.random.split(jax.random.key(0), SHAPE[0])
    fold = jax.vmap(jax.random.fold_in, (0, None))
    of_step = jnp.stack([jax.random.key_data(fold(keys, i))[0] for i in range(STEPS)])

    def normal(step_keys, shape):
        same = jnp.all(of_step == jax.random.key_data(step_keys)[:1], axis=1)
        return jnp.asarray(named)[jnp.argmax(same)]

    return keys, normal


def test_every_case_has_a_solver():
    assert set(SOLVERS) == set(GOLDEN)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_a_trajectory_is_that_of_diffusers(name, drawn_noise, monkeypatch):
    keys, normal = drawn_noise
    monkeypatch.setattr(noise, "normal", normal)
    _, spacing, settings = ABOUT["cases"][name]
    schedule = schedules.DiscreteSchedule(betas=settings["beta_schedule"])
    draw = sampler.Sampler(
        schedule=schedule,
        solver=SOLVERS[name],
        steps=STEPS,
        grid=grids.by_name(spacing),
    )
    draw.check()

    def step(state, i):
        state = draw.advance(keys, mixture, state, Conditioning(), first=i, count=1)
        return state, (state.z, state.x)

    first = draw.init(jnp.asarray(named_weights.normal("prior", SHAPE)))
    _, (z, x) = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(STEPS)))(first)
    np.testing.assert_allclose(z[:-1], GOLDEN[name][:-1], atol=1e-5, rtol=0)
    # Their last step leaves x, but for cases that end at the table's first level.
    last = z[-1] if "final_sigmas_type" in settings else x[-1]
    np.testing.assert_allclose(last, GOLDEN[name][-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", sorted(ABOUT["spacings"]))
def test_spacings_are_those_of_diffusers(name):
    schedule = schedules.DiscreteSchedule()
    for steps, golden in ABOUT["spacings"][name].items():
        times = np.asarray(grids.by_name(name)(schedule, int(steps)))
        assert np.round(times[:-1] * 1000).astype(int).tolist() == golden
