import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from configs import alignment as alignment_recipe
from configs import moments as recipe
from experiments import alignment, moments
from recon_jax import data, spectral
from recon_jax.spectral.saved_moments import read_moments

ROOT = Path(__file__).parents[2]


def small(**changes):
    config = moments.smoke(recipe.get_config())
    config.update_from_flattened_dict(changes)
    return config


def embedded():
    return data.open_source("embedded", image_size=8, limit=500)


@pytest.fixture(scope="module")
def exact():
    return spectral.stream_moments([embedded().read(np.arange(500))], 10)


@pytest.fixture(scope="module")
def shares(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shares")
    for share in range(3):
        moments.run(small(share=share, shares=3), folder / str(share), [0])
    return [folder / str(share) for share in range(3)]


def assert_same(ours, expected, rtol=1e-12):
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * float(np.abs(b).max()))


def test_a_run_leaves_the_moments_and_their_summary(tmp_path, exact):
    results = moments.run(small(), tmp_path, [0])
    loaded, about = spectral.load_moments(tmp_path / "moments.npz")
    assert_same(loaded, exact)
    assert about["source"] == "embedded"
    assert about["image_shape"] == [8, 8, 1]
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["count"] == written["streamed_images"] == 500
    np.testing.assert_allclose(written["global_std"], spectral.global_std(exact))
    explained = spectral.explained_variance(spectral.eigendecompose(exact))
    np.testing.assert_allclose(written["explained_variance"], explained, rtol=1e-9)
    for field in ("seconds", "images_per_second", "device", "versions", "command"):
        assert written[field] is not None
    assert results["missing_shares"] == []
    again = moments.run(small(), tmp_path, [0])
    assert again["streamed_images"] == 0


def test_shares_are_merged(tmp_path, shares, exact, capsys):
    results = moments.merge([shares[2], shares[0] / "moments.npz"], tmp_path / "two")
    assert results["missing_shares"] == [1]
    assert "shares still missing: 1 of 0..2" in capsys.readouterr().out
    results = moments.merge([tmp_path / "two", shares[1]], tmp_path / "all")
    assert results["missing_shares"] == []
    assert results["count"] == 500
    loaded, _ = spectral.load_moments(tmp_path / "all" / "moments.npz")
    assert_same(loaded, exact)


def test_the_output_is_not_one_of_the_inputs(shares):
    with pytest.raises(ValueError, match="is one of the files to merge; choose another --workdir"):
        moments.merge(shares, shares[1])


def test_per_image_units_are_those_of_alignment(tmp_path):
    moments.run(small(**{"data.normalization": "per_image"}), tmp_path, [0])
    pixels, labels = embedded().read(np.arange(500))
    x = pixels / 255.0
    x = x / (1e-6 + x.std((1, 2, 3), keepdims=True))
    expected = spectral.stream_moments([(x, labels)], 10)
    assert_same(spectral.load_moments(tmp_path / "moments.npz")[0], expected, rtol=1e-5)


def alignment_config(path, **changes):
    config = alignment.smoke(alignment_recipe.get_config())
    config.corruptions = (("gaussian", 0.5), ("patch_mask", 0.5, 4))
    config.update_from_flattened_dict({"folds": 0, "data.moments": str(path), **changes})
    return config


@pytest.mark.parametrize(
    "normalization", [pytest.param("global", marks=pytest.mark.slow), "per_image"]
)
def test_alignment_starts_from_the_file(tmp_path, monkeypatch, normalization):
    units = "per_image" if normalization == "per_image" else "none"
    moments.run(small(**{"data.normalization": units}), tmp_path / "moments", [0])
    changes = {"data.normalization": normalization}
    direct = alignment.run(alignment_config("", **changes), tmp_path / "direct", [0])

    def forbidden(*args, **kwargs):
        raise AssertionError("streamed in spite of the file")

    monkeypatch.setattr(spectral, "stream_moments", forbidden)
    config = alignment_config(tmp_path / "moments", **changes)
    ours = alignment.run(config, tmp_path / "from_file", [0])
    for one, other in zip(ours["corruptions"], direct["corruptions"], strict=True):
        np.testing.assert_allclose(one["curve"], other["curve"], atol=1e-6)
    np.testing.assert_allclose(ours["sweep"]["impacts"], direct["sweep"]["impacts"], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.image_size": 16}, r"image_shape is \[8, 8, 1\] there, \[16, 16, 1\] here"),
        ({"data.limit": 400}, "num_images is 500 there, 400 here"),
        ({"data.split": "test"}, "split is 'train' there, 'test' here"),
        ({"data.normalization": "per_image"}, "units is 'none' there, 'per_image' here"),
        ({"folds": 2}, r"--config.folds=0 .no spread. and --config.compare"),
    ],
)
def test_alignment_refuses_a_file_of_other_images(tmp_path, changes, message):
    moments.run(small(), tmp_path, [0])
    with pytest.raises(ValueError, match=message):
        alignment.run(alignment_config(tmp_path, **changes), tmp_path / "out", [0])


