import json
import shutil

import jax
import numpy as np
import pytest

from configs import local_vae as local_recipe
from configs import semi_supervised as semi_recipe
from configs import texture as texture_recipe
from experiments import local_vae, semi_supervised, texture, trained, vae_readouts, vae_runs
from recon_jax import augment, data

RECIPES = {
    local_vae: local_recipe,
    texture: texture_recipe,
    semi_supervised: semi_recipe,
}


def small(experiment, variant="", **changes):
    config = experiment.smoke(RECIPES[experiment].get_config(variant))
    config.data.train_limit, config.data.test_limit = 80, 40
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    config = small(local_vae, **{"texture.strength": 0.2, "texture.contrast": 0.5})
    return vae_runs.open_data(config, tmp_path_factory.mktemp("run"))


def images_of(source):
    return source.read(np.arange(source.num_images))[0]


@pytest.mark.parametrize(
    ("name", "horizon"), [("factorised", 0), ("local-1", 1), ("local-12", 12), ("full", None)]
)
def test_decoders_have_names(name, horizon):
    assert vae_runs.parse_decoder(name) == horizon


@pytest.mark.parametrize("name", ["local", "local-0", "local--1", "local-x", "fully", "full-1", ""])
def test_unknown_decoders_are_refused(name):
    with pytest.raises(
        ValueError, match=r"unknown decoder .*; choose factorised, full, or local-H"
    ):
        vae_runs.parse_decoder(name)


def test_probes_see_one_fixed_texture(context):
    images, labels = context.train.read(np.arange(80))
    policy = augment.texture((8, 8, 1), 0.2, 0.85, 0.0, 0.5)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(1), i))(np.arange(80))
    expected = policy(keys, np.asarray(images, np.float32) / 255)
    np.testing.assert_allclose(images_of(context.seen), expected, atol=1e-6)
    np.testing.assert_array_equal(context.seen.read(np.arange(80))[1], labels)
    # Another field on the test images, and none where nothing is asked for.
    plain = vae_runs.texture_of(small(local_vae).texture, (8, 8, 1))
    source = vae_runs.fixed_texture(context.train, plain)
    np.testing.assert_allclose(images_of(source), np.asarray(images, np.float32) / 255, atol=1e-7)
    assert context.unseen.num_images == 40


def test_scores_are_principal_components(context):
    seen, unseen = (images_of(s).reshape(s.num_images, -1) for s in (context.seen, context.unseen))
    mean = seen.mean(0, dtype=np.float64)
    basis = np.linalg.svd(seen - mean, full_matrices=False)[2]
    for rows, scores in zip((seen, unseen), context.scores, strict=True):
        expected = (rows - mean) @ basis[:20].T
        np.testing.assert_allclose(np.abs(scores[:, :20]), np.abs(expected), atol=1e-4)


def test_principal_components_keep_the_first_directions_alone(context):
    kept = vae_readouts.kept_directions(context, *(part[:, :5] for part in context.scores))
    np.testing.assert_allclose(kept[:5], 1, atol=1e-9)
    # On test images the rest is correlated with them by chance.
    assert kept[5:20].max() < 0.5


def test_the_weight_of_the_kl_divergence_rises_to_one():
    config = small(local_vae, kl_warmup=0.25)
    schedule = vae_runs.kl_schedule(config, 40)
    assert [float(schedule(step)) for step in (0, 5, 10, 39)] == [0, 0.5, 1, 1]
    assert vae_runs.kl_schedule(small(local_vae, kl_warmup=0.0), 40) == 1


def test_labelled_images_are_as_many_of_each_class(context):
    rows = semi_supervised.labelled_rows(context, 3, 0)
    labels = context.train.read(rows)[1]
    np.testing.assert_array_equal(np.bincount(labels), [3] * 10)
    assert set(rows) != set(semi_supervised.labelled_rows(context, 3, 1))
    assert set(rows) < set(semi_supervised.labelled_rows(context, 4, 0))


def test_supervised_batches_hold_labelled_images_alone():
    config = small(semi_supervised)
    source = data.from_arrays(
        np.arange(80, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8),
        np.arange(80, dtype=np.int32) % 10,
    )
    context = vae_runs.Context(config, None, source, source, source, None, None, {})
    rows = set(semi_supervised.labelled_rows(context, 2, 5).tolist())
    alone = semi_supervised.batches_of(context, 2, 5, paired=False)
    both = semi_supervised.batches_of(context, 2, 5, paired=True)
    found = [set(batch.images[:, 0, 0, 0].tolist()) for batch in map(alone, range(4))]
    assert set.union(*found) == rows
    pair = both(1)
    assert set(pair.labelled.images[:, 0, 0, 0].tolist()) <= rows
    assert len(pair.labelled.labels) == 10
    assert len(set(pair.unlabelled.images[:, 0, 0, 0].tolist())) == 40


