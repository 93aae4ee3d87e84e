import csv
import json
from functools import partial

import jax
import numpy as np
import pytest

from configs import capacity as recipe
from experiments import capacity, capacity_jobs, capacity_measured, capacity_programs
from experiments.capacity_measured import Compared, Reduced
from recon_jax import models, parallel, sizing
from recon_jax.models import resnet


def small(variant="v4-16", **changes):
    config = capacity.smoke(recipe.get_config(variant))
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Both halves in one run: a machine on paper, and this one measured."""
    workdir = tmp_path_factory.mktemp("run")
    config = small(measure=True)
    with pytest.MonkeyPatch.context() as patch:
        # Compiling takes all the time here. What is sent comes from another, unchanged process.
        patch.setattr(resnet, "BLOCKS", {18: (1, 1, 1, 1)})
        patch.setattr(resnet, "WIDTHS", (8, 8, 16, 16))
        quick = {"xla_backend_optimization_level": 0}
        patch.setattr(parallel, "fast_jit", partial(jax.jit, compiler_options=quick))
        return workdir, capacity.run(config, workdir, [0]), config


@pytest.mark.slow
def test_every_output_is_there(finished):
    workdir, _, _ = finished
    names = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    wanted = {f"tables/{t}.{e}" for t in ("capacity", "measured") for e in ("md", "csv", "tex")}
    assert {"results.json", "config.json"} | wanted <= names
    results = json.loads((workdir / "results.json").read_text())
    for field in ("versions", "git_revision", "device", "seconds", "command", "summary"):
        assert results[field] is not None
    with open(workdir / "tables" / "capacity.csv", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    assert [row[0] for row in rows] == ["v4-16"] * 5


@pytest.mark.slow
def test_results_follow_from_costs_and_peaks(finished):
    _, results, config = finished
    chip = config.chips.v4
    for row in results["sized"]:
        cost, found = row["cost"], row["prediction"]
        compute = sum(count / chip[kind] for kind, count in cost["flops"].items())
        parts = [compute, cost["traffic"] / 1228e9, cost["network"] / 150e9]
        np.testing.assert_allclose([found[k] for k in ("compute", "memory", "network")], parts)
        np.testing.assert_allclose(found["seconds"], max(parts))
        assert found["bound"] == ("compute", "memory", "network")[int(np.argmax(parts))]
    for row in results["measured"]:
        parts = [row["prediction"][kind] for kind in ("compute", "memory", "network")]
        np.testing.assert_allclose(row["prediction"]["seconds"], sum(parts))
        assert row["seconds"] > 0
    assert all(rate > 0 for rate in results["rates"].values())


@pytest.mark.slow
def test_the_network_carries_the_gradient(finished):
    _, results, config = finished
    for row, kind in zip(results["sized"][-2:], ("resnet50", "mae"), strict=True):
        network = capacity_programs.NETWORKS[kind](config[kind])
        gradient = 4 * models.parameter_count(network.model, network.image_shape)
        around = 2 * 7 / 8 * gradient
        # Batch statistics come on top in the residual network, a count and sums in both.
        slack = {"resnet50": 0.01, "mae": 1e-4}[kind] * around
        assert 0 <= row["cost"]["network"] - around < slack


def test_moments_on_paper_equal_hand_counts():
    config = recipe.get_config("v4-8")
    device = capacity_jobs.make_device(config, config.devices[0])
    assert (device.count, device.link_bandwidth) == (4, 100e9)
    size, steps, batch = 224 * 224 * 3, 313, 4096
    sharded = capacity_jobs.sharded_moments(config, device)
    products = steps * 2 * batch * size * size / 4
    assert products <= sharded.cost.flops["float32"] < 1.001 * products
    assert sharded.cost.network == steps * 3 / 4 * batch * size
    assert sharded.fits
    # A quarter of the scatter alone is 22.7 GB.
    assert sharded.cost.memory > size * size
    whole = capacity_jobs.whole_moments(config, device)
    products = steps * 2 * (batch / 4) * 12_288 * (12_288 + 1000)
    assert products <= whole.cost.flops["float32"] < 1.01 * products


def test_what_does_not_fit_is_cut_or_said():
    network = capacity_programs.masked_autoencoder(small().mae)
    whole = capacity_jobs.training_memory(network, 4)
    assert capacity_jobs.fit_micro_batches(network, 4, whole) == (1, whole)
    count, held = capacity_jobs.fit_micro_batches(network, 4, 1.0)
    gradients = 4 * models.parameter_count(network.model, network.image_shape)
    assert count == 4
    assert held == capacity_jobs.training_memory(network, 1) + gradients
    device = sizing.Device("tiny", 1, {"float32": 1.0}, 1.0, 1.0, 1.0)
    cost = sizing.Cost({"float32": 1.0}, 1.0, memory=2.0)
    item = capacity_jobs.size_job(device, "job", "step", cost)
    assert not item.fits
    assert "does not fit" in capacity.paper_row(item)[3]
    assert capacity.findings([item], []) == ["job does not fit tiny"]


def test_an_accelerator_runs_other_convolutions_than_the_cpu():
    network = capacity_programs.resnet50(small().resnet50)
    types = capacity_programs.state_types(network), capacity_programs.batch_types(network, 4)
    here = sizing.cost_of(capacity_programs.train_step(network), *types)
    with parallel.tracing_for_accelerators():
        there = sizing.cost_of(capacity_programs.train_step(network), *types)
    assert here.conv_flops < there.conv_flops
    assert there.dot_flops < here.dot_flops


def test_kernels_that_set_the_peaks_do_what_they_count():
    kernels = capacity_measured.peak_kernels(small("cpu"))
    products = kernels["product"].call()
    assert len(products) == 3
    assert kernels["product"].amount == sum(2 * 64**3 for _ in products)
    assert kernels["memory"].amount == 3 * kernels["memory"].call().nbytes
    values, vectors = kernels["eigh"].call()
    assert vectors.shape == (64, 64)
    assert values.dtype == vectors.dtype == np.float32
    assert kernels["eigh"].amount == 9 * 64**3


def test_findings_count_what_was_predicted_well():
    job = Reduced("job", lambda: None, sizing.Cost({}, 1.0), 0.0)
    prediction = sizing.Prediction(1.0, 0.0, 0.0, 1.0, 1.0, "compute")
    compared = [Compared(job, prediction, seconds) for seconds in (0.5, 0.8, 1.4)]
    (line,) = capacity.findings([], compared)
    assert line.startswith("2 of 3 reduced jobs were predicted within a factor 1.5")
    assert line.endswith("from 0.71 to 2.00")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 B"), (999.0, "999 B"), (1500.0, "1.5 kB"), (2.34e12, "2.34 TB"), (5e19, "5e+04 PB")],
)
def test_readable(value, text):
    assert capacity.readable(value, "B") == text


def test_seconds_in_the_unit_that_suits():
    assert [capacity.seconds_of(value) for value in (0.0123, 1.5, 300.0)] == [
        "12.3 ms",
        "1.5 s",
        "5 min",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": (("mine", "v9", 4, 1),)}, "chip of device mine must be one of .*h100"),
        ({"devices": (("mine", "v4", 0, 1),)}, "count of device mine must be at least 1, got 0"),
        ({"devices": (("mine", "v4", 4, 0),)}, "links of device mine must be at least 1"),
        ({"devices": (("mine", "v4"),)}, r"devices must hold \(kind, chip, count, links\)"),
        ({"devices": (("mine", "v4", 5, 1),)}, "192 rows .* do not divide over 5 devices"),
        ({"mae.batch_size": 12}, "mae.batch_size=12 must be a multiple of the 8 .* such as 16"),
        ({"resnet50.dtype": "int8"}, "resnet50.dtype must be one of float32, bfloat16"),
        ({"mae.patch_size": 5}, "patch_size=5 does not divide image height 16"),
        ({"mae.mask_ratio": 1.0}, r"ratio must lie in \[0, 1\), got 1.0"),
        ({"mae.mask_ratio": 0.9}, "ratio=0.9 keeps 0 of 4 patches; at least 1 of at least 2"),
        ({"mae.mask_ratio": 0.1}, "leaves 4 patches visible and 0 hidden; .* another ratio"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"moments.num_images": 0}, "moments.num_images must be at least 1"),
        ({"eigh.sizes": (0,)}, "eigh.sizes must be at least 1, got 0"),
    ],
)
def test_bad_config_is_refused_before_anything_is_traced(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("a program was traced in spite of a bad config")

    monkeypatch.setattr(sizing, "cost_of", forbidden)
    monkeypatch.setattr(capacity, "in_fresh_process", forbidden)
    with pytest.raises(ValueError, match=message):
        capacity.run(small(**changes), tmp_path, [0])


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    config = recipe.get_config(variant)
    capacity.validate(config)
    capacity.validate(capacity.smoke(config))


def test_an_unknown_device_kind_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'v5'; choose one of accelerators, v4-8, v4-16, .*cpu"):
        recipe.get_config("v5")