def test_alignment_refuses_a_part(tmp_path, shares):
    with pytest.raises(ValueError, match=r"lacks shares \[1, 2\] of 3; merge them first"):
        alignment.run(alignment_config(shares[0]), tmp_path, [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.normalization": "zca"}, "data.normalization must be one of none, per_image"),
        ({"precision": "float16"}, "precision must be one of float32, float64"),
        ({"save_every": 0}, "save_every must be at least 1, got 0"),
        ({"data.batch_size": 0}, "data.batch_size must be at least 1, got 0"),
        ({"shares": 3, "share": 3}, r"share must be in 0\.\.2, got 3"),
        ({"shares": 501}, r"shares=501 must be in 1\.\.500, the images of embedded"),
    ],
)
def test_bad_config_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        moments.run(small(**changes), tmp_path, [0])


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    moments.validate(recipe.get_config(variant))


def command(*arguments):
    return [sys.executable, "-m", "experiments.moments", *map(str, arguments)]


def run_command(*arguments):
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--merge", "/nowhere/a"], "experiments.moments: error: .*No such file"),
        (["--merge"], "expected at least one argument"),
        (["--merge", "a", "--seeds=1"], "unrecognized arguments: --seeds=1"),
    ],
)
def test_bad_merges_end_with_one_clear_line(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        moments.merge_command([*arguments, f"--workdir={tmp_path}"])
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_command_line_errors_are_one_clear_line(tmp_path):
    run = run_command("--config=configs/moments.py:mars", f"--workdir={tmp_path}")
    assert run.returncode == 2
    assert "unknown variant 'mars'; choose one of embedded" in run.stderr
    assert "Traceback" not in run.stderr


def test_command_line_merges(tmp_path, shares, exact):
    run = run_command("--merge", *shares, f"--workdir={tmp_path}")
    assert run.returncode == 0, run.stderr
    assert "500 images of 64 pixels" in run.stdout
    assert_same(spectral.load_moments(tmp_path / "moments.npz")[0], exact)


def kill_behind(arguments, path, batches, sent):
    """Start a run and send it a signal once it has saved more than so many batches."""
    process = subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 150
    while batches_in(path) <= batches and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(sent)
    assert process.wait(60) == (0 if sent == signal.SIGTERM else -sent)
    return batches_in(path)


def batches_in(path):
    with contextlib.suppress(FileNotFoundError):
        return read_moments(path)[1]["batches_done"]
    return 0


@pytest.mark.slow
def test_a_killed_pass_goes_on_to_the_same_bits(tmp_path):
    source, size = "scenes:image_size=12&num_images=2000", 8
    fields = {"data.source": source, "data.batch_size": size, "save_every": 2}
    config = recipe.get_config()
    config.update_from_flattened_dict(fields)
    moments.run(config, tmp_path / "whole", [0])
    broken = tmp_path / "broken" / "moments.npz"
    options = [f"--config.{name}={value}" for name, value in fields.items()]
    arguments = command(*options, f"--workdir={broken.parent}")
    first = kill_behind(arguments, broken, 2, signal.SIGKILL)
    second = kill_behind(arguments, broken, first, signal.SIGTERM)
    assert not (broken.parent / "results.json").exists()
    results = moments.run(config, broken.parent, [0])
    assert results["streamed_images"] == 2000 - second * size > 0
    assert broken.read_bytes() == (tmp_path / "whole" / "moments.npz").read_bytes()
