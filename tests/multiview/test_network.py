import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import multiview


def plain(z, rho, q):
    """The rectifier as the definition reads."""
    curved = np.where(z > 0, np.abs(z), 0) ** q / (q * rho ** (q - 1))
    return np.where(z <= rho, curved, z - (1 - 1 / q) * rho)


@pytest.mark.parametrize(("rho", "q"), [(1.0, 4), (0.2, 3), (0.7, 2.5), (1.3, 1)])
def test_rectifier_and_its_slope(rho, q):
    z = np.concatenate([np.linspace(-2, 3, 101), [0.0, rho]])
    rectify = jax.value_and_grad(lambda x: multiview.smoothed_relu(x, rho, q))
    found, slopes = jax.jit(jax.vmap(rectify))(z)
    np.testing.assert_allclose(found, plain(z, rho, q), atol=1e-14)
    expected = np.clip(z / rho, 0, 1) ** (q - 1) * (z > 0)
    inside = (z != 0) | (q > 1)
    np.testing.assert_allclose(slopes[inside], expected[inside], atol=1e-14)


def test_whole_powers_are_products():
    text = str(jax.make_jaxpr(lambda x: multiview.smoothed_relu(x, 1.0, 4.0))(jnp.ones(3)))
    assert "integer_pow" in text
    assert multiview.smoothed_relu(np.float32([0.3, 2])).dtype == jnp.float32


def network(dtype=np.float64):
    rng = np.random.default_rng(0)
    return rng.standard_normal((6, 5)).astype(dtype), rng.standard_normal((3, 4, 5)).astype(dtype)


def test_activations_are_sums_over_patches():
    kernels, patches = network()
    expected = plain(np.einsum("rd,npd->npr", kernels, patches), 0.8, 3).sum(1)
    np.testing.assert_allclose(multiview.encode(kernels, patches, 0.8, 3), expected, atol=1e-12)
    order = patches[:, [2, 0, 3, 1]]
    np.testing.assert_allclose(multiview.encode(kernels, order, 0.8, 3), expected, atol=1e-12)
    assert multiview.encode(*network(np.float32)).dtype == jnp.float32
    head = np.random.default_rng(1).standard_normal((2, 6))
    scores = multiview.class_scores(kernels, head, patches, 0.8, 3)
    np.testing.assert_allclose(scores, expected @ head.T, atol=1e-12)


def test_heads_of_blocks():
    expected = [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]
    np.testing.assert_array_equal(multiview.block_head(3, 6), expected)
    with pytest.raises(ValueError, match="num_kernels=7 is not a multiple of num_classes=3"):
        multiview.block_head(3, 7)


def test_initial_kernels():
    kernels = multiview.init_kernels(jax.random.key(0), 200, 50, 0.1)
    assert kernels.dtype == jnp.float32
    assert float(kernels.std()) == pytest.approx(0.1, rel=5 / np.sqrt(2 * 10_000))
    for options, message in [
        ((0, 50), "num_kernels=0 must be"),
        ((3, 0), "dim=0 must be"),
        ((3, 5, 0.0), "scale=0.0 must be a finite number > 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            multiview.init_kernels(jax.random.key(0), *options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0.0}, "threshold=0.0 must be a finite number > 0"),
        ({"threshold": float("inf")}, "threshold=inf must be a finite number > 0"),
        ({"power": 0.5}, "power=0.5 must be a finite number of at least 1"),
        ({"kernels": np.ones((2, 4))}, "kernels of 4 entries cannot see patches of 5"),
        ({"kernels": np.ones((2, 5), int)}, "kernels must be floats, got int64"),
        ({"patches": np.full((3, 4, 5), np.nan)}, "patches holds 60 NaN or infinite entries"),
        ({"patches": np.ones((0, 4, 5))}, r"patches must have shape .* got \(0, 4, 5\)"),
    ],
)
def test_bad_input(change, message):
    kernels, patches = network()
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(multiview.encode)(**{"kernels": kernels, "patches": patches, **change})


def test_heads_of_another_width():
    with pytest.raises(ValueError, match="the head reads 5 kernels, there are 6"):
        inspect.unwrap(multiview.class_scores)(network()[0], np.ones((2, 5)), network()[1])
