import dataclasses
import itertools

import flax.linen as nn
import jax
import numpy as np
import pytest

from imagen_jax.cascade import cascade, images, recipe, request, sizes, stage
from imagen_jax.diffusion import prediction, schedules, solvers
from imagen_jax.models import efficient_unet, unet


@pytest.fixture(scope="module")
def three():
    """Stages of Imagen's resolutions, with the least of networks."""
    common = {"schedule": schedules.CosineSchedule(), "parameterization": prediction.X}

    def enlarging(name, low, side):
        network = efficient_unet.EfficientUNet(
            channels=(8,),
            num_res_blocks=(1,),
            strides=(2,),
            attention=("none",),
            space_to_depth=8,
            input_skip=True,  # Untrained, they enlarge.
        )
        return stage.Stage(
            name=name, network=network, resolution=side, low_resolution=low, **common
        )

    base = unet.UNet(
        channels=16,
        channel_mult=(1, 1),
        num_res_blocks=1,
        attention_levels=(1,),
        head_dim=16,
        space_to_depth=4,
    )
    return cascade.Cascade(
        stages=(
            stage.Stage(name="base", network=base, resolution=64, **common),
            enlarging("middle", 64, 256),
            enlarging("large", 256, 1024),
        )
    )


def test_a_wide_picture_goes_through_all_three_stages(three):
    """1536 x 640: 96 x 40 at the base, which makes no square of it anywhere."""
    base, enlarging = (
        nn.unbox(jax.jit(s.init)(jax.random.key(0))) for s in three.stages[:2]
    )
    kernel = base["head"]["conv"]["kernel"]
    base["head"]["conv"]["kernel"] = jax.random.normal(jax.random.key(2), kernel.shape)
    drawn = three.sample(
        jax.random.split(jax.random.key(1), 1),
        [base, enlarging, enlarging],
        request.Request(size=(640, 1536)),
        [recipe.SamplingRecipe(solver=solvers.DDIM(), steps=1, w=None)] * 3,
    )
    shapes = [x.shape for x in drawn]
    assert shapes == [(1, 40, 96, 3), (1, 160, 384, 3), (1, 640, 1536, 3)]
    assert drawn[0].std() > 0.1
    for small, large in itertools.pairwise(drawn):
        again = images.resize(large, small.shape[1:3])
        assert np.corrcoef(np.ravel(again), np.ravel(small))[0, 1] > 0.9


def test_a_size_that_a_network_cannot_halve_is_refused_with_the_nearest(three):
    assert sizes.multiple(three.stages) == 128
    message = r"multiples of 128.*base, middle, large.*600 x 1500.*640 x 1536"
    with pytest.raises(ValueError, match=message):
        sizes.of_stages(three.stages, (600, 1500))
    # Of super-resolution alone only its own networks count.
    assert sizes.multiple(three.stages[1:]) == 64
    with pytest.raises(ValueError, match="the nearest is 128 x 128"):
        sizes.of_stages(three.stages, (1, 1))


def test_a_picture_keeps_its_size_if_that_fits_and_its_shape_if_not(three):
    assert sizes.fitting(three.stages, (640, 1536)) == (640, 1536)
    assert sizes.fitting(three.stages, (300, 720)) == (640, 1536)
    # All stages take it, but none of them knows so small pictures.
    assert sizes.fitting(three.stages, (128, 256)) == (768, 1408)


def test_drawing_begins_at_the_stage_that_takes_both_sides(three):
    low = np.zeros((1, 40, 96, 3), np.float32)
    found = three.plan(request.Request(low_res=low, size=(640, 1536)))
    assert found == (1, ((160, 384), (640, 1536)))
    wide = np.zeros((1, 160, 384, 3), np.float32)
    assert three.plan(request.Request(low_res=wide, size=(640, 1536)))[0] == 2
    message = r"one of \['40 x 96', '160 x 384'\] px for pictures of 640 x 1536"
    with pytest.raises(ValueError, match=message):
        three.plan(request.Request(low_res=low[:, :, :64], size=(640, 1536)))
    # One side is not enough.
    with pytest.raises(ValueError, match="got 64 x 96"):
        three.plan(request.Request(low_res=np.zeros((1, 64, 96, 3), np.float32)))
    assert three.sizes_after(1, (160, 384)) == ((160, 384), (640, 1536))


def test_tiles_that_a_network_cannot_see_are_refused(three):
    large = three.stages[2]
    sizes.check_tile(large, 0, (640, 1536))
    sizes.check_tile(large, 256, (640, 1536))
    with pytest.raises(
        ValueError, match=r"multiple of 16, got 250; the nearest is 256"
    ):
        sizes.check_tile(large, 250, (640, 1536))
    placed = dataclasses.replace(large.network, positions="coordinates")
    knowing = dataclasses.replace(large, network=placed)
    sizes.check_tile(knowing, 256, (256, 256))
    with pytest.raises(ValueError, match="large: its attention reads the coordinates"):
        sizes.check_tile(knowing, 256, (640, 1536))
