from collections import OrderedDict, namedtuple

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from recon_jax.audit.adapting import as_constants, listed, normalized, pick

Pair = namedtuple("Pair", "latent pixels")
IMAGES = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
CHANNELS = np.arange(1, 6)
PIXELS = np.arange(1, 61, dtype=float).reshape(3, 4, 5)


@pytest.mark.parametrize("mean", [None, 0.5, CHANNELS, PIXELS, PIXELS[None], PIXELS[:1, :1]])
@pytest.mark.parametrize("std", [None, 2, CHANNELS, PIXELS])
def test_images_are_normalized(mean, std):
    expected = (IMAGES - (0 if mean is None else mean)) / (1 if std is None else std)
    constants = as_constants(mean, std)
    for images in (IMAGES, jnp.asarray(IMAGES)):
        found = normalized(images, *constants)
        assert found.dtype == np.float32
        assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (np.zeros((4, 5)), None, r"mean has shape \(4, 5\); give a number, one a channel"),
        (np.zeros((2, 3, 4, 5)), None, r"mean has shape \(2, 3, 4, 5\)"),
        (np.nan, None, "mean must be finite, got nan"),
        (None, [1.0, 0.0], "std must be positive and finite"),
        (None, np.inf, "std must be positive and finite, got inf"),
    ],
)
def test_bad_constants(mean, std, message):
    with pytest.raises(ValueError, match=message):
        as_constants(mean, std)


@pytest.mark.parametrize("shape", [(3,), (4, 3, 5), (3, 4, 1, 5), (3, 4, 6)])
def test_constants_of_other_images(shape):
    with pytest.raises(ValueError, match=r"does not fit images of shape \(3, 4, 5\)|has shape"):
        normalized(IMAGES, *as_constants(None, np.ones(shape)))


def test_one_of_several_things_is_picked():
    pair, entries = Pair("z", "x"), OrderedDict(latent="z", pixels="x")
    assert pick("z", None, "net") == "z"
    for output in ("latent", 0, -2, lambda found: found.latent):
        assert pick(pair, output, "net") == "z"
    assert pick(entries, "latent", "net") == "z"
    assert pick({0: "z"}, 0, "net") == "z"
    assert pick(["x", "z"], 1, "net") == "z"


@pytest.mark.parametrize(
    ("found", "output", "message"),
    [
        (Pair(1, 2), None, "net returned a Pair of 'latent', 'pixels', not one .*output='latent'"),
        ({"a": 1}, None, "a dict of 'a', not one array; choose one by output='a'"),
        ((1, 2, 3), None, "a tuple of 0, 1, 2, .* output=0"),
        ((), None, "a tuple of nothing"),
        (Pair(1, 2), "z", "output='z' is nothing that net returned, .*Pair of 'latent', 'pixels'"),
        ((1, 2), 2, "output=2 is nothing .* tuple of 0, 1"),
        ({"a": 1}, "b", "dict of 'a'"),
        (1.0, 0, "which is float"),
    ],
)
def test_nothing_to_pick(found, output, message):
    with pytest.raises(ValueError, match=message):
        pick(found, output, "net")


def test_long_lists_are_cut():
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(i) for i in range(23)]).endswith("18, 19, ... and 3 more")
