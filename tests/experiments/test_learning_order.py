import csv
import json

import jax
import numpy as np
import pytest

from configs import learning_order as recipe
from experiments import learning_order, learning_runs, trained
from recon_jax import data, models, spectral

TABLES = ("front", "order", "perception")


def small(**changes):
    config = learning_order.smoke(recipe.get_config())
    config.models = (("mlp_autoencoder", 3),)
    with config.unlocked():
        for field, value in changes.items():
            *parents, leaf = field.split(".")
            target = config[parents[0]] if parents else config
            target[leaf] = value
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    config = small(models=(("mlp_autoencoder", 3), ("conv_autoencoder", 2)))
    return workdir, learning_order.run(config, workdir, [0, 1]), config


def table_of(workdir, name):
    with open(workdir / "tables" / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.slow
def test_every_output_is_there(finished, rules_fit):
    workdir, _, _ = finished
    names = {str(path.relative_to(workdir)) for path in workdir.rglob("*") if path.is_file()}
    wanted = {"report.html", "results.json", "config.json", "metrics.jsonl"}
    wanted |= {f"tables/{t}.{e}" for t in TABLES for e in ("md", "csv", "tex")}
    figures = ("spectrum", "learned", "times", "perception")
    wanted |= {f"figures/{f}.{e}" for f in figures for e in ("png", "pdf")}
    assert wanted <= names
    rules_fit("learning_order_embedded", workdir)
    results = json.loads((workdir / "results.json").read_text())
    for field in (
        "versions",
        "git_revision",
        "device",
        "wall_seconds",
        "command",
        "seeds",
        "setting",
    ):
        assert results[field] is not None
    assert len(results["summary"]) == 4
    assert "Reduced: fewer images, 8 latents instead of 512" in results["setting"]


@pytest.mark.slow
def test_metrics_have_one_line_a_run_and_no_seconds(finished):
    workdir, _, _ = finished
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(line["model"], line["seed"]) for line in lines] == [
        (model, seed) for model in ("MLP, depth 3", "convolutional, depth 2") for seed in (0, 1)
    ]
    assert all("seconds" not in line for line in lines)
    assert all(line["epochs"] == [0, 1, 2, 4] for line in lines)
    own = (workdir / "runs" / "mlp_autoencoder3-seed0" / "metrics.jsonl").read_text()
    evaluated = [json.loads(line) for line in own.splitlines() if '"eval"' in line]
    assert [line["step"] for line in evaluated] == [10, 20, 30, 40]
    assert [line.get("accuracy") for line in evaluated] == [
        lines[0]["probe_accuracy"][1], lines[0]["probe_accuracy"][2], None,
        lines[0]["probe_accuracy"][3],
    ]  # fmt: skip


@pytest.mark.slow
def test_spectra_equal_numpy(finished):
    workdir, results, config = finished
    source = data.open_source("embedded", image_size=8, limit=500)
    x = source.read(np.arange(500))[0].reshape(500, -1) / 255
    second = np.linalg.eigvalsh(x.T @ x / 500)[::-1]
    np.testing.assert_allclose(results["modes"]["second"], second, rtol=1e-8, atol=1e-12)
    centred = x - x.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    values, vectors = values[::-1], vectors[:, ::-1]
    np.testing.assert_allclose(results["modes"]["values"], values / 500, rtol=1e-8, atol=1e-12)
    # The last measure against the last checkpoint, mode by mode.
    context = learning_runs.prepare(config, workdir)
    trainer, reader = learning_runs.build(context, "mlp_autoencoder", 3)
    identity = learning_runs.identity_of(context, "mlp_autoencoder", 3)
    folder = workdir / "runs" / "mlp_autoencoder3-seed0"
    state, _ = trained.train(trainer, context.train, 0, folder, identity)
    found = learning_runs.measure(context, reader, state)
    batches = learning_runs.readings(
        reader, {"params": state.params, "batch_stats": state.batch_stats}, context.train
    )
    hats = np.concatenate([batch[0] for batch in batches]).reshape(500, -1).astype(float)
    for k in range(20):
        slope = np.polyfit(x @ vectors[:, k], hats @ vectors[:, k], 1)[0]
        np.testing.assert_allclose(found["learned"][k], slope, rtol=1e-3, atol=1e-4)
    _, directions = np.linalg.eigh(x.T @ x)
    energy = np.mean((hats @ directions[:, ::-1]) ** 2, axis=0)
    np.testing.assert_allclose(found["energy"], energy, rtol=1e-3, atol=1e-7)
    [run] = [r for r in results["runs"] if r["model"] == "MLP, depth 3" and r["seed"] == 0]
    assert run["explained_variance"][-1] == found["explained"]
    assert run["probe_accuracy"][-1] == found["accuracy"]
    count = np.sum(found["learned"][np.isfinite(results["modes"]["predicted"])] >= 0.5)
    assert run["learned_modes"][-1] == count


