import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import data
from recon_jax.audit import BASELINES, MEASURES, AuditReport, audit, compare

OPTIONS = {"seeds": (0, 1), "bootstraps": 20, "strengths": (0.3, 0.8), "shots": 2}
RNG = np.random.default_rng(0)


def relu_features(weights, images):
    return jnp.maximum(images.reshape(len(images), -1) @ weights, 0)


def network(seed):
    weights = np.random.default_rng(seed).standard_normal((12, 4)).astype(np.float32)
    return functools.partial(relu_features, jnp.asarray(weights))


def layers(images):
    return {"rows": images.mean(2), "columns": images.mean(1)}


@pytest.fixture(scope="module")
def images(image_like):
    # As many features as classes less one, so that most rows share their programs.
    pixels, labels = image_like(120, (4, 3, 1), 5)
    low, high = pixels.min(), pixels.max()
    return (255 * (pixels - low) / (high - low)).astype(np.uint8), labels


@pytest.fixture(scope="module")
def report(images):
    return audit(network(5), images, name="net", layers=layers, fresh=network, **OPTIONS)


def test_every_measure_of_every_row(report):
    assert [row.name for row in report.rows] == [
        "net",
        "pixels",
        "PCA of 4",
        "net, untrained",
        "supervised closed form",
    ]
    assert [row.dimension for row in report.rows] == [4, 12, 4, 4, 4]
    assert [row.role for row in report.rows] == ["encoder"] + 4 * ["baseline"]
    for row in report.rows:
        assert all(getattr(row, name) is not None for name in MEASURES)
        assert list(row.stability)[-1] == "output"
        estimates = [row.spectrum.total, *row.labels[:4], *row.geometry, *row.probes]
        estimates += [*row.stability["output"], *row.invariance.values]
        for one in estimates:
            assert np.isfinite(one.value)
            assert one.low - 1e-9 <= one.value <= one.high + 1e-9
    assert list(report.encoder.stability) == ["rows", "columns", "output"]
    assert report.encoder.spectrum.total.kind == "bootstrap"
    assert report.baselines[2].spectrum.total.kind == "seeds"
    assert report.warnings == ()


def test_baselines_are_what_they_must_be(report):
    pixels, pca, *_ = report.baselines
    np.testing.assert_allclose(pixels.spectrum_directions, 1, atol=1e-3)
    np.testing.assert_allclose(pca.spectrum_directions[:4], 1, atol=1e-4)
    # Both are principal components of the pixels, whose alignment the same numbers make.
    for row in (pixels, pca):
        np.testing.assert_allclose(row.labels.difference[:3], 0, atol=1e-5)
    one = pixels.stability["output"]
    assert one.R.value == pytest.approx(1, abs=1e-5)  # noise and deformation have one norm


def test_facts_of_the_report(report):
    assert report.source["images"] == 96
    assert report.source["test_images"] == 24
    assert report.variance.sum() == pytest.approx(1)
    assert {"images", "net", "net, untrained", "total"} <= set(report.seconds)
    assert set(report.setting) >= {*OPTIONS, "measures", "baselines", "num_images", "test"}
    assert "git_revision" in report.provenance


def test_reports_pass_through_json_and_compare(report, images):
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    again = AuditReport.from_dict(content)
    assert again.to_dict() == content
    other = audit(lambda x: np.asarray(x).mean((2, 3)), images, name="plain", **OPTIONS)
    found = compare([again, other])
    assert [row.name for row in found.encoders] == ["net", "plain"]
    assert "PCA of 4" in [row.name for row in found.baselines]
    assert other.encoder.compiled is False
    assert any("pass fresh=" in warning for warning in other.warnings)
    # The same code and keys on the same images: the same numbers.
    shared = {row.name: row for row in report.baselines}
    for row in other.baselines:
        if row.name == "pixels":
            assert row.invariance == shared["pixels"].invariance
            assert row.probes == shared["pixels"].probes


def test_without_labels_the_rest_is_measured(images):
    found = audit(network(5), images[0], measures=["spectrum", "labels", "probes"], **OPTIONS)
    assert found.encoder.spectrum.total.value > 0
    assert [found.encoder.labels.pca.note, found.encoder.probes.knn.note] == ["no labels"] * 2
    assert [row.name for row in found.baselines] == ["pixels", "PCA of 4"]
    assert any("no supervised closed form: no labels" in warning for warning in found.warnings)
    assert found.encoder.geometry is None
    assert found.encoder.invariance is None


