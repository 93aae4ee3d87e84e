import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_jax.spectral import (
    Sketch,
    alignment_curve,
    eigendecompose,
    eigenvalue_bounds,
    expected_range_error,
    explained_variance,
    sketch_scatter,
    sketched_alignment,
    sketched_variance,
    stream_moments,
    stream_sketch,
)

from . import reference

KEY = jax.random.key(0)
SHAPE, CLASSES = (4, 4, 1), 3


def batches_of(images, labels, size):
    return lambda: [
        (images[i : i + size], labels[i : i + size]) for i in range(0, len(images), size)
    ]


def sketch_of(images, labels, rank, size=16, **options):
    options = {"key": KEY, **options}
    classes = options.pop("num_classes", int(labels.max()) + 1)
    return stream_sketch(batches_of(images, labels, size), classes, rank, **options)


def span_error(vectors, basis):
    """How far the columns of `vectors` stick out of the span of `basis`."""
    return np.linalg.norm(vectors - basis @ (basis.T @ vectors))


@pytest.fixture(scope="module")
def data(image_like):
    return image_like(80, SHAPE, CLASSES, seed=5)


@pytest.fixture(scope="module")
def exact(data):
    return reference.moments_of(*data, CLASSES)


# Exact statistics and full rank ------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3, 16])
def test_what_does_not_depend_on_the_subspace_is_exact(data, exact, rank):
    sketch = sketch_of(*data, rank, oversampling=0)
    assert int(sketch.count) == 80
    assert sketch.num_features == 16
    np.testing.assert_array_equal(sketch.class_counts, exact.class_counts)
    np.testing.assert_allclose(sketch.mean, exact.mean, rtol=1e-12)
    np.testing.assert_allclose(sketch.cross, exact.cross, atol=1e-11)
    np.testing.assert_allclose(sketch.total, np.trace(exact.scatter), rtol=1e-12)
    vectors, scatter = np.asarray(sketch.vectors), np.asarray(exact.scatter)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(rank), atol=1e-13)
    inner = vectors.T @ scatter @ vectors
    np.testing.assert_allclose(inner, np.diag(sketch.values), atol=1e-11 * inner.max())
    residual = scatter @ vectors - vectors @ inner
    np.testing.assert_allclose(
        sketch.coupling, np.linalg.norm(residual, 2), rtol=1e-6, atol=1e-7 * inner.max()
    )


def assert_is_the_spectrum(sketch, exact, rank, rtol=1e-9):
    spectrum = eigendecompose(exact)
    values = np.asarray(spectrum.values)
    np.testing.assert_allclose(sketch.values[:rank], values[:rank], atol=rtol * values[0])
    np.testing.assert_allclose(sketch.values[rank:], 0, atol=rtol * values[0])
    np.testing.assert_allclose(sketch.vectors[:, :rank], spectrum.vectors[:, :rank], atol=1e-6)


def test_with_all_directions_it_is_the_spectrum(data, exact):
    assert_is_the_spectrum(sketch_of(*data, 16), exact, 16)
    assert_is_the_spectrum(sketch_of(*data, 10, oversampling=99), exact, 16)


@pytest.mark.parametrize("columns", [(3, 0), (2, 1), (4, 8)])
def test_rank_deficient_images_are_found_exactly(columns):
    # Three directions in 16 pixels.
    rng = np.random.default_rng(0)
    images = rng.standard_normal((50, 3)) * [9, 3, 1] @ rng.standard_normal((3, 16)) + 7
    labels = rng.integers(0, CLASSES, 50)
    exact = reference.moments_of(images, labels, CLASSES)
    sketch = sketch_of(images, labels, columns[0], oversampling=columns[1], num_classes=CLASSES)
    assert_is_the_spectrum(sketch, exact, 3)
    lower, upper = eigenvalue_bounds(sketch)
    np.testing.assert_allclose(lower, upper, atol=1e-12 * float(sketch.total))
    bracket = sketched_alignment(sketch)
    wanted = alignment_curve(exact)[: len(bracket.upper)]
    np.testing.assert_allclose(bracket.upper, wanted, atol=1e-9)
    np.testing.assert_allclose(bracket.lower, wanted, atol=1e-9)


