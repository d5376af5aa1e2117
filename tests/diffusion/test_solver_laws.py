"""What holds of every solver: its order, its distribution, its history, its calls."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.cascade import recipe
from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import (
    grids,
    karras,
    multistep,
    noise,
    prediction,
    process,
    sampler,
    schedules,
    solvers,
)

COND = Conditioning()
COSINE = schedules.CosineSchedule()
TABLE = schedules.DiscreteSchedule(betas="linear")
KEYS = jax.random.split(jax.random.key(0), 64)
run = jax.jit(lambda s, denoiser, z: s(KEYS, denoiser, z, COND), static_argnums=1)

NOISY = {
    "ddim_1": solvers.DDIM(eta=1.0),
    "ddpm": solvers.ddpm("fixed_large"),
    "dpmpp_2m_sde": multistep.DPMpp2MSDE(),
    "euler_churn": karras.Euler(churn=0.2),
    "heun_churn": karras.Heun(churn=0.2, s_min=0.05, s_max=50.0),
}
QUIET = {
    "ddim": solvers.DDIM(),
    "heun": karras.Heun(),
    "dpmpp_2m": multistep.DPMpp2M(),
    "unipc": multistep.UniPC(),
    "unipc_3": multistep.UniPC(order=3, variant="bh1"),
}
ALL = {**NOISY, **QUIET, "ancestral": solvers.Ancestral(), "euler": karras.Euler()}


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Pixels of -0.5 or 0.5, each blurred by 0.1, and E[x | z] for them."""

    weight: float = 0.3

    def __call__(self, z, level, cond):
        _, alpha, sigma = noise.broadcast(level, z)
        variance = jnp.square(0.1 * alpha) + jnp.square(sigma)
        # The log-odds of +0.5, whose weight is 1 - `weight`.
        odds = alpha * z / variance + np.log(1.0 / self.weight - 1.0)
        centre = 0.5 * jnp.tanh(0.5 * odds)
        return prediction.from_x(
            centre + 0.01 * alpha / variance * (z - alpha * centre), z, level
        )


def make(solver, steps=40, schedule=COSINE, grid=grids.UNIFORM):
    s = sampler.Sampler(schedule=schedule, solver=solver, steps=steps, grid=grid)
    s.check()
    return s


@pytest.mark.parametrize("name", sorted({**NOISY, **QUIET}))
def test_a_mixture_is_recovered(name):
    s = make(ALL[name], 64, grid=grids.by_name("karras", sigma_max=30.0))
    x = np.asarray(run(s, Mixture(), s.prior(KEYS, (16, 16, 1))))
    upper = x[x > 0]
    # 16384 pixels: standard errors of 0.004, 0.001 and 0.001.
    np.testing.assert_allclose(upper.size / x.size, 0.7, atol=0.02)
    np.testing.assert_allclose(upper.mean(), 0.5, atol=0.01)
    np.testing.assert_allclose(upper.std(), 0.1, atol=0.01)


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_2m_sde", "heun_churn", "unipc"])
def test_a_gaussian_is_recovered_where_variance_explodes(name, gaussian, exploding):
    s = make(ALL[name], 128, schedule=exploding, grid=grids.by_name("karras"))
    x = np.asarray(run(s, gaussian, s.prior(KEYS, (16, 16, 1))))
    np.testing.assert_allclose(x.mean(), 0.3, atol=0.01)
    np.testing.assert_allclose(x.std(), 0.2, atol=0.01)


def flow(z, level_t, level_s, mean, std):
    """The probability flow of N(mean, std^2), quantile to quantile, in float64."""
    (a, b), (c, d) = (
        (np.float64(level.alpha), np.float64(level.sigma))
        for level in (level_t, level_s)
    )
    wide = np.sqrt((c * std) ** 2 + d**2) / np.sqrt((a * std) ** 2 + b**2)
    return c * mean + wide * (np.float64(z) - a * mean)


