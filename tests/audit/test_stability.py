import jax
import numpy as np
import pytest

from recon_jax import diffeo
from recon_jax.audit import as_encoder
from recon_jax.audit.extraction import prepare
from recon_jax.audit.stability import measure_stability

IMAGES = np.random.default_rng(0).random((12, 6, 5, 1)).astype(np.float32)


def pooled(images):
    return images.mean((1, 2))


def stretched(images):
    return {"first": images**2, "dead": 0 * images[:, 0], "last": images[:, 1:3]}


def measured(seeds=(0, 1), layers=stretched, **options):
    encoder = as_encoder(pooled, layers=layers, **options)
    return measure_stability(prepare(encoder, IMAGES[:6]), IMAGES, seeds, 6)


@pytest.fixture(scope="module")
def found():
    return measured()


def test_matches_sensitivities_of_the_representations(found):
    assert list(found) == ["first", "dead", "last", "output"]
    expected = []
    for seed in (0, 1):
        probes = diffeo.probe_images(jax.random.key(seed), IMAGES)
        expected.append(diffeo.sensitivities(*(x**2 for x in probes)))
    expected = np.array(expected, float)
    np.testing.assert_allclose([one.value for one in found["first"]], expected.mean(0), rtol=1e-4)
    deviations = expected.std(0, ddof=1)
    spread = [one.high - one.value for one in found["first"]]
    np.testing.assert_allclose(spread, deviations, rtol=1e-2)
    assert found["last"].D.kind == "seeds"


def test_a_dead_layer_does_not_hide_the_others(found):
    assert np.isnan(found["dead"].R.value)
    assert "the same for all 12 images" in found["dead"].R.note
    assert np.isfinite([one.value for one in found["output"]]).all()


def test_functions_that_are_not_compiled_agree(found):
    layers = lambda images: {"first": np.square(images)}  # noqa: E731
    plain = measured(layers=layers, jit=False)
    np.testing.assert_allclose(plain["first"].R.value, found["first"].R.value, rtol=1e-4)


def test_images_that_cannot_be_deformed():
    line = IMAGES[:, :1]
    runner = prepare(as_encoder(pooled), line[:6])
    (layer,) = measure_stability(runner, line, (0, 1), 6).values()
    assert np.isnan(layer.D.value)
    assert layer.D.note
