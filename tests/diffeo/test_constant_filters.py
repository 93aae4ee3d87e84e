import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from recon_jax.diffeo import constant_filters, depth_laws, sensitivities

# Depth, F, stride, axes, sites.
LINE = (8, 3, 1, 1, 48)
STRIDED = (4, 2, 2, 1, 64)
PLANE = (3, 2, 1, 2, 14)
STRIDED_PLANE = (2, 3, 3, 2, 18)


def measured_noise(net, spread, **options):
    """As a function of the key."""
    return jax.jit(lambda key: constant_filters.measure_noise(key, spread, *net, **options))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("sides", [(13,), (12, 17)])
def test_sliding_windows_are_those_of_scipy(size, sides):
    images = np.random.default_rng(size).standard_normal((3, *sides))
    output, layers = constant_filters.constant_filter_features(jnp.asarray(images), 2, size)
    assert list(layers) == ["layer1", "layer2"]
    # An even window of scipy has its extra site on the left, ours on the right.
    origin = -1 if size % 2 == 0 else 0
    for found in layers.values():
        filtered = [
            ndimage.uniform_filter(image, size, mode="wrap", origin=origin) for image in images
        ]
        images = np.maximum(filtered, 0)
        np.testing.assert_allclose(found, images, atol=1e-14)
    np.testing.assert_array_equal(output, layers["layer2"])


@pytest.mark.parametrize("relu", [True, False])
def test_windows_that_do_not_overlap(relu):
    images = np.random.default_rng(0).standard_normal((2, 8, 12)).astype(np.float32)
    output, layers = constant_filters.constant_filter_features(
        jnp.asarray(images), 1, 2, 2, relu=relu
    )
    means = images.reshape(2, 4, 2, 6, 2).mean((2, 4))
    assert output.dtype == jnp.float32
    np.testing.assert_allclose(output, np.maximum(means, 0) if relu else means, atol=1e-6)
    assert layers["layer1"].shape == (2, 4, 6)


@pytest.mark.parametrize(
    "net",
    [LINE, STRIDED, PLANE, STRIDED_PLANE, (30, 4, 1, 1, 45), (3, 3, 3, 1, 54), (20, 3, 1, 2, 12)],
)
def test_measured_deformation_is_that_of_the_exact_sums(net):
    """Bumps that have spread around the whole ring among them: (30, 4) and (20, 3)."""
    found = constant_filters.measure_deformation(*net, dtype=jnp.float64)
    np.testing.assert_allclose(found.D, depth_laws.exact(*net).D, rtol=1e-11)
    control = depth_laws.exact(*net, relu=False).G
    pixel = net[4] ** -net[3]
    if net[2] == 1:  # 1 - N^-d / S^d is the spread over the power
        np.testing.assert_allclose(found.spread, pixel / (control - 1), rtol=1e-10)


def test_single_precision():
    found = constant_filters.measure_deformation(*LINE)
    assert found.D.dtype == jnp.float32
    np.testing.assert_allclose(found.D, depth_laws.exact(*LINE).D, rtol=1e-5)
    noise = measured_noise(LINE, found.spread, repeats=4)(jax.random.key(0))
    assert noise.G.dtype == noise.error.dtype == jnp.float32


def test_batches_change_nothing():
    """Nor does one that does not divide the number of images."""
    found = constant_filters.measure_deformation(*PLANE, batch_size=60, dtype=jnp.float64)
    np.testing.assert_allclose(found.D, depth_laws.exact(*PLANE).D, rtol=1e-11)
    key = jax.random.key(3)
    together = measured_noise(PLANE, found.spread, repeats=10)(key)
    few = measured_noise(PLANE, found.spread, repeats=10, batch_size=4)(key)
    np.testing.assert_allclose(few, together, rtol=1e-12)
    assert np.ptp(together.G) > 0


