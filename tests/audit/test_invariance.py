import numpy as np
import pytest

from recon_jax import geometry
from recon_jax.audit import as_encoder, invariance
from recon_jax.audit.extraction import prepare
from recon_jax.audit.invariance import make_views, measure_invariance, undefined_invariance

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 1)).astype(np.uint8)
STRENGTHS, SEEDS = (0.2, 1.0), (3, 5)


def flatten(images):
    return images.reshape(len(images), -1)


@pytest.fixture(scope="module")
def views():
    return make_views(IMAGES, STRENGTHS, SEEDS, 6)


def measured(encode, views, size=6):
    runner = prepare(as_encoder(encode), IMAGES[:size])
    return measure_invariance(runner, views, STRENGTHS, SEEDS, size)


def test_matches_non_invariance_of_the_views(views):
    found = measured(flatten, views)
    assert found.strengths == STRENGTHS
    for strength, one in zip(STRENGTHS, found.values, strict=True):
        values = [
            float(
                geometry.non_invariance(
                    *(flatten(views(strength, seed, number)) for number in range(2))
                )
            )
            for seed in SEEDS
        ]
        assert one.value == pytest.approx(np.mean(values), rel=1e-5)
        assert one.high - one.value == pytest.approx(np.std(values, ddof=1), rel=1e-3)
    assert found.values[0].value < found.values[1].value


def test_views_are_functions_of_strength_seed_and_number(views, monkeypatch):
    first = views(0.2, 3, 0)
    assert first.shape == IMAGES.shape
    np.testing.assert_array_equal(first, views(0.2, 3, 0))
    for other in (views(1.0, 3, 0), views(0.2, 5, 0), views(0.2, 3, 1)):
        assert np.abs(first - other).max() > 0.01
    # Neither batches nor whether they are kept changes them.
    monkeypatch.setattr(invariance, "_KEPT_BYTES", 0)
    drawn = make_views(IMAGES, STRENGTHS, SEEDS, 4)
    assert not hasattr(drawn, "cache_info")
    np.testing.assert_allclose(drawn(0.2, 3, 0), first, atol=1e-6)


def test_constant_features_have_no_invariance(views):
    found = measured(lambda images: 0 * flatten(images)[:, :2] + 1, views)
    assert np.isnan([one.value for one in found.values]).all()
    assert "constant" in found.values[0].note


def test_images_without_views():
    with pytest.raises(ValueError, match="at least 2"):
        make_views(IMAGES[:, :1], STRENGTHS, SEEDS, 6)
    assert undefined_invariance(STRENGTHS, "why").values[1].note == "why"