def test_fewer_images_than_pixels(image_like):
    images, labels = image_like(6, SHAPE, CLASSES, seed=8)
    exact = reference.moments_of(images, labels, CLASSES)
    assert_is_the_spectrum(sketch_of(images, labels, 3, oversampling=2), exact, 5)


def test_images_that_are_all_the_same_have_no_variance():
    images, labels = np.full((8, 16), 3.5), np.arange(8) % 2
    sketch = sketch_of(images, labels, 2)
    np.testing.assert_array_equal(sketch.values, 0)
    assert float(sketch.total) == 0
    assert np.isfinite(sketch.vectors).all()


# Bounds ------------------------------------------------------------------------------------------


@given(
    st.integers(0, 10_000),
    st.sampled_from([1, 3, 6]),
    st.sampled_from([0, 4]),
    st.sampled_from([0, 2]),
    st.floats(0, 4),
)
def test_the_eigenvalues_lie_within_the_bounds(seed, rank, oversampling, power, decay):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((30, 12)) * np.arange(1.0, 13) ** -decay
    images = images @ np.linalg.qr(rng.standard_normal((12, 12)))[0] + rng.standard_normal(12)
    moments = reference.moments_of(images, np.arange(30) % 2, 2)
    sketch = sketch_scatter(
        moments,
        rank,
        oversampling=oversampling,
        power_iterations=power,
        key=jax.random.key(seed),
    )
    everything = scipy.linalg.eigvalsh(moments.scatter)[::-1]
    values = everything[: rank + oversampling]
    widths = []
    for certain in (True, False):
        lower, upper = (np.asarray(b) for b in eigenvalue_bounds(sketch, certain=certain))
        assert (lower <= values).all()
        assert (values <= upper).all()
        widths.append(upper - lower)
    assert (widths[1] <= widths[0]).all()
    # Interlacing, on the estimates themselves.
    assert (np.asarray(sketch.values) <= values * (1 + 1e-12)).all()
    variance = np.cumsum(values) / everything.sum()
    assert (np.asarray(sketched_variance(sketch)) <= variance + 1e-12).all()
    outside = np.eye(12) - sketch.vectors @ sketch.vectors.T
    assert np.linalg.norm(outside @ moments.scatter @ outside, 2) <= float(sketch.rest) * (1 + 1e-9)


def test_the_bounds_are_as_tight_as_the_coupling_says():
    # Known blocks: S = [[A, b], [b, c]], of which the sketch holds the first coordinate.
    theta, c, b = 10.0, 2.0, 0.5
    zeros = jnp.zeros(2)
    sketch = Sketch(
        count=jnp.asarray(9),
        mean=zeros,
        values=jnp.array([theta]),
        vectors=jnp.eye(2)[:, :1],
        total=jnp.asarray(theta + c),
        coupling=jnp.asarray(b),
        rest=jnp.asarray(c + 1),
        cross=jnp.zeros((2, 2)),
        class_counts=jnp.array([4, 5]),
    )
    largest = scipy.linalg.eigvalsh([[theta, b], [b, c]])[1]
    lower, upper = eigenvalue_bounds(sketch)
    np.testing.assert_allclose(lower, theta, rtol=1e-12)
    np.testing.assert_allclose(upper, largest, rtol=1e-12)
    assert float(upper[0]) < theta + b**2 / (theta - c)
    _, closer = eigenvalue_bounds(sketch._replace(rest=jnp.asarray(c / 2)))
    assert float(closer[0]) < float(upper[0])
    _, same = eigenvalue_bounds(sketch._replace(rest=jnp.asarray(c / 2)), certain=True)
    np.testing.assert_array_equal(same, upper)


