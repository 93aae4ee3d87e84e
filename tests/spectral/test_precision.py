"""float32 against float64 on real images, to the accuracy that the docstrings state."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import data
from recon_jax.spectral import (
    alignment_curve,
    corruption_impact,
    eigendecompose,
    gaussian,
    global_std,
    neutrality,
    patch_mask,
    scale_moments,
    stream_moments,
)

CIFAR10 = Path(os.environ.get("RECON_JAX_DATA", "")) / "cifar10.npz"
SOURCES = [
    "embedded",
    pytest.param(
        f"npz:{CIFAR10}",
        id="cifar10",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(
                not CIFAR10.is_file(),
                reason="RECON_JAX_DATA names no directory with cifar10.npz, which is not shipped",
            ),
        ],
    ),
]


@pytest.fixture(scope="module", params=SOURCES)
def both(request):
    """Image shape, and (moments, spectrum) in either precision."""
    source = data.open_source(request.param)
    found = {}
    for dtype in (jnp.float64, jnp.float32):
        batches = data.epoch_batches(source, 4096)
        moments = stream_moments(batches, source.num_classes, dtype=dtype)
        moments = scale_moments(moments, 1 / global_std(moments))
        found[dtype.dtype.name] = moments, eigendecompose(moments)
    return source.image_shape, found


def test_single_precision_is_as_accurate_as_stated(both):
    shape, found = both
    mask = patch_mask(0.5, 4, shape)
    clean, impact = {}, {}
    for name, (moments, spectrum) in found.items():
        clean[name] = np.asarray(alignment_curve(moments, spectrum=spectrum))
        impact[name] = np.asarray(corruption_impact(moments, mask, spectrum=spectrum))
        assert clean[name].dtype == impact[name].dtype == name
    assert np.abs(clean["float32"] - clean["float64"]).max() < 0.06
    assert np.abs(impact["float32"] - impact["float64"]).max() < 0.01


def test_noise_is_neutral_in_either_precision(both):
    shape, found = both
    for moments, spectrum in found.values():
        assert neutrality(moments, gaussian(0.5, shape), spectrum=spectrum, max_rank=8).is_neutral
        verdict = neutrality(moments, patch_mask(0.5, 4, shape), spectrum=spectrum, max_rank=8)
        assert not verdict.is_neutral
