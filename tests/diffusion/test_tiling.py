import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.conditioning import Conditioning
from imagen_jax.diffusion import prediction, sampler, schedules, solvers, tiling

COSINE = schedules.CosineSchedule()
KEYS = jax.random.split(jax.random.key(3), 2)
SHAPE = (48, 80, 3)
PLANES = jax.random.normal(jax.random.key(4), (2, *SHAPE))
COND = Conditioning(planes=PLANES, aug_level=jnp.zeros(2))


def local(z, level, cond):
    """Reads each pixel and its plane alone."""
    return prediction.from_x(jnp.tanh(z + cond.planes), z, level)


def drifting(z, level, cond):
    """As a norm does, takes something from all that it sees: tiles disagree."""
    seen = jnp.mean(cond.planes, (1, 2, 3), keepdims=True)
    return prediction.from_x(0.2 * cond.planes + seen, z, level)


def predict(denoiser, t=0.5, cond=COND):
    z = jax.random.normal(jax.random.key(5), (2, *SHAPE))
    return denoiser(z, COSINE(jnp.full(2, t)), cond)


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
@pytest.mark.parametrize(
    ("side", "tile", "align"), [(100, 32, 4), (64, 32, 8), (36, 32, 4), (20, 32, 4)]
)
def test_tiles_cover_a_side_and_their_weights_sum_to_one(side, tile, align, overlap):
    starts = tiling.places(side, tile, overlap, align)
    tile = min(tile, side)
    assert starts[0] == 0 and starts[-1] + tile == side
    assert (starts % align == 0).all() and (np.diff(starts) > 0).all()
    # At least the overlap asked for, as far as whole multiples allow.
    assert (starts[:-1] + tile - starts[1:] > overlap * tile - align).all()
    total = np.zeros(side)
    weights = tiling.ramps(starts, side, tile)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    np.testing.assert_allclose(total, 1.0, atol=1e-6)
    assert weights.min() >= 0.0


def test_a_network_that_looks_at_single_pixels_gives_the_same_in_tiles():
    whole = predict(local)
    tiles = predict(tiling.tiled(local, 16, 0.25, 4))
    np.testing.assert_allclose(tiles.x, whole.x, atol=1e-6)
    np.testing.assert_allclose(tiles.eps, whole.eps, atol=1e-5)


def test_the_network_sees_one_tile_at_a_time():
    seen = []

    def spy(z, level, cond):
        seen.append((z.shape, cond.planes.shape))
        return local(z, level, cond)

    predict(tiling.tiled(spy, 32, 0.25, 4))
    assert set(seen) == {((2, 32, 32, 3), (2, 32, 32, 3))}
    seen.clear()
    predict(tiling.tiled(spy, 64, 0.25, 4))  # higher than the picture
    assert set(seen) == {((2, 48, 64, 3), (2, 48, 64, 3))}
    seen.clear()
    predict(tiling.tiled(spy, 80, 0.25, 4))
    assert set(seen) == {((2, *SHAPE), (2, *SHAPE))}


def test_a_learned_variance_is_blended_too():
    def learned(z, level, cond):
        return local(z, level, cond)._replace(gamma=jnp.abs(cond.planes))

    found = predict(tiling.tiled(learned, 16))
    np.testing.assert_allclose(found.gamma, np.abs(PLANES), atol=1e-6)
    assert predict(tiling.tiled(local, 16)).gamma is None


def test_seams_do_not_show_where_tiles_disagree():
    """Tiles that take their own means from a picture that brightens evenly."""
    columns = jnp.linspace(-1.0, 1.0, SHAPE[1])
    smooth = jnp.broadcast_to(columns[None, None, :, None], (2, *SHAPE))
    cond = Conditioning(planes=smooth, aug_level=jnp.zeros(2))
    steps = sampler.Sampler(schedule=COSINE, solver=solvers.DDIM(), steps=4)
    z = steps.prior(KEYS, SHAPE)

    def gradients(overlap):
        tiles = tiling.tiled(drifting, 16, overlap, 4)
        x = np.asarray(steps(KEYS, tiles, z, cond))
        across = np.abs(np.diff(x, axis=2)).mean((0, 1, 3))
        starts = tiling.places(SHAPE[1], 16, overlap, 4)
        edges = {int(s) - 1 for s in starts[1:]} | {int(s) + 15 for s in starts[:-1]}
        seams = np.zeros(len(across), bool)
        seams[sorted(edges)] = True
        return across[seams].max(), across[~seams].max()

    seam, elsewhere = gradients(0.5)
    assert seam <= elsewhere
    # Without an overlap to blend over, the same tiles show their edges.
    edge, inside = gradients(0.0)
    assert edge > 10 * inside and elsewhere < 0.3 * edge


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="must be multiples of 32"):
        predict(tiling.tiled(local, 32, 0.25, 32))
    control = Conditioning(planes=PLANES, control=PLANES)
    with pytest.raises(ValueError, match="control picture"):
        predict(tiling.tiled(local, 16), cond=control)
    with pytest.raises(ValueError, match=r"overlap must be in \[0, 1\)"):
        predict(tiling.tiled(local, 16, 1.0))
