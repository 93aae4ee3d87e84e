import json
from functools import reduce
from pathlib import Path

import numpy as np
import pytest

from recon_jax.diffeo import depth_laws

ORACLE = json.loads((Path(__file__).parents[1] / "oracles/diffeo/depth_laws.json").read_text())


def name(case):
    return f"F{case['filter_size']}-s{case['stride']}"


@pytest.mark.parametrize("law", ORACLE["laws"], ids=name)
def test_many_sites_and_asymptotes_are_those_of_the_oracle(law):
    size, stride = law["filter_size"], law["stride"]
    depth = len(law["G_1d"])
    for axes in (1, 2):
        found = depth_laws.exact(depth, size, stride, axes)
        expected = law["D_1d" if stride == 1 else "D_axis_shift"]
        np.testing.assert_allclose(found.D, expected, rtol=1e-12)
        np.testing.assert_allclose(found.G, law[f"G_{axes}d"], rtol=1e-12)
        np.testing.assert_allclose(found.R, found.D / found.G, rtol=1e-15)
        limit = depth_laws.asymptotic(depth, size, stride, axes)
        if stride == 1:
            np.testing.assert_allclose(limit.D, law["D_asym"], rtol=1e-12)
            np.testing.assert_allclose(limit.G, law[f"G_{axes}d_asym"], rtol=1e-12)
        else:
            np.testing.assert_array_equal(limit.D, found.D)
    if stride > 1:
        rectified = depth_laws.exact(depth, size, stride, rectified=True)
        np.testing.assert_allclose(rectified.G, law["G_1d_input_rectified"], rtol=1e-12)


@pytest.mark.parametrize("net", ORACLE["nets"], ids=name)
def test_measured_networks_of_the_oracle(net):
    """Those of stride 1 were padded with zeros, which changes D by up to 4%; 8 draws of noise."""
    about = (len(net["D"]), net["filter_size"], net["stride"], 1, net["num_sites"])
    found = depth_laws.exact(*about)
    np.testing.assert_allclose(found.D, net["D"], rtol=1e-9 if net["stride"] == 2 else 0.04)
    np.testing.assert_allclose(found.G, net["G"], rtol=0.016)
    rectified = depth_laws.exact(*about, rectified=True)
    np.testing.assert_allclose(rectified.G, net["G_rectified"], rtol=0.013)


def matrices(depth, size, stride, axes, sites):
    """What every layer and all layers up to k do, as matrices (sites of layer k, sites)."""
    total = np.eye(sites**axes)
    for _ in range(depth):
        rows = sites // stride
        line = np.zeros((rows, sites))
        for i in range(rows):
            for j in range(size):
                line[i, (stride * i + j) % sites] += 1 / size
        total = reduce(np.kron, [line] * axes) @ total
        sites = rows
        yield total