def test_the_expected_error_is_that_of_the_theorem():
    values = np.array([9.0, 4.0, 1.0, 0.5, 0.25, 0.0])
    bound = (1 + np.sqrt(2 / 2)) * 1 + np.e * np.sqrt(5) / 3 * np.sqrt(1 + 0.25 + 0.0625)
    np.testing.assert_allclose(expected_range_error(values, 2, 3), bound, rtol=1e-12)


# The stream --------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(st.lists(st.sampled_from([20, 40, 60]), max_size=3, unique=True), st.booleans())
def test_any_split_into_batches_gives_the_same(data, where, masked):
    images, labels = data
    edges = [0, *sorted(where), 80]
    whole = sketch_of(images, labels, 4, 80, oversampling=2)

    def batches():
        for a, b in itertools.pairwise(edges):
            part = images[a:b], labels[a:b], np.ones(b - a, bool)
            if masked:
                padding = np.full((20, *SHAPE), 1e3), np.zeros(20, int), np.zeros(20, bool)
                part = tuple(np.concatenate(pair) for pair in zip(part, padding, strict=True))
            yield part

    parts = stream_sketch(batches, CLASSES, 4, key=KEY, oversampling=2)
    for name, ours in parts._asdict().items():
        wanted = np.asarray(getattr(whole, name))
        np.testing.assert_allclose(ours, wanted, atol=1e-8 * max(np.abs(wanted).max(), 1))


def test_power_iterations_bring_the_subspace_closer(exact):
    top = np.asarray(eigendecompose(exact).vectors[:, :3])
    errors, gaps = [], []
    for power in range(4):
        sketch = sketch_scatter(exact, 3, key=KEY, oversampling=2, power_iterations=power)
        errors.append(span_error(top, np.asarray(sketch.vectors)))
        lower, upper = eigenvalue_bounds(sketch, certain=True)
        gaps.append(float((upper - lower)[0]))
    assert errors[3] < 0.25 * errors[0]
    assert gaps[3] < gaps[0]


@pytest.mark.parametrize("power_iterations", [0, 2])
def test_a_scatter_at_hand_gives_what_the_stream_gives(data, exact, power_iterations):
    options = {"key": KEY, "oversampling": 2, "power_iterations": power_iterations}
    streamed = sketch_of(*data, 4, **options)
    ours = sketch_scatter(exact, 4, **options)
    for name, value in ours._asdict().items():
        wanted = np.asarray(getattr(streamed, name))
        np.testing.assert_allclose(value, wanted, atol=1e-8 * max(np.abs(wanted).max(), 1))


def test_a_large_offset_costs_no_digits():
    rng = np.random.default_rng(1)
    images, labels = 1e6 + rng.standard_normal((90, 8)), np.arange(90) % 2
    exact = scipy.linalg.eigvalsh(np.cov(images.T, ddof=0) * 90)[::-1]
    np.testing.assert_allclose(sketch_of(images, labels, 8).values, exact, rtol=1e-8)


def test_float32_is_right_to_a_millionth_of_the_total(data, exact):
    sketch = sketch_of(*data, 6, oversampling=4, power_iterations=2, dtype=jnp.float32)
    assert {leaf.dtype for leaf in sketch if leaf.dtype.kind == "f"} == {np.dtype("float32")}
    total = float(np.trace(exact.scatter))
    values = np.asarray(eigendecompose(exact).values)[:10]
    np.testing.assert_allclose(sketch.total, total, rtol=1e-6)
    inner = np.asarray(sketch.vectors, float).T @ exact.scatter @ np.asarray(sketch.vectors, float)
    np.testing.assert_allclose(inner, np.diag(sketch.values), atol=1e-6 * total)
    lower, upper = (np.asarray(bound) for bound in eigenvalue_bounds(sketch))
    assert (lower <= values).all()
    assert (values <= upper).all()


