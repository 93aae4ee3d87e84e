import jax
import pytest


@pytest.fixture(scope="module")
def quick_compilation():
    """For modules whose time goes into compiling small functions that run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
