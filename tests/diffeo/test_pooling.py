from collections import OrderedDict

import jax
import numpy as np
import pytest
from flax.core import freeze
from numpy.testing import assert_allclose, assert_array_equal

from recon_jax import diffeo


def grid_laplacian(height, width):
    """Degree minus adjacency, by walking over the places."""
    places = [(i, j) for i in range(height) for j in range(width)]
    matrix = np.zeros((len(places),) * 2)
    for a, (i, j) in enumerate(places):
        for b, (row, column) in enumerate(places):
            if abs(i - row) + abs(j - column) == 1:
                matrix[a, b] = -1
                matrix[a, a] += 1
    return matrix


@pytest.mark.parametrize("size", [1, 2, 3, 5, (1, 4), (3, 2)])
def test_modes_are_eigenvectors_of_the_grid(size):
    sides = (size, size) if isinstance(size, int) else size
    values, vectors = diffeo.laplacian_modes(size)
    rows = vectors.reshape(len(values), -1)
    laplacian = grid_laplacian(*sides)
    assert vectors.shape == (sides[0] * sides[1], *sides)
    assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-14)
    assert_allclose(laplacian @ rows.T, rows.T * values, atol=1e-13)
    assert_allclose(values, np.linalg.eigvalsh(laplacian), atol=1e-13)
    assert_allclose(rows[0], 1 / np.sqrt(len(rows)), rtol=1e-14)
    assert (rows[:, 0] > 0).all()


def test_published_eigenvalues():
    assert_allclose(diffeo.laplacian_modes(3).values, [0, 1, 1, 2, 3, 3, 4, 4, 6], atol=1e-14)
    assert_allclose(diffeo.laplacian_modes(2).values, [0, 2, 2, 4], atol=1e-14)


@pytest.mark.parametrize("size", [0, -1, (3, 0)])
def test_bad_filter_sizes(size):
    with pytest.raises(ValueError, match=r"must be one side or \(height, width\)"):
        diffeo.laplacian_modes(size)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spectrum_is_the_mean_of_squared_projections(dtype):
    kernels = np.random.default_rng(0).standard_normal((3, 2, 4, 5)).astype(dtype)
    found = diffeo.filter_spectrum(kernels)
    accuracy = 1e-12 if dtype == np.float64 else 1e-6
    assert found.dtype == dtype
    squared_norms = (kernels.astype(float) ** 2).sum((0, 1))
    assert_allclose(found.sum(), squared_norms.mean(), rtol=accuracy)
    _, vectors = diffeo.laplacian_modes((3, 2))
    one_by_one = [
        np.mean([[(kernels[:, :, a, b] * mode).sum() ** 2 for b in range(5)] for a in range(4)])
        for mode in vectors
    ]
    assert_allclose(found, one_by_one, rtol=accuracy)


def test_constant_filters_lie_in_the_first_mode():
    kernels = np.ones((3, 3, 2, 4)) * np.arange(1.0, 5)
    assert_allclose(diffeo.filter_spectrum(kernels), [9 * 7.5, *[0] * 8], atol=1e-13)


def test_independent_weights_have_a_flat_spectrum():
    kernels = np.random.default_rng(0).standard_normal((3, 3, 50, 200))
    # A mean of 10,000 squares has standard deviation sqrt(2) / 100.
    assert_allclose(diffeo.filter_spectrum(kernels), 1, atol=0.06)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 3, 0, 4)])
def test_kernels_of_another_form_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(FH, FW, C_in, C_out\).* kernels\[None\]"):
        diffeo.filter_spectrum(np.zeros(shape))


def test_sums_over_equal_eigenvalues_do_not_depend_on_the_modes():
    values = diffeo.laplacian_modes(3).values
    kernels = np.random.default_rng(0).standard_normal((3, 3, 2, 3))
    distinct, sums = diffeo.degenerate_sums(values, diffeo.filter_spectrum(kernels))
    assert_allclose(distinct, [0, 1, 2, 3, 4, 6], atol=1e-9)
    # The modes that LAPACK finds are other ones.
    others = np.linalg.eigh(grid_laplacian(3, 3))[1]
    energy = ((others.T @ kernels.reshape(9, -1)) ** 2).mean(1)
    expected = [energy[0], energy[1:3].sum(), energy[3], energy[4:6].sum(), energy[6:8].sum()]
    assert_allclose(sums, [*expected, energy[8]], rtol=1e-12)
    stacked = diffeo.degenerate_sums(values, np.stack([energy, 2 * energy]))[1]
    assert_allclose(stacked, [sums, 2 * sums], rtol=1e-12)
    with pytest.raises(ValueError, match=r"shape \(4,\) does not fit 9 eigenvalues"):
        diffeo.degenerate_sums(values, energy[:4])