@pytest.mark.slow
def test_training_stays_in_float32_and_the_spectrum_is_float64(finished):
    workdir, results, config = finished
    assert jax.config.jax_enable_x64  # of the tests
    assert results["modes"]["values"].dtype == np.float64
    context = learning_runs.prepare(config, workdir)
    trainer, _ = learning_runs.build(context, "mlp_autoencoder", 3)
    leaves = jax.tree.leaves(trainer.init(0).params)
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    single = learning_runs.find_modes(small(precision="float32"), context.train)
    assert single["values"].dtype == np.float32
    np.testing.assert_allclose(
        single["values"][:9], 500 * results["modes"]["values"][:9], rtol=1e-4
    )
    with jax.enable_x64(False):
        again = learning_runs.find_modes(config, context.train)
    np.testing.assert_array_equal(again["predicted"], results["modes"]["predicted"])


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(finished, monkeypatch):
    workdir, first, config = finished
    kept = [*(workdir / "cache").iterdir(), *(workdir / "runs").rglob("metrics.jsonl")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    metrics = (workdir / "metrics.jsonl").read_bytes()
    tables = [table_of(workdir, name) for name in TABLES]

    def forbidden(*args, **kwargs):
        raise AssertionError("a finished step was computed again")

    monkeypatch.setattr(trained, "train", forbidden)
    monkeypatch.setattr(trained, "make_trainer", forbidden)
    monkeypatch.setattr(spectral, "stream_moments", forbidden)
    again = learning_order.run(config, workdir, [0, 1])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (workdir / "metrics.jsonl").read_bytes() == metrics
    assert [table_of(workdir, name) for name in TABLES] == tables
    assert again["summary"] == first["summary"]


@pytest.mark.slow
def test_a_run_that_was_killed_ends_with_the_same_bits(finished, tmp_path, monkeypatch):
    workdir, _, config = finished
    measure, calls = learning_runs.measure, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*args)

    def train_all():
        return list(learning_runs.run_all(learning_runs.prepare(small(), tmp_path), [0]))

    monkeypatch.setattr(learning_runs, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        train_all()
    monkeypatch.setattr(learning_runs, "measure", measure)
    [resumed] = train_all()
    name = "runs/mlp_autoencoder3-seed0/metrics.jsonl"
    assert (tmp_path / name).read_bytes() == (workdir / name).read_bytes()
    whole, *_ = learning_runs.run_all(learning_runs.prepare(config, workdir), [0])
    for field in ("energy", "learned", "explained", "accuracy"):
        np.testing.assert_array_equal(getattr(resumed, field), getattr(whole, field))


@pytest.mark.slow
def test_a_measure_that_is_lost_is_named(finished):
    workdir, _, config = finished
    for path in [*(workdir / "cache").glob("run-*"), *(workdir / "cache").glob("measure-*")]:
        path.rename(path.with_suffix(".lost"))
    try:
        with pytest.raises(ValueError, match=r"remove .*mlp_autoencoder3-seed0 to train it again"):
            learning_order.run(config, workdir, [0])
    finally:
        for path in (workdir / "cache").glob("*.lost"):
            path.rename(path.with_suffix(".npz"))


def test_latent_maps_are_averaged_or_flattened():
    maps = np.random.default_rng(0).random((3, 2, 2, 8))
    images = np.full((3, 4, 4, 1), 255, np.uint8)

    class Model:
        def apply(self, variables, pixels, train):
            assert pixels.max() == 1
            return models.Autoencoding(pixels, variables)

    def features(latent, latent_map):
        return learning_runs.make_reader(Model(), latent_map)(latent, images)["features"]

    np.testing.assert_allclose(features(maps, "average"), maps.mean((1, 2)))
    np.testing.assert_array_equal(features(maps, "flatten"), maps.reshape(3, -1))
    rows = maps.reshape(3, -1)
    np.testing.assert_array_equal(features(rows, "average"), rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "models must hold one or more pairs"),
        ({"models": (("resnet9", 3),)}, "models must be one of conv_autoencoder, mlp_autoencoder"),
        ({"models": ("mlp_autoencoder",)}, r"models must hold pairs \(name, depth\)"),
        ({"models": (("mlp_autoencoder", 1),)}, "depth in models must be at least 2, got 1"),
        ({"models": (("mlp_autoencoder", 3),) * 2}, "models must differ"),
        ({"latent_size": 0}, "latent_size must be at least 1, got 0"),
        ({"first_width": 0}, "first_width must be at least 1"),
        ({"epochs": ()}, "epochs must be two or more ascending whole numbers"),
        ({"epochs": (2, 1)}, "epochs must be two or more ascending"),
        ({"epochs": (-1, 1)}, "epochs must be two or more ascending"),
        ({"epochs": (0, 1.5)}, "epochs must be two or more ascending"),
        ({"epochs": (0, 4, 9)}, r"must not exceed train.epochs = 4, got 9; .*'\(0, 4\)'"),
        ({"train.evaluate_every": 2}, r"passes over the epochs \[1\]; set it to 1"),
        ({"fraction": 1.0}, r"fraction must lie in \(0, 1\), got 1.0"),
        ({"initial": 0.0}, r"initial must lie in \(0, 1\)"),
        ({"arrival": 1.5}, r"arrival must lie in \(0, 1\)"),
        ({"probe.latent_map": "max"}, "probe.latent_map must be one of average, flatten"),
        ({"probe.regularization": -1.0}, "probe.regularization must be at least 0"),
        ({"probe.max_iterations": 0}, "probe.max_iterations must be at least 1"),
        ({"precision": "bfloat16"}, "precision must be one of float32, float64"),
        ({"train.batch_size": 0}, "train.batch_size must be at least 1"),
    ],
)
def test_bad_config_is_refused_before_data_are_read(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("data were opened in spite of a bad config")

    monkeypatch.setattr(trained, "open_splits", forbidden)
    with pytest.raises(ValueError, match=message):
        learning_order.run(small(**changes), tmp_path, [0])


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    config = recipe.get_config(variant)
    learning_order.validate(config)
    learning_order.validate(learning_order.smoke(config))


def test_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose one of embedded, cifar10_cpu, cifar10"):
        recipe.get_config("mnist")