# At the size of CIFAR ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(image_like):
    """300 images of 3,072 pixels, and their exact eigenvalues from the N x N Gram matrix."""
    images, labels = image_like(300, (32, 32, 3), 10, seed=2, decay=3)
    centred = images.reshape(300, -1) - images.reshape(300, -1).mean(0)
    values, left = scipy.linalg.eigh(centred @ centred.T)
    values, left = values[::-1], left[:, ::-1]
    vectors = centred.T @ left[:, :50] / np.sqrt(values[:50])
    return images, labels, centred, np.maximum(values, 0), vectors


def test_3072_pixels_against_the_exact_spectrum(photos):
    images, labels, _, values, vectors = photos
    widths = []
    for power in (0, 2):
        sketch = sketch_of(images, labels, 32, 100, power_iterations=power)
        for certain in (True, False):
            lower, upper = (np.asarray(b) for b in eigenvalue_bounds(sketch, certain=certain))
            assert (lower <= values[:42]).all()
            assert (values[:42] <= upper).all()
        widths.append((upper - lower) / values[:42])
        rest = float(sketch.total - sketch.values.sum())
        assert values[42] <= float(sketch.rest) < 0.3 * rest
    np.testing.assert_allclose(sketch.total, values.sum(), rtol=1e-12)
    np.testing.assert_allclose(sketch.values[:8], values[:8], rtol=1e-4)
    np.testing.assert_allclose(sketch.values[:32], values[:32], rtol=0.1)
    assert span_error(vectors[:, :8], np.asarray(sketch.vectors)) < 0.02
    assert (widths[1] < widths[0]).all()
    assert widths[1][0] < 1e-4


def test_3072_pixels_within_the_expected_error(photos):
    images, labels, centred, values, _ = photos
    root = scipy.linalg.sqrtm(centred @ centred.T).real
    errors = []
    for seed in range(4):
        sketch = sketch_of(images, labels, 32, 300, key=jax.random.key(seed))
        basis = np.asarray(sketch.vectors)
        # S = X^T X: ||(I - Q Q^T) X^T X|| by N x N products.
        outside = centred.T - basis @ (basis.T @ centred.T)
        errors.append(np.linalg.norm(outside @ root, 2))
    padded = np.concatenate([values, np.zeros(3072 - len(values))])
    bound = float(expected_range_error(padded, 32, 10))
    assert np.mean(errors) <= bound
    assert np.mean(errors) > 0.01 * bound
    assert np.mean(errors) > values[42] * (1 - 1e-9)  # no subspace of 42 directions does better


def test_3072_pixels_are_exact_once_the_rank_is_held(photos):
    images, labels, _, values, _ = photos
    images, labels = images[:40], labels[:40]
    centred = images.reshape(40, -1) - images.reshape(40, -1).mean(0)
    values = scipy.linalg.eigvalsh(centred @ centred.T)[::-1][:39]
    sketch = sketch_of(images, labels, 39, num_classes=10)
    np.testing.assert_allclose(sketch.values[:39], values, rtol=1e-9)
    lower, upper = eigenvalue_bounds(sketch)
    np.testing.assert_allclose(upper - lower, 0, atol=1e-12 * float(sketch.total))


# Alignment ---------------------------------------------------------------------------------------


def test_alignment_of_the_whole_spectrum_is_the_curve(data, exact):
    bracket = sketched_alignment(sketch_of(*data, 16))
    for bound in bracket:
        np.testing.assert_allclose(bound, alignment_curve(exact), atol=1e-9)


@pytest.mark.parametrize("rank", [2, 4, 8])
def test_the_bracket_holds_the_alignment(exact, rank):
    sketch = sketch_scatter(exact, rank, key=KEY, oversampling=4, power_iterations=30)
    lower, upper = (np.asarray(bound)[:rank] for bound in sketched_alignment(sketch))
    curve = np.asarray(alignment_curve(exact))[:rank]
    assert (lower <= curve + 1e-9).all()
    assert (curve <= upper + 1e-9).all()
    np.testing.assert_allclose(upper / lower, (upper / lower)[0], rtol=1e-12)