def by_matrices(depth, size, stride, axes, sites, relu, rectified):
    """D and G from all pairs of images and from the covariance of the noise at all pairs."""
    count = sites**axes
    moved = np.roll(np.arange(count).reshape((sites,) * axes), 1, axis=-1).ravel()
    variance = 2 / count
    first = next(matrices(1, size, stride, axes, sites))
    field = first @ first.T * variance
    scale = field[0, 0]
    correlation = np.clip(field / scale, -1, 1)
    angle = np.arccos(correlation)
    cut = scale * (np.sqrt(1 - correlation**2) + correlation * (np.pi - angle)) / (2 * np.pi)
    # Where the image is bright, noise passes the ReLU as it is; E z ReLU(z') is half of E z z'.
    bright = first[:, 0] > 0
    second = np.where(bright[:, None] & bright[None, :], field, cut)
    second = np.where(bright[:, None] ^ bright[None, :], field / 2, second)
    for layer, total in enumerate(matrices(depth, size, stride, axes, sites)):
        features = total.T
        distances = ((features[:, None] - features[None]) ** 2).sum(-1)
        shift = ((features[moved] - features) ** 2).sum(-1)
        if rectified:
            iid = variance * (np.full((count, count), 1 / np.pi) + (1 - 1 / np.pi) * np.eye(count))
            noise = np.trace(total @ (iid / 2) @ total.T)
        elif relu:
            # The layers after the first, as a matrix on its sites.
            later = np.eye(len(first))
            if layer:
                *_, later = matrices(layer, size, stride, axes, sites // stride)
            noise = np.trace(later @ second @ later.T)
        else:
            noise = np.trace(total @ total.T) * variance
        yield shift.mean() / distances.mean(), noise / distances.mean()


@pytest.mark.parametrize(
    "net",
    [
        *((6, 3, 1, 1, 11), (5, 2, 1, 1, 8), (3, 4, 1, 1, 13), (3, 2, 2, 1, 16), (2, 3, 3, 1, 18)),
        *((3, 3, 1, 2, 6), (3, 2, 1, 2, 7), (2, 2, 2, 2, 8), (1, 3, 3, 2, 6)),
    ],
)
@pytest.mark.parametrize("kind", ["relu", "linear", "rectified"])
def test_finite_size_against_all_pairs(net, kind):
    options = {"relu": kind != "linear", "rectified": kind == "rectified"}
    found = depth_laws.exact(*net, **options)
    expected = np.array(list(by_matrices(*net, **options)))
    np.testing.assert_allclose(found.D, expected[:, 0], rtol=1e-11)
    np.testing.assert_allclose(found.G, expected[:, 1], rtol=1e-11)


@pytest.mark.parametrize(("size", "stride"), [(2, 1), (4, 1), (5, 1), (3, 3), (4, 4)])
@pytest.mark.parametrize("axes", [1, 2])
def test_the_first_layer(size, stride, axes):
    found = depth_laws.exact(1, size, stride, axes)
    np.testing.assert_allclose(found, [[1 / size], [1 / 2], [2 / size]], rtol=1e-14)


@pytest.mark.parametrize("stride", [1, 3])
def test_many_sites_are_the_limit_of_a_finite_number(stride):
    limit = depth_laws.exact(4, 3, stride, 2)
    small, large = (depth_laws.exact(4, 3, stride, 2, sites) for sites in (162, 486))
    for finite, tolerance in ((small, 0.4), (large, 0.04)):
        np.testing.assert_allclose(finite.G, limit.G, rtol=tolerance)
        np.testing.assert_allclose(finite.D, limit.D, rtol=tolerance)
    # Nine times as many sites, a ninth of the difference.
    ratio = (small.D / limit.D - 1) / (large.D / limit.D - 1)
    np.testing.assert_allclose(ratio, 9, rtol=0.4)


def test_without_relu_noise_is_neither_amplified_nor_damped():
    for stride in (1, 3):
        for axes in (1, 2):
            found = depth_laws.exact(6, 3, stride, axes, relu=False)
            np.testing.assert_allclose(found.G, 1, rtol=1e-14)
            np.testing.assert_array_equal(
                depth_laws.asymptotic(6, 3, stride, axes, relu=False).G, np.ones(6)
            )


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize(("depth", "size", "stride"), [(800, 3, 1), (800, 2, 1), (12, 3, 3)])
def test_deep_layers_reach_their_asymptotes(depth, size, stride, axes, rectified):
    found = depth_laws.exact(depth, size, stride, axes, rectified=rectified)
    limit = depth_laws.asymptotic(depth, size, stride, axes, rectified=rectified)
    np.testing.assert_allclose(found.D[-1], limit.D[-1], rtol=2e-3)
    np.testing.assert_allclose(found.G[-1], limit.G[-1], rtol=0.08)
    errors = np.abs(found.G / limit.G - 1)
    assert errors[-1] < errors[depth // 2] < errors[depth // 4]


def test_path_counts_and_receptive_fields():
    found = depth_laws.path_counts(3, 2, 4)
    assert [counts.tolist() for counts in found] == ORACLE["path_counts_f3_s2"]
    steps = [np.diff(counts, prepend=0, append=0) for counts in depth_laws.path_counts(8, 2, 4)]
    assert [int(step @ step) for step in steps] == ORACLE["squared_steps_f8_s2"]
    for size, stride in ((2, 1), (5, 1), (3, 3), (4, 2)):
        counts = depth_laws.path_counts(size, stride, 4)
        fields = [depth_laws.receptive_field(size, stride, k) for k in range(1, 5)]
        assert [len(values) for values in counts] == fields
        assert [values.sum() for values in counts] == [size**k for k in range(1, 5)]
    # Windows that do not overlap: one path from every site.
    assert set(depth_laws.path_counts(3, 3, 3)[-1]) == {1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3), "num_layers=0 must be an integer of at least 1"),
        ((True, 3), "num_layers=True must be an integer"),
        ((2, 1), "filter_size=1 must be an integer of at least 2"),
        ((2, 4, 2), "stride=2 must be 1 or filter_size=4: otherwise the windows"),
        ((2, 3, 0), "stride=0 must be 1 or filter_size=3"),
        ((2, 3, 1, 3), "dimensions=3 must be 1 .* or 2"),
        ((2, 3, 1, 1, 5), "num_sites=5 must be an integer of at least 6"),
        ((2, 3, 3, 1, 9), r"num_sites=9 must be a multiple of F\^K = 9 .* at least 18"),
        ((2, 3, 3, 1, 30), r"num_sites=30 must be a multiple of F\^K = 9"),
        ((120, 3, 1, 1, 8), "num_sites=8 is so small that from layer [0-9]+ on every image has"),
    ],
)
def test_bad_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        depth_laws.exact(*arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: depth_laws.asymptotic(2, 4, 2), "stride=2 must be 1 or filter_size=4"),
        (lambda: depth_laws.path_counts(3, 0, 2), "stride=0 must be an integer of at least 1"),
        (lambda: depth_laws.path_counts(4, 2, 40), "filter_size=4 and num_layers=40 give F"),
        (lambda: depth_laws.receptive_field(1, 1, 2), "filter_size=1 must be"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
