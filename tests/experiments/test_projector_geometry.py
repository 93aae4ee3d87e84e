import json
import shutil

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from configs import projector_geometry as recipe
from experiments import projector_geometry, projector_measures, projector_runs, trained
from recon_jax import geometry, losses, spectral, training


def small(variant="", **changes):
    config = projector_geometry.smoke(recipe.get_config(variant))
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    with jax.enable_x64(False):
        return projector_runs.open_data(small(), tmp_path_factory.mktemp("run"))


def test_subjects_are_the_images_and_their_principal_components(context):
    subjects = context.subjects
    train, test = trained.open_splits(small())
    for seen, source, labels in (
        (subjects.train, train, subjects.train_labels),
        (subjects.test, test, subjects.test_labels),
    ):
        images, expected = source.read(np.arange(source.num_images))
        assert_allclose(seen, images / np.float32(255), atol=1e-7)
        assert_array_equal(labels, expected)
    rows = subjects.train.reshape(len(subjects.train), -1).astype(np.float64)
    _, values, axes = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    assert subjects.scores.shape == (200, 10)
    assert_allclose(np.linalg.norm(subjects.scores, axis=0), values[:10], rtol=1e-6)
    tests = subjects.test.reshape(len(subjects.test), -1) - rows.mean(0)
    assert_allclose(np.abs(subjects.test_scores), np.abs(tests @ axes[:10].T), atol=1e-4)


def test_views_of_an_image_are_its_own(context):
    images, key = context.subjects.raw[:6], jax.random.key(5)
    views = projector_measures.make_views(context.policy, images, key, 0.6)
    again = projector_measures.make_views(context.policy, images[:2], key, 0.6)
    assert_allclose(views[:2], again, atol=1e-6)
    assert np.abs(views - images).max() > 0.1
    assert_array_equal(projector_measures.make_views(context.policy, images, key, 0.0), images)


@pytest.fixture(scope="module")
def network(context):
    """A network with weights that were drawn, and what was measured of it at one strength."""
    with jax.enable_x64(False):
        model = projector_runs.make_model(context.config, projector_runs.projectors_of(small())[1])
        variables = model.init(jax.random.key(0), context.subjects.test[:1])
        return model, variables, projector_measures.measure(context.subjects, model, variables, 0.3)


def test_measures_are_those_of_features_and_projections(context, network):
    model, variables, found = network
    with jax.enable_x64(False):
        features, projection = map(np.asarray, model.apply(variables, context.subjects.test))
    for name, values in (("encoder", features), ("projector", projection)):
        centred = values - values.mean(0)
        singular = np.linalg.svd(centred.astype(np.float64), compute_uv=False)
        assert_allclose(found[f"{name}_singular"], singular / singular[0], atol=1e-5)
        share = singular**2 / np.sum(singular**2)
        share = share[share > 1e-14]
        assert_allclose(found[f"{name}_rank"], np.exp(-np.sum(share * np.log(share))), rtol=1e-3)
        assert found[f"{name}_kept"].shape == (10,)
        # Views of strength 0.5 are farther apart than those of 0.3.
        assert 0 < found[f"{name}_own"] < found[f"{name}_fixed"] < 1.5
    # All 12 features predict what 8 linear combinations of their ReLU do, and more.
    assert found["encoder_kept"].sum() > found["projector_kept"].sum()


def test_probes_and_directions_are_read_from_each_part(context, network):
    model, variables, found = network
    subjects = context.subjects
    with jax.enable_x64(False):
        seen = [model.apply(variables, images) for images in (subjects.train, subjects.test)]
    for part, name in enumerate(("encoder", "projector")):
        train, test = (np.asarray(output[part], np.float64) for output in seen)
        kept = spectral.predicted_directions(
            train, subjects.scores, test, subjects.test_scores, ridge=1e-3
        )
        assert_allclose(found[f"{name}_kept"], kept, atol=1e-4)
        live = train.std(0) > 0
        rows, tests = ((x - train.mean(0))[:, live] / train.std(0)[live] for x in (train, test))
        targets = np.eye(10)[subjects.train_labels]
        gram = rows.T @ rows + 10 * np.eye(live.sum())
        logits = tests @ np.linalg.solve(gram, rows.T @ targets) + targets.mean(0)
        right = np.mean(logits.argmax(1) == subjects.test_labels)
        assert_allclose(found[f"{name}_probe"], 100 * right, atol=1.01)


