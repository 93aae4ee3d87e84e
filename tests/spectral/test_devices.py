"""Streaming over simulated devices and processes, and the default float32 mode; in subprocesses."""

import functools
import json
import re
from pathlib import Path

import jax
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
    sketch_scatter,
    solve_denoising,
    solve_joint,
    split_by_variance,
)

from . import reference

WORKERS = Path(__file__).parent / "workers"


def checks_of(script):
    return re.findall(r"^def check_(\w+)", (WORKERS / script).read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def report_of(run_workers, tmp_path_factory):
    """A function: script -> the report of its checks, run once."""

    @functools.cache
    def report(script):
        target = tmp_path_factory.mktemp("devices") / "report.json"
        run_workers(WORKERS / script, [target])
        return json.loads(target.read_text())

    return report


@pytest.mark.parametrize("name", checks_of("eight_devices.py"))
def test_on_8_devices(report_of, name):
    assert report_of("eight_devices.py")[f"check_{name}"] == ""


@pytest.mark.parametrize("name", checks_of("scale_eight_devices.py"))
def test_at_scale_on_8_devices(report_of, name):
    assert report_of("scale_eight_devices.py")[f"check_{name}"] == ""


def test_two_processes_agree_with_one(run_workers, free_port, tmp_path, image_like):
    images, labels = image_like(69, (4, 4, 1), 3, seed=4)  # the last share of process 1 is padding
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    port = free_port()
    targets = [tmp_path / f"process{i}.npz" for i in range(2)]
    run_workers(
        WORKERS / "two_processes.py",
        *([port, i, tmp_path / "data.npz", target, tmp_path] for i, target in enumerate(targets)),
        timeout=120,
    )
    first, second = (dict(np.load(target)) for target in targets)
    exact = reference.moments_of(images, labels, 3)
    sketch = sketch_scatter(exact, 4, key=jax.random.key(0), oversampling=2, power_iterations=1)
    expected = {
        **exact._asdict(),
        **{f"resumed_{name}": value for name, value in exact._asdict().items()},
        "values": eigendecompose(exact).values,
        "sketch": sketch.values,
        "sharded_sketch": sketch.values,
        "sharded_rows": exact.scatter,
    }
    seen = [set(part.pop("indices")) for part in (first, second)]
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(range(69))
    rows = [part.pop("sharded_rows") for part in (first, second)]
    assert set(first) == set(second) == set(expected) - {"sharded_rows"}
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    # Each process holds its own half of the rows, and no more.
    first["sharded_rows"] = np.concatenate(rows)
    for name, wanted in expected.items():
        scale = float(np.abs(wanted).max())
        np.testing.assert_allclose(first[name], wanted, rtol=1e-10, atol=1e-12 * scale)


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
