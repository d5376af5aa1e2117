"""Every test sees eight CPU devices, checked shapes and no silent broadcasting."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["IMAGEN_JAX_TYPECHECK"] = "1"
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    )

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
