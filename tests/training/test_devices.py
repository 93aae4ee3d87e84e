"""Training on simulated devices, in a subprocess, and compilation for the one of this process."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import parallel

WORKER = Path(__file__).parent / "workers" / "eight_devices.py"
CHECKS = re.findall(r"^def check_(\w+)", WORKER.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def eight_devices(run_workers, tmp_path_factory):
    target = tmp_path_factory.mktemp("devices") / "report.json"
    run_workers(WORKER, [target], timeout=400)
    return json.loads(target.read_text())


@pytest.mark.parametrize("name", CHECKS)
def test_on_8_devices(eight_devices, name):
    assert eight_devices[f"check_{name}"] == ""


def test_fast_jit_computes_the_same():
    x = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)
    np.testing.assert_allclose(parallel.fast_jit(jnp.tanh)(x), jnp.tanh(x), rtol=1e-12)
    donated = parallel.fast_jit(lambda a: a + 1, donate_argnums=0)
    donated(y := jnp.ones(3))
    assert y.is_deleted()


def test_compiler_options_that_xla_does_not_know_are_left_out(monkeypatch):
    def refuse(*args, **options):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: No such compile option")

    parallel._probed_cpu_options.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(jax, "jit", refuse)
            assert parallel.cpu_compiler_options() == {}
    finally:
        parallel._probed_cpu_options.cache_clear()


def test_compiler_options_are_for_the_cpu_alone(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert parallel.cpu_compiler_options() == {}


def test_allocator_of_another_c_library_is_left_alone(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(parallel.ctypes, "CDLL", missing)
    assert parallel.tune_allocator() is False
