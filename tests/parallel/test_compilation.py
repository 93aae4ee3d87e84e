"""Compiler options and the cache of compiled functions."""

import jax
import jax.numpy as jnp
import numpy as np

from recon_jax import parallel
from recon_jax.parallel import compilation


def test_fast_jit_computes_the_same():
    x = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)
    np.testing.assert_allclose(parallel.fast_jit(jnp.tanh)(x), jnp.tanh(x), rtol=1e-12)
    donated = parallel.fast_jit(lambda a: a + 1, donate_argnums=0)
    donated(y := jnp.ones(3))
    assert y.is_deleted()


def test_compiler_options_that_xla_does_not_know_are_left_out(monkeypatch):
    def refuse(*args, **options):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: No such compile option")

    compilation._probed_cpu_options.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(jax, "jit", refuse)
            assert parallel.cpu_compiler_options() == {}
    finally:
        compilation._probed_cpu_options.cache_clear()


def test_compiler_options_are_for_the_cpu_alone(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert parallel.cpu_compiler_options() == {}