def test_one_image_a_class(images):
    measures = ("spectrum", "labels", "probes")
    found = audit(network(5), (images[0][:50], np.arange(50)), measures=measures, **OPTIONS)
    assert "no test image" in found.encoder.probes.linear.note
    assert "no test image" in found.encoder.labels.features.note
    assert np.isfinite(found.encoder.spectrum.total.value)


def test_wide_constant_and_random_features(images):
    few = (images[0][:50], images[1][:50])
    options = OPTIONS | {"baselines": (), "measures": ("spectrum", "labels")}
    wide = audit(lambda x: x.reshape(len(x), -1).repeat(9, axis=1) ** 2, few, **options)
    assert wide.encoder.dimension == 108
    assert wide.encoder.labels.pca_dimension == 12
    assert wide.encoder.spectrum.total.value > 0.5
    constant = audit(lambda x: np.ones((len(x), 3)), few, **options)
    assert constant.encoder.warnings[0].startswith("constant: 3 of 3 features")
    assert constant.encoder.spectrum.total.value == pytest.approx(0, abs=0.05)
    draws = np.random.default_rng(0)
    noise = audit(lambda x: draws.normal(size=(len(x), 3)), few, **options)
    assert noise.encoder.warnings[0].startswith("not deterministic")
    assert not noise.encoder.compiled


def test_a_source_and_a_test_source(images):
    train = data.from_arrays(*images, name="mine")
    test = data.from_arrays(images[0][:30], images[1][:30])
    options = OPTIONS | {"baselines": (), "measures": "spectrum", "num_images": 40}
    found = audit(network(5), train, test=test, num_test_images=20, **options)
    assert (found.source["images"], found.source["test_images"]) == (40, 20)
    assert found.setting["test"] == "given"


def test_large_images_are_reduced_for_the_spectrum_alone(image_like):
    pixels, labels = image_like(60, (6, 4, 1), 2)
    seen = set()

    def encode(images):
        seen.add(images.shape[1:])
        return images[:, ::2, ::2].reshape(len(images), -1)

    found = audit(
        encode, ((pixels - pixels.min()) / np.ptp(pixels), labels), most_pixels=6, **OPTIONS
    )
    assert seen == {(6, 4, 1)}
    assert [row.dimension for row in found.rows] == [6, 6, 6, 1]
    assert len(found.variance) == 6
    for row in found.baselines[:2]:  # all of the reduced pixels, as they are and turned
        np.testing.assert_allclose(row.spectrum_directions, 1, atol=1e-3)
    # Those of the whole images, of which every second pixel is no linear function.
    assert found.encoder.spectrum.total.value < 0.99
    assert any("reduced to 3x2" in warning for warning in found.warnings)
    assert found.setting["most_pixels"] == 6
    assert AuditReport.from_dict(found.to_dict()).to_dict() == found.to_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": ("spectra",)}, "unknown measures 'spectra'; choose from spectrum"),
        ({"measures": ()}, "measures are none"),
        ({"baselines": ("noise",)}, "unknown baselines 'noise'; choose from pixels"),
        ({"seeds": ()}, "one or more different integers"),
        ({"seeds": (0, 0)}, "one or more different integers"),
        ({"seeds": (-1,)}, "one or more different integers"),
        ({"batch_size": 1}, "batch_size=1 must be an integer of at least 2"),
        ({"num_images": 4}, "num_images=4 must be an integer of at least 5"),
        ({"shots": 0}, "shots=0"),
        ({"bootstraps": 1}, "bootstraps=1"),
        ({"most_pixels": 0}, "most_pixels=0"),
        ({"cutoff": 1}, "cutoff=1"),
        ({"displacement": 0.0}, "displacement=0.0"),
        ({"strengths": (0.0, 0.5)}, "in .0, 1."),
        ({"strengths": ()}, "in .0, 1."),
    ],
)
def test_bad_options_are_refused_before_any_image_is_read(options, message):
    def read(indices):
        raise AssertionError("read")

    source = data.Source("x", "train", 100, (2, 2, 1), ("a", "b"), read)
    with pytest.raises(ValueError, match=message):
        audit(np.sin, source, **options)


def test_what_is_no_encoder_is_refused(images):
    with pytest.raises(ValueError, match="encode is ndarray"):
        audit(images[0], images)
    with pytest.raises(ValueError, match="returned a tuple"):
        audit(lambda x: (x, x), images, baselines=list(BASELINES))
    with pytest.raises(ValueError, match="encoder returned NaN"):
        audit(lambda x: x.reshape(len(x), -1) * jnp.nan, images)