def test_local_measures_are_means_over_points(context, network):
    model, variables, found = network
    points = np.sort(np.random.default_rng(0).permutation(100)[:5])
    with jax.enable_x64(False):
        features = np.asarray(model.apply(variables, context.subjects.test).features)

        def project(h):
            return model.apply(variables, h[None], method="project")[0]

        jacobians = [np.asarray(jax.jacobian(project)(features[i])) for i in points]
        tangents = geometry.tangent_bases(features, 4, 2, queries=points)
        images, key = context.subjects.raw[points], jax.random.key(2)
        draws = [
            projector_measures.make_views(context.policy, images, jax.random.fold_in(key, i), 0.3)
            for i in range(4)
        ]
        moved = [np.asarray(model.apply(variables, views).features) for views in draws]
        differences = np.asarray(geometry.neighbor_differences(features, 4, queries=points))
    found_here = {
        "local_rank": [],
        "tangent_alignment": [],
        "augmentation_alignment": [],
        "gain": [],
    }
    for place, jacobian in enumerate(jacobians):
        _, values, axes = np.linalg.svd(jacobian.astype(np.float64))
        share = values**2 / np.sum(values**2)
        share = share[share > 1e-14]
        displaced = np.stack(moved)[:, place] - features[points[place]]
        augmented = np.linalg.svd(displaced.astype(np.float64))[2][:2].T
        found_here["local_rank"].append(np.exp(-np.sum(share * np.log(share))))
        for name, basis in (("tangent", tangents[place]), ("augmentation", augmented)):
            overlap = np.sum((axes[:2] @ np.asarray(basis)) ** 2) / 2
            found_here[f"{name}_alignment"].append(overlap)
        gains = [
            np.linalg.norm(jacobian @ rows.T) / np.linalg.norm(rows)
            for rows in (differences[place], displaced)
        ]
        found_here["gain"].append(gains[0] / gains[1])
    for name, values in found_here.items():
        assert_allclose(found[name], np.mean(values), rtol=1e-2)
    assert found["chance"] == 2 / 12


@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_a_network_that_died_is_measured_as_nan(context, network):
    model, variables, _ = network
    dead = jax.tree.map(lambda leaf: 0 * leaf, variables)
    with jax.enable_x64(False):
        found = projector_measures.measure(context.subjects, model, dead, 0.3)
    for field in ("encoder_rank", "projector_fixed", "encoder_own", "local_rank", "gain"):
        assert np.isnan(found[field])
    assert np.isnan(found["encoder_singular"]).all()


def test_batches_carry_the_strength_of_the_run(context):
    with jax.enable_x64(False):
        trainer = projector_runs.make_trainer(
            context, projector_runs.projectors_of(context.config)[0]
        )
        found = []
        for strength in (0.1, 0.6):
            batches = projector_runs.strength_batches(context, 0, strength)
            assert_allclose(batches(0).strength, strength)
            _, metrics = trainer.step(trainer.init(0), batches(0))
            found.append(float(metrics["loss"][0] / metrics["loss"][1]))
    assert found[0] < found[1] < np.log(79) + 0.2


