"""Every test sees eight CPU devices, checked shapes and no silent broadcasting."""

import os

from tests import compiling

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["IMAGEN_JAX_TYPECHECK"] = "1"
os.environ["XLA_FLAGS"] = compiling.flags(os.environ.get("XLA_FLAGS", ""))

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
