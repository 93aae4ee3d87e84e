import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.spectral import (
    compose,
    correlated_gaussian,
    gaussian,
    identity,
    patch_mask,
    pixel_mask,
)
from recon_jax.spectral.corruptions import check_range, check_shape, number, on_images

from . import cases, reference

DRAWS = 8_000


@pytest.fixture(scope="module", params=cases.ALL, ids=lambda p: f"{p[0]}-{p[1][2]}")
def case(request):
    name, shape = request.param
    return *cases.build(name, shape), shape


@pytest.fixture(scope="module")
def images(image_like):
    """A few centred images of each shape."""

    def draw(shape, count=4):
        drawn, _ = image_like(count, shape, 2, seed=11)
        return drawn - drawn.mean(0)

    return draw


def test_gain_and_second_moment_match_the_written_out_ones(case, images):
    corruption, moments, shape = case
    rows = images(shape, 9).reshape(9, -1)
    gain, second = moments(rows.T @ rows, 9)
    np.testing.assert_allclose(corruption.gain(jnp.asarray(rows)), rows @ gain.T, atol=1e-11)
    ours = corruption.second_moment(jnp.asarray(rows.T @ rows), 9)
    np.testing.assert_allclose(ours, second, rtol=1e-11, atol=1e-10)


def test_gain_keeps_the_shape_of_images(case, images):
    corruption, _, shape = case
    drawn = jnp.asarray(images(shape))
    flat = corruption.gain(drawn.reshape(4, -1))
    assert flat.shape == (4, drawn[0].size)
    np.testing.assert_allclose(corruption.gain(drawn), flat.reshape(drawn.shape), atol=1e-13)
    np.testing.assert_allclose(corruption.gain(drawn[0]), flat.reshape(drawn.shape)[0], atol=1e-13)


def test_second_moment_is_symmetric_and_semi_definite(case, images):
    corruption, _, shape = case
    rows = images(shape).reshape(4, -1)
    second = np.asarray(corruption.second_moment(jnp.asarray(rows.T @ rows), 4))
    np.testing.assert_allclose(second, second.T, atol=1e-12 * np.abs(second).max())
    assert np.linalg.eigvalsh(second)[0] > -1e-12 * np.abs(second).max()
    # It holds at least the second moment of the mean.
    mean = np.asarray(corruption.gain(jnp.asarray(rows)))
    assert np.linalg.eigvalsh(second - mean.T @ mean)[0] > -1e-11 * np.abs(second).max()


