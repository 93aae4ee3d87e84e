import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.files import write_arrays
from recon_jax.spectral import (
    load_moments,
    merge_saved,
    missing_shares,
    save_moments,
    stream_moments,
)

from . import reference
from .test_moments import assert_identical, assert_same

CLASSES = 3


@pytest.fixture(scope="module")
def data(image_like):
    return image_like(60, (3, 2, 2), CLASSES, seed=12)


@pytest.fixture
def shares(tmp_path, data):
    """Files of three shares, of unequal size."""
    paths = []
    for share, (a, b) in enumerate(itertools.pairwise([0, 11, 40, 60])):
        moments = stream_moments([(data[0][a:b], data[1][a:b])], CLASSES)
        paths.append(tmp_path / f"share{share}.npz")
        about = {"source": "x", "shares": 3, "held": [share], "batch_size": 8 + share}
        save_moments(paths[-1], moments, about)
    return paths


def test_what_is_saved_comes_back_to_the_last_bit(tmp_path, data):
    moments, about = stream_moments([data], CLASSES), {"source": "x", "shape": [3, 2, 2], "é": None}
    save_moments(tmp_path / "m.npz", moments, about)
    again, said = load_moments(tmp_path / "m.npz")
    assert_identical(again, moments)
    assert said == about
    single, _ = load_moments(tmp_path / "m.npz", dtype=jnp.float32)
    assert single.mean.dtype == single.scatter.dtype == single.cross.dtype == jnp.float32
    assert single.count.dtype == jnp.int32


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_shares_in_any_order_are_the_whole(data, shares, order):
    merged, about = merge_saved([shares[i] for i in order])
    assert_same(merged, reference.moments_of(*data, CLASSES), rtol=1e-12)
    assert about == {"source": "x", "shares": 3, "held": [0, 1, 2]}
    assert missing_shares(about) == []


def test_a_union_can_be_saved_and_merged_again(tmp_path, data, shares):
    merged, about = merge_saved([shares[2], shares[0]])
    assert missing_shares(about) == [1]
    save_moments(tmp_path / "two.npz", merged, about)
    whole, about = merge_saved([tmp_path / "two.npz", shares[1]])
    assert_same(whole, reference.moments_of(*data, CLASSES), rtol=1e-12)
    assert missing_shares(about) == []
    with pytest.raises(ValueError, match=r"two.npz and .*share0.npz both hold share 0"):
        merge_saved([tmp_path / "two.npz", shares[0]])


def test_the_same_share_twice_is_refused(shares):
    with pytest.raises(ValueError, match=r"share1.npz and .*share1.npz both hold share 1; give"):
        merge_saved([shares[1], shares[0], shares[1]])


def test_whole_files_are_their_own_shares(tmp_path, data):
    moments = stream_moments([data], CLASSES)
    for name in ("a.npz", "b.npz"):
        save_moments(tmp_path / name, moments)
    both, about = merge_saved([tmp_path / "a.npz", tmp_path / "b.npz"])
    assert int(both.count) == 120
    assert missing_shares(about) == []
    with pytest.raises(ValueError, match=r"both hold share .*a\.npz"):
        merge_saved([tmp_path / "a.npz", tmp_path / "." / "a.npz"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "y"}, r'share0.npz and .*other.npz .* source: "x", and "y"'),
        ({"units": "per_image"}, 'units: absent, and "per_image"'),
        ({"shares": 4}, "shares: 3, and 4"),
    ],
)
def test_files_of_other_data_are_refused(tmp_path, data, shares, change, message):
    about = {"source": "x", "shares": 3, "held": [1], **change}
    save_moments(tmp_path / "other.npz", stream_moments([data], CLASSES), about)
    with pytest.raises(ValueError, match=message):
        merge_saved([shares[0], tmp_path / "other.npz"])


def test_files_of_other_sizes_are_refused(tmp_path, data, shares):
    about = {"source": "x", "shares": 3, "held": [1]}
    images, labels = data
    for changed in ((images[:, :2], labels, CLASSES), (images, labels, CLASSES + 1)):
        moments = stream_moments([changed[:2]], changed[2])
        save_moments(tmp_path / "other.npz", moments, about)
        with pytest.raises(ValueError, match=r"\(12, 3\) and \(\d+, \d\) \(pixels, classes\)"):
            merge_saved([shares[0], tmp_path / "other.npz"])


def test_what_is_no_file_of_moments_is_refused(tmp_path, shares):
    with pytest.raises(FileNotFoundError, match="absent"):
        merge_saved([tmp_path / "absent.npz"])
    with pytest.raises(ValueError, match="no file to merge"):
        merge_saved([])
    write_arrays(tmp_path / "b.npz", {"x": np.arange(3)})
    with pytest.raises(ValueError, match=r"b.npz holds no moments, but x"):
        load_moments(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"c\.npz is damaged"):
        load_moments(tmp_path / "c.npz")
    content = shares[0].read_bytes()
    shares[0].write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"share0\.npz is damaged"):
        merge_saved(shares)
