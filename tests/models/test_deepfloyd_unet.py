import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax import partitioning
from imagen_jax.conditioning import Conditioning
from imagen_jax.models import deepfloyd_unet
from imagen_jax.training import layout
from tests import deepfloyd
from tests.golden import named_weights

# IF-I-XL-v1.0 and IF-II-L-v1.0, as their config.json say.
I_XL = {"channels": (704, 1408, 2112, 2816)}
II_L = {
    "channels": (160, 320, 640, 960, 1280),
    "num_res_blocks": (2, 2, 3, 5, 5),
    "attention_levels": (3, 4),
    "text_features": 1280,
    "embedding_width": 1280,
    "embedding_activation": "gelu",
    "activate_embedding": False,
    "residual_factor": 1 / 1.4142271248762552,
    "middle_residual_factor": 1 / 1.4142271248762552,
}


def boxed(fields, low_res):
    network = deepfloyd_unet.DeepFloydUNet(**fields)
    z = jnp.zeros((1, network.size_multiple, network.size_multiple, 3))
    cond = Conditioning(
        tokens=jnp.zeros((1, 77, 4096)),
        planes=z if low_res else None,
        aug_level=jnp.zeros(1) if low_res else None,
    )
    return jax.eval_shape(network.init, jax.random.key(0), z, jnp.zeros(1), cond)


@pytest.fixture(scope="module")
def full_sizes():
    return boxed(I_XL, False)["params"], boxed(II_L, True)["params"]


def test_full_sizes_count_what_the_published_files_hold(full_sizes):
    sizes = [sum(a.size for a in jax.tree.leaves(tree)) for tree in full_sizes]
    assert sizes == [4_304_695_110, 1_243_277_190]


def test_full_sizes_are_split_over_a_mesh(full_sizes):
    # An axis that the table does not know would raise here.
    mesh = partitioning.make_mesh({"fsdp": 4, "tensor": 2})
    for tree in full_sizes:
        placed = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=sharding
            ),
            partitioning.unbox(tree),
            partitioning.param_shardings(mesh, tree),
        )
        layout.check(mesh, placed, 0.02)
        assert layout.replicated_share(placed) < 0.002


def condition():
    return Conditioning(
        tokens=jnp.asarray(deepfloyd.tokens("tokens", 3)),
        # IF's networks read all places.
        mask=jnp.zeros((3, deepfloyd.TOKENS), bool),
        planes=jnp.asarray(named_weights.normal("planes", deepfloyd.SHAPE)),
        aug_level=jnp.array([0.0, 0.25, 0.977]),
    )


def test_stage_2_equals_diffusers(run):
    # Mean and variance channels; float32 sums in another order. Stage I's output is
    # compared in tests/published/test_deepfloyd.py, with its gradients.
    z = named_weights.normal("z", deepfloyd.SHAPE)
    t = jnp.array([3, 250, 731], jnp.float32) / 1000
    params = {"params": deepfloyd.params("2")}
    output = run(deepfloyd.network("2"), params, z, t, condition())
    golden = deepfloyd.GOLDEN["forward/output"]
    assert golden.shape == (3, 8, 12, 6) and golden.std() > 0.3
    np.testing.assert_allclose(output, golden, atol=1e-4 * golden.std(), rtol=0)


def test_steps_are_counted_as_in_the_table():
    t = jnp.arange(1000, dtype=jnp.float32) / 1000
    np.testing.assert_array_equal(deepfloyd_unet.timestep(t, 1000), np.arange(1000))
    ends = deepfloyd_unet.timestep(jnp.array([1.0, 0.2505]), 1000)
    np.testing.assert_array_equal(ends, [999, 250])


def test_wrong_fields_are_refused():
    def refused(words, **changes):
        with pytest.raises(ValueError, match=words):
            deepfloyd_unet.DeepFloydUNet(**{"channels": (32, 64), **changes})

    refused("num_res_blocks must be one number or 2", num_res_blocks=(1, 2, 3))
    refused("activation must be one of", activation="mish")
    refused("text_features must be a multiple of 32", text_features=40)
    refused("width 32 of level 0 must be a multiple", num_groups=24)
    refused("width 64 of level 1 must be a multiple", head_dim=48)