@pytest.mark.parametrize(
    ("net", "kind"),
    [
        *((LINE, "relu"), (STRIDED, "relu"), (STRIDED_PLANE, "relu"), (PLANE, "relu")),
        *((LINE, "linear"), (STRIDED, "rectified")),
    ],
)
def test_measured_noise_is_that_of_the_exact_sums(net, kind):
    options = {"relu": kind != "linear", "rectified": kind == "rectified"}
    exact = depth_laws.exact(*net, **options).G
    spread = constant_filters.measure_deformation(*net, dtype=jnp.float64).spread
    measure = measured_noise(net, spread, repeats=1000, **options)
    draws = [measure(jax.random.key(seed)) for seed in range(12)]
    means = np.array([draw.G for draw in draws])
    error = np.sqrt(np.mean([draw.error**2 for draw in draws], axis=0))
    assert np.all(error < 0.05 * exact)
    np.testing.assert_array_less(np.abs(means.mean(0) - exact), 4 * error / len(draws) ** 0.5)
    np.testing.assert_allclose(means.mean(0), exact, rtol=0.02)
    # The standard error is honest: a chi of 11 degrees of freedom.
    ratio = means.std(0, ddof=1) / error
    assert np.all((ratio > 0.4) & (ratio < 1.8))
    if kind == "linear":
        # That of a quadratic form on the sphere: a free norm of the noise would add to it.
        spectrum = ((1 + 2 * np.cos(2 * np.pi * np.arange(48) / 48)) / 3) ** 2
        variance = 2 * (np.mean(spectrum**2) / np.mean(spectrum) ** 2 - 1) / 50
        np.testing.assert_allclose(error[0], exact[0] * np.sqrt(variance / 1000), rtol=0.1)


def test_they_are_the_sensitivities_of_the_features():
    net, key = (2, 3, 1, 2, 8), jax.random.key(1)
    images = jnp.tile(jnp.eye(64), (10, 1)).reshape(640, 8, 8)
    noise = jax.random.normal(key, images.shape)
    noise *= jnp.sqrt(2 / jnp.sum(noise**2, axis=(1, 2), keepdims=True))
    moved = jnp.roll(images, 1, axis=2)
    outputs = [
        constant_filters.constant_filter_features(x, 2, 3)[0]
        for x in (images, moved, images + noise)
    ]
    found = sensitivities(*outputs)
    deformation = constant_filters.measure_deformation(*net, dtype=jnp.float64)
    np.testing.assert_allclose(found.D, deformation.D[-1], rtol=1e-12)
    np.testing.assert_allclose(found.G, depth_laws.exact(*net).G[-1], rtol=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.constant_filter_features(jnp.ones((2, 4, 4, 1)), 1, 2), r"\(N, L\) or"),
        (lambda f: f.constant_filter_features(jnp.ones((2, 9)), 1, 2, 2), "side of the images=9"),
        (lambda f: f.constant_filter_features(jnp.ones((2, 8)), 1, 4, 2), "stride=2 must be 1 or"),
        (lambda f: f.measure_deformation(2, 3, 2), "stride=2 must be 1 or filter_size=3"),
        (lambda f: f.measure_deformation(4, 2, 2, num_sites=24), r"multiple of F\^K = 16"),
        (lambda f: f.measure_deformation(2, 2, dtype=jnp.float16), "dtype=float16 must be float32"),
        (lambda f: f.measure_deformation(2, 2, batch_size=0), "batch_size=0 must be at least 1"),
        (
            lambda f: f.measure_deformation(40, 5, num_sites=16),
            "num_sites=16 is so small that from layer [0-9]+ on float32 can hardly",
        ),
        (
            lambda f: f.measure_noise(jax.random.key(0), jnp.ones(2), 2, 2, repeats=1),
            "repeats=1 must be at least 2",
        ),
        (
            lambda f: f.measure_noise(jax.random.key(0), jnp.ones(3), 2, 2),
            r"spread has shape \(3,\), not \(2,\)",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_compiled(call, message, monkeypatch):
    def forbidden(*args):
        raise AssertionError("computed in spite of bad input")

    for name in ("_layer", "_measure_deformation", "_measure_noise"):
        monkeypatch.setattr(constant_filters, name, forbidden)
    with pytest.raises(ValueError, match=message):
        call(constant_filters)
