"""Streaming over simulated devices and processes, and the default float32 mode; in subprocesses."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from recon_jax.spectral import (
    alignment_curve,
    eigendecompose,
    explained_variance,
    learning_times,
    mask_sweep,
    neutrality,
    patch_mask,
    project,
    solve_denoising,
    solve_joint,
    split_by_variance,
)

from . import reference

WORKERS = Path(__file__).parent / "workers"
CHECKS = re.findall(r"^def check_(\w+)", (WORKERS / "eight_devices.py").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def eight_devices(run_workers, tmp_path_factory):
    target = tmp_path_factory.mktemp("devices") / "report.json"
    run_workers(WORKERS / "eight_devices.py", [target])
    return json.loads(target.read_text())


@pytest.mark.parametrize("name", CHECKS)
def test_on_8_devices(eight_devices, name):
    assert eight_devices[f"check_{name}"] == ""


def test_two_processes_agree_with_one(run_workers, free_port, tmp_path, image_like):
    images, labels = image_like(64, (3, 4, 1), 3, seed=4)
    mask = np.random.default_rng(0).random(64) < 0.9
    np.savez(tmp_path / "data.npz", images=images, labels=labels, mask=mask)
    port = free_port()
    targets = [tmp_path / f"process{i}.npz" for i in range(2)]
    run_workers(
        WORKERS / "two_processes.py",
        *([port, i, tmp_path / "data.npz", target] for i, target in enumerate(targets)),
        timeout=100,
    )
    first, second = (dict(np.load(target)) for target in targets)
    expected = reference.moments_of(images[mask], labels[mask], 3)._asdict()
    expected["values"] = eigendecompose(reference.moments_of(images[mask], labels[mask], 3)).values
    assert set(first) == set(second) == set(expected)
    for name, wanted in expected.items():
        np.testing.assert_array_equal(first[name], second[name])
        scale = float(np.abs(wanted).max())
        np.testing.assert_allclose(first[name], wanted, rtol=1e-12, atol=1e-12 * scale)


@pytest.fixture(scope="module")
def default_mode(run_workers, tmp_path_factory, image_like):
    folder = tmp_path_factory.mktemp("default")
    images, labels = image_like(120, (4, 4, 1), 3, seed=3)
    images = images.astype(np.float32)
    np.savez(folder / "data.npz", images=images, labels=labels)
    run_workers(WORKERS / "default_mode.py", [folder / "data.npz", folder / "out.npz"])
    return images, labels, dict(np.load(folder / "out.npz"))


def test_float32_end_to_end(default_mode):
    images, labels, single = default_mode
    shape = images.shape[1:]
    moments = reference.moments_of(images, labels, 3)
    mask = patch_mask(0.5, 2, shape)
    spectrum = eigendecompose(moments)
    # Well-conditioned data: float32 resolves the whole spectrum.
    assert float(spectrum.values[-1] / spectrum.values[0]) > 1e-4
    top, _ = split_by_variance(spectrum, 0.7)
    joint, denoising = solve_joint(moments, 4, 1.0), solve_denoising(moments, mask, 4, 1.0)
    # Name: (float64 result, error allowed relative to its largest entry).
    expected = {
        "mean": (moments.mean, 1e-6),
        "scatter": (moments.scatter, 2e-6),
        "cross": (moments.cross, 1e-5),
        "updated": (moments.scatter, 2e-6),
        "values": (spectrum.values, 2e-6),
        "explained": (explained_variance(spectrum), 1e-6),
        "times": (learning_times(spectrum), 1e-3),
        "projected": (project(images[:3].astype(float), top, spectrum.mean), 1e-4),
        "joint_loss": (joint.loss, 1e-5),
        "joint_map": (joint.encoder @ joint.decoder, 1e-3),
        "denoising_loss": (denoising.loss, 1e-5),
        "denoising_map": (denoising.encoder @ denoising.decoder, 1e-3),
        "clean": (alignment_curve(moments), 2e-4),
        "masked": (alignment_curve(moments, mask), 2e-4),
        "sines": (neutrality(moments, mask).max_sine[:-1], 1e-3),
        "sweep": (mask_sweep(moments, [0.0, 0.5], [1, 2], shape), 5e-4),
    }
    assert set(single) == set(expected)
    for name, (wanted, tolerance) in expected.items():
        scale = float(np.abs(wanted).max())
        np.testing.assert_allclose(
            single[name], wanted, atol=tolerance * scale, rtol=0, err_msg=name
        )