@pytest.mark.parametrize(
    ("experiment", "changes", "message"),
    [
        (local_vae, {"decoders": ()}, "decoders must be one or more different ones"),
        (local_vae, {"decoders": ("full", "full")}, "decoders must be one or more different ones"),
        (local_vae, {"decoders": ("global",)}, "unknown decoder 'global'"),
        (local_vae, {"latent_sizes": (0,)}, "latent_sizes must be at least 1, got 0"),
        (local_vae, {"likelihood.name": "poisson"}, "likelihood.name must be one of bernoulli"),
        (local_vae, {"model.networks": "vit"}, "model.networks must be one of mlp, conv"),
        (local_vae, {"kl_warmup": 1.5}, r"kl_warmup is a part of the run in \[0, 1\], got 1.5"),
        (local_vae, {"free_bits": -0.1}, "free_bits must be at least 0"),
        (local_vae, {"num_pictures": 0}, "num_pictures must be at least 1"),
        (texture, {"strengths": (0.1,)}, "strengths must be two or more different ones"),
        (texture, {"strengths": (0.1, -0.1)}, "strengths must be at least 0"),
        (texture, {"latent_sizes": (4, 8)}, "latent_sizes must be one for a curve"),
        (semi_supervised, {"shots": ()}, "shots must be one or more different ones"),
        (semi_supervised, {"shots": (0, 5)}, "shots must be at least 1"),
        (semi_supervised, {"classifier": "svm"}, "classifier must be one of mlp"),
        (semi_supervised, {"labelled_batch": 0}, "labelled_batch must be at least 1"),
    ],
)
def test_bad_config_is_refused_before_data_is_read(
    tmp_path, monkeypatch, experiment, changes, message
):
    def forbidden(*args, **kwargs):
        raise AssertionError("opened data in spite of a bad config")

    monkeypatch.setattr(trained, "open_splits", forbidden)
    with pytest.raises(ValueError, match=message):
        experiment.run(small(experiment, **changes), tmp_path, [0])


@pytest.mark.parametrize(
    ("experiment", "changes", "message"),
    [
        (local_vae, {"decoders": ("local-8",)}, "horizon=8"),
        (local_vae, {"likelihood.levels": 1}, "levels=1 must be an integer in 2"),
        (semi_supervised, {"shots": (9,)}, "fewer than shots=9"),
    ],
)
def test_what_does_not_fit_the_images_is_refused_before_training(
    tmp_path, experiment, changes, message
):
    with pytest.raises(ValueError, match=message):
        experiment.run(small(experiment, **changes), tmp_path, [0])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("experiment", "variant"),
    [(module, variant) for module, recipe in RECIPES.items() for variant in recipe.VARIANTS],
)
def test_every_variant_is_valid(experiment, variant):
    config = RECIPES[experiment].get_config(variant)
    experiment.validate(config)
    experiment.validate(experiment.smoke(config))


@pytest.mark.parametrize("recipe", RECIPES.values())
def test_unknown_variant_lists_the_known_ones(recipe):
    with pytest.raises(ValueError, match="choose one of embedded, "):
        recipe.get_config("stl10")


def results_without_times(workdir):
    results = json.loads((workdir / "results.json").read_text())
    return {key: results[key] for key in ("summary", "runs")}


FILES = {
    local_vae: ["tables/decoders.md", "figures/code_length.png", "figures/pictures.pdf"],
    texture: ["figures/texture.png", "figures/kl.pdf"],
    semi_supervised: ["figures/labels.png"],
}
KILLED = {
    local_vae: "local-1-z4-t0-seed1",
    texture: "local-1-z4-t0.15-seed1",
    semi_supervised: "m2-local-1-2-seed1",
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", RECIPES)
def test_a_run_and_its_resumption(experiment, tmp_path, rules_fit):
    first, copy = tmp_path / "first", tmp_path / "copy"
    config = small(experiment)
    experiment.run(config, first, [0, 1])
    for name in ("report.html", *FILES[experiment]):
        assert (first / name).stat().st_size > 100
    rules_fit(f"{experiment.__name__.partition('.')[2]}_embedded", first)
    shutil.copytree(first, copy)
    # As if killed in the middle of a training.
    for cached in (copy / "cache").glob(f"{KILLED[experiment]}-*.npz"):
        cached.unlink()
    steps = (copy / "runs" / KILLED[experiment] / "checkpoints").glob("[0-9]*")
    shutil.rmtree(max(steps, key=lambda path: int(path.name)))
    experiment.run(config, copy, [0, 1])
    assert results_without_times(copy) == results_without_times(first)
    assert (copy / "metrics.jsonl").read_bytes() == (first / "metrics.jsonl").read_bytes()