def test_the_final_loss_is_that_of_full_batches(context):
    with jax.enable_x64(False):
        projector = projector_runs.projectors_of(context.config)[1]
        trainer = projector_runs.make_trainer(context, projector)
        state = trainer.init(0)
        found = projector_runs.final_loss(context, trainer, state, 0.3)
        model = projector_runs.make_model(context.config, projector)
        values = []
        for start in range(0, 200, 40):
            images = context.subjects.train[start : start + 40]
            keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), np.arange(40))
            views = training.two_views(context.policy, keys, images, 0.3)
            variables = training.variables_of(state)
            seen = [model.apply(variables, view).projection for view in views]
            values.append(losses.nt_xent(*seen, 0.2))
    assert_allclose(found, np.mean(values), rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "simclr"}, "model must be one of mlp, lenet"),
        ({"model": "lenet"}, "model 'lenet' has no option"),
        ({"projectors": ()}, "projectors must be one or more of different names"),
        ({"projectors": (("linear", {"depth": 1}),), "base": "linear"}, "has no option depth"),
        ({"base": "3 layers"}, "base must be one of linear, 2 layers, got '3 layers'"),
        ({"family": "sound"}, "family must be one of auto, colour, grey, latents, got 'sound'"),
        ({"strengths": ()}, "strengths must be one or more that differ"),
        ({"strengths": (0.1, 0.1)}, "strengths must be one or more that differ"),
        ({"strengths": (0.1, 1.5)}, r"must lie in \(0, 1\], got 1.5"),
        ({"measure.reference": 0.0}, r"must lie in \(0, 1\], got 0.0"),
        ({"measure.rank": 5}, "measure.rank=5 must be at most measure.neighbors=4"),
        ({"measure.points": 0}, "measure.points must be at least 1, got 0"),
        ({"measure.ridge": -1.0}, "measure.ridge must be at least 0"),
        ({"loss.name": "triplet"}, "loss.name must be one of nt_xent, vicreg, barlow_twins"),
        ({"loss.options.temperature": 0.0}, r"temperature=0.0 must be a finite number > 0"),
        ({"flow.steps": 0}, "flow.steps must be at least 1"),
        ({"train.batch_size": 1}, "train.batch_size must be at least 2"),
    ],
)
def test_bad_config_is_refused_before_data_is_read(tmp_path, monkeypatch, changes, message):
    def forbidden(*args, **kwargs):
        raise AssertionError("opened data in spite of a bad config")

    monkeypatch.setattr(trained, "open_splits", forbidden)
    with pytest.raises(ValueError, match=message):
        projector_geometry.run(small(**changes), tmp_path, [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measure.neighbors": 100}, "measure.neighbors=100 must be below the 100 test images"),
        ({"measure.points": 101}, "measure.points=101 is more than the 100 test images"),
        ({"measure.directions": 65}, "measure.directions=65 is more than the 64 pixels"),
        ({"train.batch_size": 500}, "train.batch_size=500 is more than the 200 training images"),
    ],
)
def test_what_does_not_fit_the_images_is_refused_before_training(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        projector_geometry.run(small(**changes), tmp_path, [0])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_is_valid(variant):
    config = recipe.get_config(variant)
    projector_geometry.validate(config)
    projector_geometry.validate(projector_geometry.smoke(config))


def test_an_unknown_variant_lists_the_known_ones():
    with pytest.raises(ValueError, match="choose one of embedded, vicreg, barlow_twins, digits"):
        recipe.get_config("svhn")


@pytest.fixture(scope="module", params=["", "control"])
def finished(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    with jax.enable_x64(False):
        return request.param, workdir, projector_geometry.run(small(request.param), workdir, [0, 1])


@pytest.mark.slow
def test_every_output_is_there(finished):
    _, workdir, results = finished
    for name in (
        "report.html", "results.json", "tables/claims.md", "figures/strength.png",
        "figures/spectra.pdf", "figures/directions.png", "figures/projectors.png",
    ):  # fmt: skip
        assert (workdir / name).stat().st_size > 100
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(line["projector"], line["strength"], line["seed"]) for line in lines] == [
        (name, strength, seed)
        for name in ("linear", "2 layers")
        for strength in (None, 0.1, 0.6)
        for seed in (0, 1)
    ]
    # Untrained encoders know nothing of their projector's strength, but of their seed.
    untrained = [line for line in lines if line["strength"] is None]
    assert len({line["encoder_rank"] for line in untrained}) > 1
    assert results["flow"]["rank"][0][0] > 0


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_numbers(finished, tmp_path):
    variant, workdir, first = finished
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    # As if killed in the middle of a training.
    for cached in (copy / "cache").glob("linear-0.6-seed1-*.npz"):
        cached.unlink()
    steps = (copy / "runs" / "linear-0.6-seed1" / "checkpoints").glob("[0-9]*")
    shutil.rmtree(max(steps, key=lambda path: int(path.name)))
    with jax.enable_x64(False):
        again = projector_geometry.run(small(variant), copy, [0, 1])
    assert again["summary"] == first["summary"]
    assert (copy / "metrics.jsonl").read_bytes() == (workdir / "metrics.jsonl").read_bytes()