@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (solvers.DDIM(), 1),
        (karras.Euler(), 1),
        (karras.Heun(), 2),
        (multistep.DPMpp2M(), 2),
        (multistep.UniPC(order=1), 2),
        (multistep.UniPC(order=2), 3),
        (multistep.UniPC(order=2, variant="bh1"), 3),
    ],
    ids=["ddim", "euler", "heun", "dpmpp_2m", "unipc_1", "unipc_2", "unipc_2_bh1"],
)
def test_the_error_falls_with_the_solvers_order(solver, order, gaussian):
    # Data as wide as this keep the error above float32's roundings, but for the last
    # figures of order 3: so the slope is the one over all of 80 to 320 steps.
    wide = dataclasses.replace(gaussian, std=2.0)
    schedule = schedules.CosineSchedule(logsnr_min=-10.0, logsnr_max=10.0)
    keys, z = KEYS[:1], jnp.linspace(-3.0, 3.0, 101)[None]

    @jax.jit
    def error(steps):
        # One program for all: a grid of `steps` equal steps of log-SNR.
        along = jnp.arange(321, dtype=jnp.float32) / steps.astype(jnp.float32)
        levels = noise.variance_preserving(-10.0 + 20.0 * along)

        def step(i, state):
            level_t, level_s = (
                jax.tree.map(lambda a, j=j: a[None, j], levels) for j in (i, i + 1)
            )
            return solver.update(
                keys, state, lambda z, level: wide(z, level, COND), level_t, level_s
            )

        return jax.lax.fori_loop(0, steps, step, solver.init(z)).z

    ends = jax.tree.map(np.asarray, schedule(jnp.array([1.0, 0.0])))
    level_t, level_s = (noise.NoiseLevel(*(a[i] for a in ends)) for i in (0, 1))
    exact = flow(z, level_t, level_s, wide.mean, wide.std)
    errors = [
        np.sqrt(np.square(error(jnp.int32(n)) - exact).mean()) for n in (80, 160, 320)
    ]
    slope = 0.5 * np.log2(errors[0] / errors[2])
    np.testing.assert_allclose(slope, order, atol=0.2)


def test_euler_is_ddim(gaussian):
    s, other = make(karras.Euler()), make(solvers.DDIM())
    z = s.prior(KEYS, (4, 4, 1))
    np.testing.assert_allclose(run(s, gaussian, z), run(other, gaussian, z), atol=1e-6)


def test_ddim_with_all_its_noise_is_the_ancestral_sampler(gaussian):
    s, other = make(solvers.DDIM(eta=1.0)), make(solvers.ddpm())
    z = s.prior(KEYS, (4, 4, 1))
    np.testing.assert_allclose(run(s, gaussian, z), run(other, gaussian, z), atol=1e-4)


def test_churn_keeps_the_marginal_at_the_level_it_tells(gaussian, exploding):
    for schedule in (COSINE, exploding):
        levels = schedule(jnp.array([0.6, 0.5]))
        level_t, level_s = (
            jax.tree.map(lambda a, i=i: jnp.full(64, a[i]), levels) for i in (0, 1)
        )
        x = 0.3 + 0.2 * jax.random.normal(jax.random.key(1), (64, 32, 32))
        z, _ = process.diffuse(jax.random.key(2), x, level_t)
        churned, level = karras.Euler(churn=0.3).churned(KEYS, z, level_t, level_s)
        kappa = np.asarray(level.sigma / level.alpha)
        np.testing.assert_allclose(kappa, 1.3 * level_t.sigma / level_t.alpha, 1e-5)
        np.testing.assert_allclose(-2 * np.log(kappa), level.logsnr, atol=1e-4)
        std = np.sqrt(np.square(0.2 * level.alpha[0]) + np.square(level.sigma[0]))
        np.testing.assert_allclose(churned.std(), std, rtol=0.01)
        mean = 0.3 * level.alpha[0]
        np.testing.assert_allclose(churned.mean(), mean, atol=0.02 * std)
        total = np.square(level.alpha) + np.square(level.sigma)
        kept = total if schedule is COSINE else level.alpha
        np.testing.assert_allclose(kept, 1.0, rtol=1e-5)
        for held in (karras.Euler(), karras.Euler(churn=0.3, s_max=1e-6)):
            same, level = held.churned(KEYS, z, level_t, level_s)
            np.testing.assert_array_equal(same, z)
            np.testing.assert_array_equal(level.sigma, level_t.sigma)