def test_draws_average_to_the_moments(case, images):
    corruption, _, shape = case
    flat = shape[2] == 1
    originals = images(shape)
    count = len(originals)
    stacked = np.tile(originals, (DRAWS // count, 1, 1, 1))
    given = stacked.reshape(len(stacked), -1) if flat else stacked
    drawn = corruption.corrupt(jax.random.key(5), jnp.asarray(given))
    assert drawn.shape == given.shape
    assert drawn.dtype == given.dtype
    draws = np.asarray(drawn).reshape(DRAWS // count, count, -1)

    def close(sum_, sum_of_squares, repeats, expected):
        mean = sum_ / repeats
        error = np.sqrt(np.maximum(sum_of_squares / repeats - mean**2, 0) / repeats)
        assert np.all(np.abs(mean - expected) <= 5 * error + 1e-9)

    gained = np.asarray(corruption.gain(jnp.asarray(originals))).reshape(count, -1)
    close(draws.sum(0), (draws**2).sum(0), len(draws), gained)

    rows = originals.reshape(count, -1)
    second = np.asarray(corruption.second_moment(jnp.asarray(rows.T @ rows), count))
    per_set, squares = np.zeros_like(second), np.zeros_like(second)
    for block in np.array_split(draws, 20):
        outer = np.einsum("rni,rnj->rij", block, block, optimize=True)
        per_set += outer.sum(0)
        squares += (outer**2).sum(0)
    close(per_set, squares, len(draws), second)


def test_draws_are_independent_between_images(case):
    corruption, _, shape = case
    same = jnp.ones((64, *shape)) * jnp.arange(1.0, 17.0).reshape(4, 4, 1)[None]
    drawn = np.asarray(corruption.corrupt(jax.random.key(0), same)).reshape(64, -1)
    random = np.abs(drawn - np.asarray(corruption.gain(same)).reshape(64, -1)).max() > 1e-9
    assert len(np.unique(drawn.round(9), axis=0)) >= (4 if random else 1)
    again = corruption.corrupt(jax.random.key(0), same)
    np.testing.assert_array_equal(np.asarray(again).reshape(64, -1), drawn)
    other = np.asarray(corruption.corrupt(jax.random.key(1), same)).reshape(64, -1)
    assert np.any(other != drawn) == random


def test_corruptions_keep_float32(case):
    corruption, _, shape = case
    drawn = jnp.ones((3, *shape), jnp.float32)
    assert corruption.corrupt(jax.random.key(0), drawn).dtype == jnp.float32
    assert corruption.gain(drawn).dtype == jnp.float32
    size = int(np.prod(shape))
    second = corruption.second_moment(jnp.eye(size, dtype=jnp.float32), jnp.asarray(3))
    assert second.dtype == jnp.float32


@pytest.mark.parametrize("name", ["correlated_gaussian", "blur_subset_gaussian", "grayscale_noise"])
def test_corruptions_run_under_jit(name, images):
    shape = cases.COLOUR
    corruption, _ = cases.build(name, shape)
    drawn = jnp.asarray(images(shape))
    key = jax.random.key(2)
    np.testing.assert_allclose(
        jax.jit(corruption.corrupt)(key, drawn), corruption.corrupt(key, drawn), atol=1e-12
    )
    scatter = jnp.eye(drawn[0].size)
    np.testing.assert_allclose(
        jax.jit(corruption.second_moment)(scatter, 4),
        corruption.second_moment(scatter, 4),
        atol=1e-12,
    )


def test_names_say_what_they_are():
    shape = (4, 4, 1)
    assert identity(shape).name == "none"
    assert gaussian(0.25, shape).name == "gaussian(0.25)"
    assert compose([gaussian(1.0, shape), pixel_mask(0.5, shape)], shape).name == (
        "gaussian(1) + pixel_mask(0.5)"
    )
    names = []
    jax.jit(lambda s: names.append(gaussian(s, shape).name))(0.5)
    assert names == ["gaussian(traced)"]
    assert number(0.1) == "0.1"


def test_compose_applies_the_first_one_first():
    shape = (2, 2, 1)
    rows = jnp.asarray(np.random.default_rng(0).standard_normal((5, 4)))
    scatter = rows.T @ rows
    mask, noise = pixel_mask(0.5, shape), gaussian(2.0, shape)
    noise_last = compose([mask, noise], shape).second_moment(scatter, 5)
    noise_first = compose([noise, mask], shape).second_moment(scatter, 5)
    np.testing.assert_allclose(noise_last - noise_first, 0.5 * 5 * 4 * np.eye(4), atol=1e-12)


def test_compose_draws_independently():
    shape = (4, 4, 1)
    twice = compose([pixel_mask(0.5, shape), pixel_mask(0.5, shape)], shape)
    drawn = twice.corrupt(jax.random.key(0), jnp.ones((2000, 16)))
    assert abs(float(drawn.mean()) - 0.25) < 0.02


def test_flattened_order_is_height_width_channel(images):
    shape = (4, 4, 3)
    drawn = jnp.asarray(images(shape))
    mask = patch_mask(0.5, 2, shape)
    key = jax.random.key(3)
    np.testing.assert_array_equal(
        mask.corrupt(key, drawn).reshape(4, -1), mask.corrupt(key, drawn.reshape(4, -1))
    )


def test_images_of_one_scalar_are_read_as_flattened():
    double = on_images(lambda x: 2 * x, (1, 1, 1))
    np.testing.assert_array_equal(double(jnp.ones((3, 1))), 2 * np.ones((3, 1)))
    np.testing.assert_array_equal(double(jnp.ones((3, 1, 1, 1))), 2 * np.ones((3, 1, 1, 1)))


def test_a_rank_deficient_covariance_is_accepted():
    noise = correlated_gaussian(np.ones((4, 4)), (2, 2, 1))
    drawn = noise.corrupt(jax.random.key(0), jnp.zeros((5, 4)))
    np.testing.assert_allclose(drawn, np.asarray(drawn)[:, :1] * np.ones((1, 4)), atol=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: check_shape((4, 4)),
            r"image_shape must be \(height, width, channels\), got \(4, 4\)",
        ),
        (lambda: identity((4, 0, 1)), r"image_shape must be .* got \(4, 0, 1\)"),
        (lambda: gaussian(-0.1, (2, 2, 1)), r"stddev must lie in \[0, inf\), got -0.1"),
        (lambda: gaussian(np.nan, (2, 2, 1)), r"stddev must lie in \[0, inf\), got nan"),
        (lambda: gaussian(np.inf, (2, 2, 1)), r"stddev must lie in \[0, inf\), got inf"),
        (
            lambda: correlated_gaussian(np.eye(3), (2, 2, 1)),
            r"covariance must be \(4, 4\) for images \(2, 2, 1\), got \(3, 3\)",
        ),
        (
            lambda: correlated_gaussian(np.triu(np.ones((4, 4))), (2, 2, 1)),
            "covariance must be symmetric and finite",
        ),
        (
            lambda: correlated_gaussian(np.full((4, 4), np.nan), (2, 2, 1)),
            "covariance must be symmetric and finite",
        ),
        (
            lambda: correlated_gaussian(np.diag([1.0, 1.0, 1.0, -0.5]), (2, 2, 1)),
            "covariance must be positive semi-definite; it has -0.5",
        ),
        (lambda: compose([], (2, 2, 1)), "compose needs at least one corruption; use identity"),
        (
            lambda: identity((2, 2, 1)).gain(jnp.ones((3, 5))),
            r"images of shape \(3, 5\) are neither .* nor \(..., 4\)",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_checks_are_skipped_for_traced_values():
    jax.jit(lambda r: check_range("ratio", r, 0, 1))(7.0)
    with pytest.raises(ValueError, match=r"ratio must lie in \[0, 1\), got 1"):
        check_range("ratio", 1.0, 0, 1)
    assert check_shape([2, 3, 1]) == (2, 3, 1)


def test_reference_patches_are_counted_as_expected():
    np.testing.assert_array_equal(
        reference.patch_numbers((1, 2), (2, 4, 1)), [0, 0, 1, 1, 2, 2, 3, 3]
    )
