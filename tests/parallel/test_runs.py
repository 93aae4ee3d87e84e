"""The same training run on 1 device and on 8, in 1, 2 and 8 processes, mapped in two ways."""

import signal

import numpy as np
import pytest

from . import launch

RUNS = [(False, "pmap"), (True, "shard_map")]
OTHER_RUNS = [(False, "shard_map"), (True, "pmap")]
TOLERANCE = {False: 1e-5, True: 1e-10}  # relative, over 50 steps


def name_of(x64, mapping):
    return f"{'float64' if x64 else 'float32'}-{mapping}"


def run_all(root, count, devices, runs):
    """Several precisions and mappings one after another, in the same processes."""
    changes = []
    for x64, mapping in runs:
        folder = root / name_of(x64, mapping)
        folder.mkdir()
        out = {"workdir": str(folder / "run"), "out": str(folder)}
        changes.append({"x64": x64, "mapping": mapping, **out})
    launch.finish(root, count, devices, *changes)
    return root


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    """Folders of runs on one device, trained when they are asked for."""
    done = {}

    def folder(*run):
        if run not in done:
            done[run] = run_all(tmp_path_factory.mktemp("one"), 1, 1, [run]) / name_of(*run)
        return done[run]

    return folder


@pytest.mark.parametrize(
    ("count", "devices", "runs"),
    [
        pytest.param(2, 4, RUNS, marks=pytest.mark.slow),
        pytest.param(1, 8, RUNS, marks=pytest.mark.slow),
        pytest.param(1, 8, OTHER_RUNS, marks=pytest.mark.slow),
        pytest.param(2, 4, OTHER_RUNS, marks=pytest.mark.slow),
        pytest.param(8, 1, RUNS + OTHER_RUNS, marks=pytest.mark.slow),
    ],
)
def test_the_loss_curve_is_that_of_one_device(one_device, tmp_path, count, devices, runs):
    run_all(tmp_path, count, devices, runs)
    for x64, mapping in runs:
        ours, expected = tmp_path / name_of(x64, mapping), one_device(x64, mapping)
        losses = launch.curve(ours)
        assert len(losses) == 50
        assert losses[-10:].mean() < 0.3 * losses[:5].mean()  # there was something to learn
        for split in ("train", "eval"):
            wanted = launch.curve(expected, split)
            np.testing.assert_allclose(launch.curve(ours, split), wanted, rtol=TOLERANCE[x64])
        finals = [launch.arrays(ours, index) for index in range(count)]
        for leaves in zip(*finals, launch.arrays(expected), strict=True):
            # All processes hold the same bits: parameters, statistics, outputs for all images.
            for other in leaves[1:-1]:
                np.testing.assert_array_equal(other, leaves[0])
            np.testing.assert_allclose(
                leaves[0], leaves[-1], rtol=100 * TOLERANCE[x64], atol=10 * TOLERANCE[x64]
            )


@pytest.mark.slow
def test_a_residual_network_too(tmp_path):
    # In float64: training this one multiplies the rounding of float32 to 1e-2 within 50 steps.
    options = {"model": ["resnet9", {"widths": [4, 4, 4, 8, 8]}], "size": 16, "x64": True}
    for name, count, devices in (("one", 1, 1), ("eight", 1, 8), ("four", 2, 2)):
        launch.finish(tmp_path / name, count, devices, **options)
        losses = launch.curve(tmp_path / name)
        np.testing.assert_allclose(losses, launch.curve(tmp_path / "one"), rtol=TOLERANCE[True])


def test_a_run_goes_on_with_another_number_of_processes(one_device, tmp_path):
    saved = 0
    for count, devices, stop_at in ((1, 1, 12), (2, 2, 27)):
        # SIGTERM to the last process stops all after the same step, with a checkpoint.
        processes = launch.start(tmp_path, count, devices, x64=True, sleep=0.05)
        launch.wait_for_step(tmp_path, processes, stop_at)
        processes[-1].send_signal(signal.SIGTERM)
        assert launch.wait(tmp_path, processes, 60) == [0] * count
        before = saved
        saved = max(int(path.name) for path in tmp_path.glob("run/checkpoints/[0-9]*"))
        assert before < saved < 50
        assert len(launch.curve(tmp_path)) == saved
    assert not list(tmp_path.glob("final*"))

    launch.finish(tmp_path, 1, 1, x64=True)
    # No image twice and none missed: any other order of the images would be another curve.
    wanted = launch.curve(one_device(True, "shard_map"))
    np.testing.assert_allclose(launch.curve(tmp_path), wanted, rtol=TOLERANCE[True])
