import functools

import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.audit import as_encoder
from recon_jax.audit.baselines import (
    BASELINES,
    pca_encoder,
    pixel_encoder,
    random_encoders,
    supervised_encoder,
)
from recon_jax.audit.extraction import extract, prepare
from recon_jax.audit.labels import label_errors
from recon_jax.audit.readout import fit_read_out
from recon_jax.audit.subjects import gather_subjects


def gather(images, labels):
    return gather_subjects(
        (images / 50, labels), None, num_images=None, num_test_images=None, seed=0
    )


@pytest.fixture(scope="module")
def subjects(image_like):
    return gather(*image_like(200, (5, 4, 1), 3))


def features_of(encoder, subjects):
    runner = prepare(encoder, subjects.train[:20])
    return [extract(runner, images, 20) for images in (subjects.train, subjects.test)]


def test_pixels_are_images_as_they_are(subjects):
    train, _ = features_of(pixel_encoder(subjects), subjects)
    np.testing.assert_array_equal(train, subjects.train.reshape(160, -1).astype(np.float32))


def test_principal_components_are_the_scores(subjects):
    encoder = pca_encoder(subjects, 6)
    assert encoder.name == "PCA of 6"
    for found, expected in zip(
        features_of(encoder, subjects), (subjects.scores, subjects.test_scores), strict=True
    ):
        np.testing.assert_allclose(found, expected[:, :6], atol=1e-5)
    assert pca_encoder(subjects, 1000).name == "PCA of 20"


def test_supervised_closed_form_is_the_best_linear_encoder_of_labels(subjects):
    """On the training images no C - 1 linear features explain more of the one-hot labels."""
    encoder = supervised_encoder(subjects)
    train, _ = features_of(encoder, subjects)
    assert train.shape[1] == 2
    hot = np.eye(3)[subjects.train_labels]
    centred = train - train.mean(0)
    weights = np.linalg.lstsq(centred, hot - hot.mean(0), rcond=None)[0]
    explained = np.square(centred @ weights).sum()
    pixels = subjects.train.reshape(160, -1)
    pixels = pixels - pixels.mean(0)
    every = pixels @ np.linalg.lstsq(pixels, hot - hot.mean(0), rcond=None)[0]
    assert explained == pytest.approx(np.square(every).sum(), rel=1e-4)


def test_supervised_closed_form_beats_components_of_its_dimension(subjects):
    supervised = label_errors(
        subjects, fit_read_out(*features_of(supervised_encoder(subjects), subjects))
    )
    pca = label_errors(subjects, fit_read_out(*features_of(pca_encoder(subjects, 2), subjects)))
    assert supervised.sum() < pca.sum()


def test_random_networks_are_made_by_seed():
    def fresh(seed):
        return functools.partial(lambda w, images: images * w, jnp.float32(seed))

    encoders = random_encoders(as_encoder(np.sin, name="net", fresh=fresh), (4, 9))
    assert [encoder.name for encoder in encoders] == ["net, untrained"] * 2
    assert [float(encoder.features(1)) for encoder in encoders] == [4, 9]


def test_baselines_that_cannot_be_made_say_why(subjects, image_like):
    encoder = as_encoder(np.sin)
    assert list(BASELINES) == ["pixels", "pca", "random", "supervised"]
    none, why = BASELINES["random"](subjects, encoder, 3, (0,))
    assert none == []
    assert "pass fresh=" in why
    images, _ = image_like(60, (4, 3, 1), 3)
    none, why = BASELINES["supervised"](gather(images, None), encoder, 3, (0,))
    assert none == []
    assert "no labels" in why
    (made,), why = BASELINES["pca"](subjects, encoder, 3, (0,))
    assert made.name == "PCA of 3"
    assert why == ""