def test_the_energy_is_that_of_the_encoder_with_ritz_rows(data):
    images, labels = data
    sketch = sketch_of(images, labels, 3, oversampling=2)
    rows = reference.centred_rows(images)
    one_hot = np.eye(CLASSES)[labels]
    counts = one_hot.sum(0)
    latents = np.linalg.qr(rows @ np.asarray(sketch.vectors))[0]
    energy = np.cumsum(np.sum((latents.T @ one_hot) ** 2 * counts, axis=1))
    variance = np.sum(counts * (counts - counts**2 / len(labels)))
    bracket = sketched_alignment(sketch)
    np.testing.assert_allclose(bracket.lower, np.sqrt(energy / variance), rtol=1e-9)
    np.testing.assert_allclose(bracket.upper, np.sqrt(energy / energy[-1]), rtol=1e-9)


def test_explained_variance_of_the_whole_spectrum(data, exact):
    ours = sketched_variance(sketch_of(*data, 16))
    np.testing.assert_allclose(ours, explained_variance(eigendecompose(exact)), rtol=1e-9)


# Bad input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank=0 must be an integer of at least 1"),
        ({"rank": 17}, r"rank=17 must be in 1\.\.16, the pixels of an image"),
        ({"oversampling": -1}, "oversampling=-1 must be an integer of at least 0"),
        ({"power_iterations": -1}, "power_iterations=-1 must be an integer of at least 0"),
    ],
)
def test_bad_numbers_are_refused(data, exact, options, message):
    options = {"rank": 4, **options}
    with pytest.raises(ValueError, match=message):
        sketch_of(*data, **options)
    with pytest.raises(ValueError, match=message):
        sketch_scatter(exact, key=KEY, **options)


def test_an_iterator_that_is_used_up_is_noticed(data):
    iterator = iter([data])
    with pytest.raises(ValueError, match="no images were given"):
        stream_sketch(lambda: iterator, CLASSES, 2, key=KEY)
    calls = []

    def shrinking():
        calls.append(1)
        return batches_of(data[0][: 80 - 16 * (len(calls) > 2)], data[1][:80], 16)()

    message = "gave 80 images .* in the first pass and 64 .* must return the same batches"
    with pytest.raises(ValueError, match=message):
        stream_sketch(shrinking, CLASSES, 2, key=KEY)


def test_no_images_bad_labels_and_one_class_are_refused(data):
    images, labels = data
    with pytest.raises(ValueError, match="no images were given"):
        stream_sketch(lambda: [], CLASSES, 2, key=KEY)
    nothing = [(images, labels, np.zeros(80, bool))]
    with pytest.raises(ValueError, match="no images were given"):
        stream_sketch(lambda: nothing, CLASSES, 2, key=KEY)
    with pytest.raises(ValueError, match=r"labels run from 0 to 2; with num_classes=2"):
        sketch_of(images, labels, 2, num_classes=2)
    with pytest.raises(ValueError, match="only 1 of 3 classes have images"):
        sketched_alignment(sketch_of(images, 0 * labels, 2, num_classes=3))


@pytest.mark.parametrize(("rank", "oversampling"), [(0, 2), (5, 2), (2, 1)])
def test_the_theorem_has_its_limits(rank, oversampling):
    with pytest.raises(ValueError, match=r"oversampling >= 2 and rank in 1\.\.6 - oversampling"):
        expected_range_error(np.ones(6), rank, oversampling)


def test_moments_and_sketch_agree_on_a_stream_of_bytes():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (200, 3, 3, 1), dtype=np.uint8), np.arange(200) % 4
    moments = stream_moments([(images, labels)], 4)
    sketch = sketch_of(images, labels, 9)
    np.testing.assert_allclose(sketch.values, eigendecompose(moments).values, rtol=1e-10)
