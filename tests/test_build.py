import jax
import numpy as np
import pytest

from imagen_jax import build, partitioning
from imagen_jax.checkpoints import model_directory
from imagen_jax.commands import configs
from imagen_jax.diffusion import langevin, schedules, sde


def test_a_frozen_text_encoder_is_split_over_the_mesh_in_its_own_dtype(tmp_path):
    config = configs.load("shapes/base")
    config.text.encoder.dtype = "bfloat16"
    module = build.make_text_module(config)
    shapes = build.shapes_of(build.encoder_init(module, config.text.length))
    params = jax.tree.map(lambda a: np.full(a.shape, 0.1, a.dtype), shapes)
    model_directory.write(tmp_path, [], {"text": params}, "float32")
    config.text.weights = str(tmp_path)
    mesh = partitioning.make_mesh({"fsdp": 4, "tensor": 2})
    placed = build.frozen_params(config, mesh)
    kernel = placed["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"]
    rows, columns = kernel.shape
    assert kernel.sharding.shard_shape(kernel.shape) == (rows // 4, columns // 2)
    assert kernel.dtype == "bfloat16" and np.all(abs(kernel - 0.1) < 1e-3)
    # Sums of the norms and the position bias are taken in float32.
    assert placed["encoder"]["encoder_norm"]["scale"].dtype == "float32"
    assert placed["encoder"]["relpos_bias"]["rel_embedding"].dtype == "float32"


def test_a_config_names_the_score_sdes_and_their_solvers():
    config = configs.load("shapes/base")
    config.diffusion.parameterization = "eps"
    for kind, made in (
        ("ve", schedules.ExplodingSchedule(sigma_max=20.0)),
        ("sub_vp", schedules.SubVPSchedule()),
        ("linear", schedules.LinearSchedule()),
    ):
        more = {"sigma_max": 20.0} if kind == "ve" else {}
        with config.unlocked():
            config.diffusion.schedule = {"type": kind, **more}
        assert build.make_stage(config).schedule == made
    with config.unlocked():
        config.sampling.solver = {
            "name": "predictor_corrector",
            "predictor": "probability_flow",
            "snr": 0.1,
        }
    assert build.make_recipe(config).solver == langevin.PredictorCorrector(
        predictor=sde.ProbabilityFlow(), snr=0.1
    )
    with config.unlocked():
        config.diffusion.schedule = {"type": "ve"}
    config.diffusion.parameterization = "v"
    with pytest.raises(ValueError, match=r"got ExplodingSchedule\. Use EPS or X"):
        build.make_stage(config)