def params(seed=0):
    """Of a network with two convolutions, a depthwise and a pointwise one, and a dense layer."""
    draw = np.random.default_rng(seed).standard_normal
    return {
        "block1": {"conv": {"kernel": draw((3, 3, 6, 4)), "bias": draw(4)}},
        "block2": {"conv": {"kernel": draw((2, 2, 4, 5))}, "norm": {"scale": draw(5)}},
        "depthwise": {"kernel": draw((3, 3, 1, 5))},
        "point": {"kernel": draw((1, 1, 5, 7))},
        "head": {"kernel": draw((7, 3)), "bias": draw(3)},
        "tokens": {"embedding": draw((1, 2, 2, 5))},
    }


def test_spectra_of_all_filters_with_places():
    found = diffeo.filter_spectra(params())
    assert isinstance(found, OrderedDict)
    assert list(found) == ["block1/conv", "block2/conv", "depthwise"]
    for name, kernel in [
        ("block1/conv", params()["block1"]["conv"]["kernel"]),
        ("depthwise", params()["depthwise"]["kernel"]),
    ]:
        assert_allclose(found[name], diffeo.filter_spectrum(kernel), rtol=1e-14)


def columns(kernel, axis):
    """The slices of a kernel along an axis, in an order that forgets their own."""
    rows = np.moveaxis(np.asarray(kernel), axis, 0).reshape(np.shape(kernel)[axis], -1)
    return rows[np.lexsort(rows.T)]


def test_shuffling_moves_whole_input_channels():
    before, after = params(), diffeo.shuffle_channels(jax.random.key(0), params())
    for name in ("block1", "block2"):
        old, new = before[name]["conv"]["kernel"], after[name]["conv"]["kernel"]
        assert not np.array_equal(old, new)
        assert_array_equal(columns(old, 2), columns(new, 2))
        assert_allclose(diffeo.filter_spectrum(new), diffeo.filter_spectrum(old), rtol=1e-12)
    assert not np.array_equal(before["point"]["kernel"], after["point"]["kernel"])
    assert_array_equal(before["depthwise"]["kernel"], after["depthwise"]["kernel"])
    for path in (("block1", "conv", "bias"), ("block2", "norm"), ("head",), ("tokens",)):
        old, new = before, after
        for part in path:
            old, new = old[part], new[part]
        jax.tree.map(assert_array_equal, old, new)


def test_outputs_are_shuffled_when_asked_for():
    old = params()["block1"]["conv"]["kernel"]
    trees = (diffeo.shuffle_channels(jax.random.key(0), params(), o) for o in (False, True))
    inputs, both = (np.asarray(tree["block1"]["conv"]["kernel"]) for tree in trees)
    assert not np.array_equal(columns(both, 2), columns(old, 2))
    assert_array_equal(columns(both, 3), columns(inputs, 3))


def test_a_kernel_is_permuted_by_its_key_and_path_alone():
    shuffle = diffeo.shuffle_channels
    whole = shuffle(jax.random.key(0), params())
    alone = shuffle(jax.random.key(0), {"block1": params()["block1"]})
    assert_array_equal(alone["block1"]["conv"]["kernel"], whole["block1"]["conv"]["kernel"])
    frozen = shuffle(jax.random.key(0), freeze(params()))
    jax.tree.map(assert_array_equal, frozen.unfreeze(), whole)
    orders = set()
    for seed in range(3):
        # Two layers of one shape, whose channels are their numbers.
        kernel = np.broadcast_to(np.arange(8.0)[:, None], (3, 3, 8, 2))
        found = shuffle(jax.random.key(seed), {n: {"kernel": kernel} for n in ("a", "b")})
        for layer in found.values():
            order = np.asarray(layer["kernel"])[0, 0, :, 0]
            assert_array_equal(np.sort(order), np.arange(8))
            orders.add(tuple(order))
    assert len(orders) == 6


def test_permutations_are_the_same_in_every_process():
    kernel = np.arange(8.0)[None, None, :, None]
    found = diffeo.shuffle_channels(jax.random.key(0), {"a": {"kernel": kernel}})
    assert_array_equal(np.ravel(found["a"]["kernel"]), [2, 7, 4, 5, 6, 3, 0, 1])


def test_networks_without_channels_are_refused():
    with pytest.raises(ValueError, match=r'no "kernel" of four axes .* not those of dense'):
        diffeo.shuffle_channels(jax.random.key(0), {"head": params()["head"]})