@pytest.mark.parametrize("name", sorted(ALL))
def test_slices_equal_one_run_to_the_bit(name, gaussian):
    s, keys = make(ALL[name], 6), KEYS[:2]
    z = s.prior(keys, (3, 3, 1))
    whole = jax.jit(lambda s, z: s(keys, gaussian, z, COND))(s, z)
    half = jax.jit(
        lambda s, state, first: s.advance(
            keys, gaussian, state, COND, first=first, count=2
        )
    )
    state = s.init(z)
    for first in (0, 2, 4):
        state = half(s, state, first)
    np.testing.assert_array_equal(state.x, whole)
    assert np.all(np.isfinite(state.x)) and np.all(np.isfinite(state.z))
    # A batch is split by its first axis, histories too.
    assert {a.shape[0] for a in jax.tree.leaves(state)} == {2}


@pytest.mark.parametrize("name", sorted(ALL))
def test_steps_of_no_length_change_nothing(name, gaussian):
    levels = COSINE(jnp.array([1.0, 1.0, 0.5, 0.5, 0.5, 0.2, 0.1, 0.0, 0.0]))
    keys, solver = KEYS[:2], ALL[name]
    if name.endswith("churn"):  # Churn adds noise in any step.
        solver = dataclasses.replace(solver, churn=0.0)

    @jax.jit
    def drawn(places):
        def step(state, i):
            level_t, level_s = (
                jax.tree.map(lambda a, j=j: jnp.full(2, a[j]), levels)
                for j in (places[i], places[i + 1])
            )
            denoise = lambda z, level: gaussian(z, level, COND)  # noqa: E731
            state = solver.update(keys, state, denoise, level_t, level_s)
            return state, (state.z, state.x)

        z = jax.random.normal(jax.random.key(3), (2, 3, 3, 1))
        return jax.lax.scan(step, solver.init(z), jnp.arange(8))[1]

    z, x = drawn(jnp.arange(9))
    assert np.all(np.isfinite(z)) and np.all(np.isfinite(x))
    np.testing.assert_allclose(z[2], z[3], atol=1e-6)
    if not name.startswith("unipc"):  # It corrects z by the call at its own level.
        np.testing.assert_allclose(z[6], z[7], atol=1e-3)


@pytest.mark.parametrize("name", sorted(ALL))
def test_calls_of_the_network_are_those_it_tells(name, gaussian):
    called = []

    def counted(z, level, cond):
        called.append(z.shape)
        return gaussian(z, level, cond)

    s = make(ALL[name], 4)
    with jax.disable_jit():
        s(KEYS[:1], counted, jnp.zeros((1, 2)), COND)
    # Heun's last step is to sigma = 0, as in the paper.
    assert len(called) == (7 if s.solver.calls == 2 else 4)
    assert (s.solver.calls == 2) == name.startswith("heun")


@pytest.mark.parametrize(
    ("name", "settings", "changed"),
    [
        ("ddim", {}, "eta"),
        ("heun", {}, "churn"),
        ("euler", {"churn": 0.1}, "s_noise"),
    ],
)
def test_a_new_number_does_not_recompile(name, settings, changed, gaussian):
    traced = []

    def counted(z, level, cond):
        traced.append(name)
        return gaussian(z, level, cond)

    draw = jax.jit(lambda s, z: s(KEYS[:1], counted, z, COND))
    found = []
    for value in (0.2, 0.3, 0.4):
        solver = recipe.make_solver(name, **{**settings, changed: value})
        found.append(draw(make(solver, 4), jnp.ones((1, 4))))
        if len(found) == 1:
            once = len(traced)
    assert len(traced) == once
    assert np.any(found[0] != found[1]) and np.any(found[1] != found[2])


