import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.spectral import (
    blur,
    compose,
    downsample,
    gaussian,
    grayscale,
    identity,
    make_corruption,
    patch_mask,
    patch_subset,
    pixel_mask,
)
from recon_jax.spectral.block_masks import block_mask, grid_mask
from recon_jax.spectral.catalog import CORRUPTIONS

SHAPE = (4, 4, 3)
SPECS = {
    ("identity",): identity(SHAPE),
    ("gaussian", 0.5): gaussian(0.5, SHAPE),
    ("pixel_mask", 0.5): pixel_mask(0.5, SHAPE),
    ("patch_mask", 0.5, 2): patch_mask(0.5, 2, SHAPE),
    ("patch_mask", 0.5, (4, 2)): patch_mask(0.5, (4, 2), SHAPE),
    ("patch_subset", 0.75, 2): patch_subset(0.75, 2, SHAPE),
    ("block_mask", 0.25, 1): block_mask(0.25, 1, SHAPE),
    ("grid_mask", 2, (1, 2)): grid_mask(2, (1, 2), SHAPE),
    ("blur", 1.0): blur(1.0, SHAPE),
    ("downsample", 2): downsample(2, SHAPE),
    ("grayscale",): grayscale(SHAPE),
    (("blur", 1.0), ("gaussian", 0.1)): compose([blur(1.0, SHAPE), gaussian(0.1, SHAPE)], SHAPE),
}


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_spec_builds_the_corruption_it_names(spec):
    made, expected = make_corruption(spec, SHAPE), SPECS[spec]
    assert made.name == expected.name
    root = np.random.default_rng(0).standard_normal((48, 48))
    scatter = jnp.asarray(root @ root.T)
    np.testing.assert_array_equal(
        made.second_moment(scatter, 7), expected.second_moment(scatter, 7)
    )
    np.testing.assert_array_equal(made.gain(scatter), expected.gain(scatter))


def test_every_name_is_tried():
    assert {spec[0] for spec in SPECS if isinstance(spec[0], str)} == set(CORRUPTIONS)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ((), r"a corruption needs a name, such as \('gaussian', 0.5\)"),
        (
            ("salt", 0.5),
            "unknown corruption 'salt'; choose one of identity, gaussian, pixel_mask, patch_mask",
        ),
        (("gaussian",), r"corruption \('gaussian',\): .*image_shape"),
        (("gaussian", 0.5, 1, 2), r"corruption \('gaussian', 0.5, 1, 2\)"),
        (("patch_mask", 0.5), r"corruption \('patch_mask', 0.5\): .*image_shape"),
        (("patch_mask", 1.5, 2), r"ratio must lie in \[0, 1\), got 1.5"),
        (("grid_mask", 3, 1), "stride=3 does not divide the 4 x 4 grid"),
        ((("blur", 1.0), ("salt",)), "unknown corruption 'salt'"),
    ],
    ids=str,
)
def test_bad_specs_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        make_corruption(spec, SHAPE)
