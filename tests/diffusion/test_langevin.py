import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import langevin, noise, sampler, schedules, sde, solvers
from tests.diffusion import mixture

COND = Conditioning()
VE = schedules.ExplodingSchedule()
KEYS = jax.random.split(jax.random.key(0), 32)
SHAPE = (16, 16, 1)
draw = jax.jit(
    lambda s, keys: s(keys, mixture.Mixture(), s.prior(keys, SHAPE), COND),
)


def known(z, level):
    return mixture.Mixture()(z, level, COND)


@pytest.mark.parametrize(
    "schedule",
    [VE, schedules.LinearSchedule(), schedules.SubVPSchedule()],
    ids=["ve", "vp", "sub_vp"],
)
def test_predictor_and_corrector_recover_a_mixture(schedule):
    solver = langevin.PredictorCorrector()
    x = draw(sampler.Sampler(schedule=schedule, solver=solver, steps=150), KEYS)
    assert mixture.distance(x) < 0.025


# What the spread of pixels lacks of 0.2, relative, at 100 calls: by hand, from the
# recursion of a Gaussian's variance.
@pytest.mark.parametrize(
    "predictor, alone, corrected",
    [
        ("reverse_diffusion", 0.043, 0.023),
        ("ancestral", -0.042, -0.008),
        ("probability_flow", -0.238, -0.012),
    ],
)
def test_at_100_calls_a_corrector_beats_its_predictor(
    predictor, alone, corrected, gaussian
):
    uncorrected = langevin.PREDICTORS[predictor]
    pair = langevin.PredictorCorrector(predictor=uncorrected, snr=0.16)
    keys = jax.random.split(jax.random.key(1), 128)
    errors = []
    for solver in (uncorrected, pair):
        s = sampler.Sampler(schedule=VE, solver=solver, steps=100 // solver.calls)
        pure = s.prior(keys, (32, 32, 1))
        x = jax.jit(lambda keys, z, s=s: s(keys, gaussian, z, COND))(keys, pure)
        errors.append(float(x.std()) / gaussian.std - 1.0)
    np.testing.assert_allclose(errors, [alone, corrected], atol=0.006)
    assert abs(errors[1]) + 0.01 < abs(errors[0])


def test_at_100_calls_a_corrector_brings_the_flow_to_a_mixture():
    flow = sde.ProbabilityFlow()
    corrected = langevin.PredictorCorrector(predictor=flow, snr=0.16)
    alone = sampler.Sampler(schedule=VE, solver=flow, steps=100)
    both = sampler.Sampler(schedule=VE, solver=corrected, steps=50)
    assert alone.steps * flow.calls == both.steps * corrected.calls == 100
    for seed in range(3):
        keys = jax.random.split(jax.random.key(seed), 32)
        # 0.060 and 0.016 on 128 pictures; chance is 0.005.
        worse, better = (mixture.distance(draw(s, keys)) for s in (alone, both))
        assert better + 0.02 < worse, (seed, better, worse)


def test_annealed_langevin_recovers_a_mixture():
    schedule = schedules.ExplodingSchedule(sigma_min=0.03, sigma_max=5.0)
    solver = langevin.AnnealedLangevin()
    x = draw(sampler.Sampler(schedule=schedule, solver=solver, steps=150), KEYS)
    assert mixture.distance(x) < 0.03
    # Of the two kinds of pixels as many as there should be.
    np.testing.assert_allclose((np.asarray(x) < -0.2).mean(), 0.3, atol=0.02)


def test_annealed_langevin_is_the_same_in_every_scale():
    """A schedule's z / alpha and sigma / alpha are those of the exploding one."""
    z = jax.random.normal(jax.random.key(1), (4, 8))
    solver = langevin.AnnealedLangevin(repeats=3)
    ends = [noise.variance_exploding(jnp.full(4, s, jnp.float32)) for s in (0.5, 0.45)]
    wide = solver.update(KEYS[:4], solver.init(z), known, *ends)
    preserving = [noise.variance_preserving(level.logsnr) for level in ends]
    start = noise.expand(preserving[0].alpha, z) * z
    narrow = solver.update(KEYS[:4], solver.init(start), known, *preserving)
    np.testing.assert_allclose(narrow.x, wide.x, atol=1e-5)
    end = narrow.z / noise.expand(preserving[1].alpha, z)
    np.testing.assert_allclose(end, wide.z, atol=1e-5)


def test_a_langevin_step_is_the_papers():
    """Algorithm 5 with norms of each example, then the predictor from there."""
    level_t, level_s = (
        jax.tree.map(lambda a: jnp.broadcast_to(a, 4), schedules.LinearSchedule()(t))
        for t in (jnp.array([0.5], jnp.float32), jnp.array([0.45], jnp.float32))
    )
    z = jax.random.normal(jax.random.key(1), (4, 8))
    solver = langevin.PredictorCorrector(
        predictor=sde.ProbabilityFlow(), snr=0.3, corrector_steps=2
    )
    assert solver.calls == 3
    state = solver.update(KEYS[:4], solver.init(z), known, level_t, level_s)
    fold = jax.vmap(jax.random.fold_in, (0, None))
    kept = (level_t.alpha[0] / level_s.alpha[0]) ** 2
    for index in (1, 2):
        gradient = sde.score(known(z, level_t).eps, level_t)
        fresh = noise.normal(fold(KEYS[:4], index), z.shape)
        norms = [jnp.linalg.norm(a, axis=1, keepdims=True) for a in (fresh, gradient)]
        e = 2.0 * kept * (0.3 * norms[0] / norms[1]) ** 2
        z = z + e * gradient + jnp.sqrt(2.0 * e) * fresh
    # The picture is the prediction at the corrected z.
    np.testing.assert_allclose(state.x, known(z, level_t).x, atol=1e-4)
    alone = sde.ProbabilityFlow()
    after = alone.update(KEYS[:4], alone.init(z), known, level_t, level_s)
    np.testing.assert_allclose(state.z, after.z, atol=1e-4)


SOLVERS = {
    "predictor_corrector": langevin.PredictorCorrector(corrector_steps=2),
    "annealed_langevin": langevin.AnnealedLangevin(repeats=2),
}


def make(solver, steps=6):
    return sampler.Sampler(schedule=VE, solver=solver, steps=steps)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_a_picture_does_not_depend_on_its_batch(solver):
    s, keys = make(solver), KEYS[:3]
    z = s.prior(keys, (4, 4, 1))
    # Neighbours far from any data, whose norms a mean over the batch would be of.
    z = z.at[jnp.array([0, 2])].multiply(1e3)
    one = jax.jit(lambda keys, z: s(keys, mixture.Mixture(), z, COND))
    together, alone = one(keys, z), one(keys[1:2], z[1:2])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_slices_equal_one_run_to_the_bit(solver):
    s, keys = make(solver), KEYS[:3]
    z = s.prior(keys, (4, 4, 1))
    whole = jax.jit(lambda z: s(keys, mixture.Mixture(), z, COND))(z)
    advance = jax.jit(
        lambda state, first: s.advance(
            keys, mixture.Mixture(), state, COND, first=first, count=2
        )
    )
    state = s.init(z)
    for first in (0, 2, 4):
        state = advance(state, first)
    np.testing.assert_array_equal(state.x, whole)


def test_new_numbers_do_not_recompile():
    traced = []

    def counted(z, level, cond):
        traced.append(z.shape)
        return mixture.Mixture()(z, level, cond)

    go = jax.jit(lambda s, z: s(KEYS[:3], counted, z, COND))
    z = make(SOLVERS["annealed_langevin"]).prior(KEYS[:3], (4, 4, 1))
    for kind, name in (
        (langevin.PredictorCorrector, "snr"),
        (langevin.AnnealedLangevin, "step"),
    ):
        a = go(make(kind(**{name: 0.1})), z)
        before = len(traced)
        b = go(make(kind(**{name: 0.2})), z)
        assert len(traced) == before and np.any(a != b)


class Remembering(solvers.DDIM):
    """A solver with a history."""

    def init(self, z):
        return (z, z, z)


def test_what_cannot_be_combined_is_refused():
    with pytest.raises(ValueError, match=r"must not remember .* got Remembering"):
        langevin.PredictorCorrector(predictor=Remembering()).init(jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"predictor must be one of .* got 'heun'"):
        langevin.predictor_corrector("heun")
    with pytest.raises(ValueError, match="corrector_steps must be >= 1, got 0"):
        langevin.PredictorCorrector(corrector_steps=0)
    with pytest.raises(ValueError, match="snr must be > 0"):
        langevin.PredictorCorrector(snr=0.0)
    with pytest.raises(ValueError, match=r"step must be in \(0, 4\), got 4.0"):
        langevin.AnnealedLangevin(step=4.0)
    with pytest.raises(ValueError, match="repeats must be >= 1"):
        langevin.AnnealedLangevin(repeats=0)


def test_a_corrector_asks_what_its_predictor_asks():
    class Refusing(sde.ProbabilityFlow):
        def check(self, schedule):
            raise ValueError(f"not on {type(schedule).__name__}")

    with pytest.raises(ValueError, match="not on ExplodingSchedule"):
        langevin.PredictorCorrector(predictor=Refusing()).check(VE)