def test_a_learned_variance_is_for_the_ancestral_sampler_alone(gaussian):
    def learned(z, level, cond):
        return gaussian(z, level, cond)._replace(gamma=jnp.ones_like(z))

    z = make(solvers.DDIM()).prior(KEYS, (4,))
    for name in ("ddim_1", "dpmpp_2m_sde", "unipc", "ancestral"):
        s = make(ALL[name], 4)
        same = np.array_equal(run(s, learned, z), run(s, gaussian, z))
        assert same == (name != "ancestral")


def test_vandermonde_weights_meet_their_moments():
    nodes = [jnp.array([-3.0, -0.1]), jnp.array([-1.0, -2.0]), jnp.ones(2)]
    moments = [jnp.array([0.5, 0.2]), jnp.array([0.3, 0.1]), jnp.array([-1.0, 2.0])]
    weights = multistep.vandermonde(nodes, moments)
    for i, moment in enumerate(moments):
        total = sum(w * n**i for w, n in zip(weights, nodes, strict=True))
        np.testing.assert_allclose(total, moment, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_phi_is_exact_at_both_ends(m):
    h = np.array([0.0, 1e-4, 0.3, 0.99, 1.01, 7.5, 40.0])
    terms = np.cumprod(np.concatenate([[1.0], np.arange(1, 60)]))
    # The integral of e^((1 - u) y) u^(m - 1) / (m - 1)! over [0, 1], by Gauss.
    u, weight = np.polynomial.legendre.leggauss(80)
    u, weight = 0.5 * (u + 1), 0.5 * weight
    inside = np.exp(-(1 - u) * h[:, None]) * u ** (m - 1) / terms[m - 1]
    found = multistep.phi(m, jnp.asarray(h, jnp.float32))
    np.testing.assert_allclose(found, inside @ weight, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class Odd:
    """A schedule that keeps neither alpha nor the variance; or that is no schedule."""

    rising: bool = False
    infinite: bool = False

    def __call__(self, t):
        logsnr = (20.0 * t - 10.0) * (1.0 if self.rising else -1.0)
        level = noise.variance_preserving(logsnr)
        alpha = jnp.where(t >= 1.0, 0.0, 1.0) if self.infinite else 1.0 + t
        return noise.NoiseLevel(
            jnp.where(alpha == 0.0, -jnp.inf, logsnr),
            level.alpha * alpha,
            level.sigma * (1.0 + t),
        )


def test_what_cannot_be_combined_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"Heun: churn = 0 is required.*between its"):
        make(karras.Heun(churn=0.1), schedule=TABLE)
    with pytest.raises(ValueError, match=r"Euler: churn = 0 .*Odd.*neither alpha nor"):
        make(karras.Euler(churn=0.1), schedule=Odd())
    make(karras.Heun(), schedule=TABLE)
    make(karras.Heun(), schedule=Odd())
    with pytest.raises(ValueError, match=r"Odd must have a log-SNR that falls"):
        make(solvers.DDIM(), schedule=Odd(rising=True))
    with pytest.raises(ValueError, match=r"finite levels .*from -inf.*cut Odd"):
        make(solvers.DDIM(), schedule=Odd(infinite=True))


@pytest.mark.parametrize(
    ("make_one", "named"),
    [
        (lambda: solvers.DDIM(eta=1.5), "DDIM: eta must be in"),
        (lambda: karras.Heun(churn=-0.1), "Heun: churn must be in"),
        (lambda: karras.Euler(s_noise=-1.0), "Euler: s_noise must be in"),
        (lambda: multistep.UniPC(order=4), r"order must be one of \(1, 2, 3\), got 4"),
        (lambda: multistep.UniPC(variant="bh3"), "variant must be one of.*'bh3'"),
    ],
)
def test_a_bad_number_is_named(make_one, named):
    with pytest.raises(ValueError, match=named):
        make_one()
