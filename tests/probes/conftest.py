import jax
import pytest


@pytest.fixture(scope="package", autouse=True)
def quick_compilation():
    """Most of the time here goes into compiling small functions that run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
