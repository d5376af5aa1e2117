"""The tiny DeepFloyd IF of tests/golden/make_deepfloyd.py, in our terms."""

import functools
import json
import pathlib

import numpy as np

from imagen_jax.checkpoints import tensors
from imagen_jax.models import deepfloyd_unet
from imagen_jax.published import deepfloyd, deepfloyd_config
from tests.golden import named_weights

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "deepfloyd.npz")
ABOUT = json.loads(str(GOLDEN["description"]))
TEXT, TOKENS = 24, 7
SHAPE = (3, 8, 12, 3)


class Named:
    """A checkpoint of diffusers whose arrays are made from their names: `Tensors`."""

    where = "named weights"

    def __init__(self, stage: str):
        self.stage, self.shapes = stage, ABOUT["tensors"][stage]

    def names(self):
        return sorted(self.shapes)

    def shape(self, name):
        return tuple(self.shapes[name])

    def dtype(self, name):
        return np.dtype(np.float32)

    def read(self, name):
        return named_weights.weight(f"{self.stage}/{name}", self.shape(name))


def network(stage: str, **changes) -> deepfloyd_unet.DeepFloydUNet:
    fields = deepfloyd_config.network_fields(ABOUT["unets"][stage], "config.json")
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return deepfloyd_unet.DeepFloydUNet(**{**fields, **changes})


@functools.cache
def shapes(stage: str):
    return deepfloyd.shapes_of(network(stage), TEXT, low_res=stage == "2")


@functools.cache
def table(stage: str) -> tensors.Table:
    return deepfloyd.table(network(stage), shapes(stage))


@functools.cache
def params(stage: str):
    return tensors.transfer(Named(stage), table(stage), shapes(stage))


def tokens(name: str, batch: int) -> np.ndarray:
    return named_weights.normal(name, (batch, TOKENS, TEXT))
