"""Settings and fixtures of all tests: float64, no silent broadcasting, types checked."""

import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.linalg  # noqa: F401  (its BLAS must be loaded to be limited)
from hypothesis import settings
from jaxtyping import install_import_hook
from threadpoolctl import threadpool_limits

# Most of the time goes into compiling programs that run once, so XLA compiles with few
# optimisations, 40% faster; `XLA_FLAGS="" pytest` has all of them.
# XLA reads this when the first device is asked for.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", QUICK)

# What traces leave is much, and hardly ever garbage.
gc.set_threshold(100_000, 50, 100)

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The matrices are small, and BLAS threads that wait for each other on a busy machine cost 100 times
# the work itself.
threadpool_limits(1)

# Before the first import of the library, so that every annotated function is checked on every call.
install_import_hook(["recon_jax"], "typecheck.check")

settings.register_profile("recon_jax", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("recon_jax")

TESTS = Path(__file__).parent
ROOT = TESTS.parent


@pytest.fixture(scope="session")
def set_a():
    """Numbers of oracle set A; see tests/oracles/README.md."""
    return json.loads((TESTS / "oracles" / "set_a.json").read_text())


@pytest.fixture(scope="session")
def set_a_data():
    """Images (20, 6), rows not centred beyond what the set says, and labels (20,) of set A."""
    i, n = np.arange(6)[:, None], np.arange(20)[None, :]
    x = np.sin(0.7 * (i + 1) * (n + 1)) + 0.3 * np.cos(i * n)
    return (x - x.mean(1, keepdims=True)).T, np.arange(20) % 3


@pytest.fixture(scope="session")
def set_a_moments(set_a_data):
    from recon_jax.spectral import stream_moments

    return stream_moments([set_a_data], 3)


def draw_images(count, shape, num_classes, seed=0, decay=1.0):
    """Random labelled images (count, H, W, C) whose spectrum falls with frequency as photos' does.

    Classes differ in a faint pattern of their own, are of unequal size, and all occur.
    """
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij"))
    fall = (1.0 / (0.1 + frequency) ** decay)[..., None]

    def smooth(white):
        return np.fft.ifft2(np.fft.fft2(white, axes=(-3, -2)) * fall, axes=(-3, -2)).real

    mixing = np.eye(channels) + 0.7
    images = smooth(rng.standard_normal((count, *shape))) @ mixing
    patterns = 2 * rng.standard_normal((num_classes, *shape))
    labels = np.minimum(rng.geometric(0.4, count) - 1, num_classes - 1)
    labels[:num_classes] = np.arange(num_classes)
    # Brightness that varies from pixel to pixel, so that no two pixels are exchangeable.
    gain = 1 + 0.5 * rng.random(shape)
    return (images + patterns[labels]) * gain + 0.5, labels


@pytest.fixture(scope="session")
def image_like():
    """Generator of random labelled images: see `draw_images`."""
    return draw_images


@pytest.fixture(scope="session")
def free_port():
    """A function that finds a TCP port nobody listens on."""

    def find():
        with socket.socket() as sock:
            sock.bind(("localhost", 0))
            return sock.getsockname()[1]

    return find


@pytest.fixture(scope="session")
def run_workers():
    """Run a script once for each list of arguments, side by side, in fresh processes on the CPU.

    Each must exit with 0 within the time; otherwise the test fails with what they wrote.
    """

    def run(script, *argument_lists, timeout=150):
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))},
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": QUICK if os.environ["XLA_FLAGS"] == QUICK else "",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with contextlib.ExitStack() as stack:
            # Files, not pipes: a full pipe would block a worker that another one waits for.
            logs = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in argument_lists]
            processes = [
                subprocess.Popen(
                    [sys.executable, str(script), *map(str, arguments)],
                    env=env,
                    cwd=ROOT,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
                for arguments, log in zip(argument_lists, logs, strict=True)
            ]
            deadline = time.monotonic() + timeout
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(deadline - time.monotonic(), 0.1))
            for process in processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            codes = [process.returncode for process in processes]
            if any(codes):
                texts = []
                for code, log in zip(codes, logs, strict=True):
                    log.seek(0)
                    texts.append(f"--- exit code {code}\n{log.read()[-6000:]}")
                pytest.fail(f"{script} failed (timeout {timeout} s):\n" + "\n".join(texts))

    return run
