import jax
import pytest

from imagen_jax.commands import train


@pytest.fixture(autouse=True)
def cache():
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize(
    ("flag", "environment", "found"),
    [
        (None, None, "run/compiled"),
        (None, "shared", "shared"),
        ("mine", "shared", "mine"),
        ("none", "shared", None),
    ],
)
def test_compiled_programs_lie_in_the_workdir_unless_told(flag, environment, found):
    jax.config.update("jax_compilation_cache_dir", environment)
    train.keep_compiled(flag, "run")
    assert jax.config.jax_compilation_cache_dir == found


def test_an_object_store_keeps_compiled_programs_too():
    train.keep_compiled(None, "gs://bucket/run")
    assert jax.config.jax_compilation_cache_dir == "gs://bucket/run/compiled"
