import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.spectral import (
    alignment_curve,
    eigendecompose,
    mask_sweep,
    patch_mask,
    patch_subset,
)

from . import reference

SHAPE = (4, 6, 1)
PATCHES = [1, 2, (2, 3), (4, 1)]
MAKE = {"bernoulli": patch_mask, "subset": patch_subset}
RATIOS = {"bernoulli": [0.0, 0.1, 0.5, 0.95], "subset": [0.0, 0.25, 0.5, 0.75]}


def one_by_one(moments, kind, ratios, patches, shape):
    return np.stack(
        [
            [alignment_curve(moments, MAKE[kind](ratio, patch, shape)) for ratio in ratios]
            for patch in patches
        ]
    )


@pytest.fixture(scope="module")
def moments(image_like):
    return reference.moments_of(*image_like(150, SHAPE, 3, seed=1), 3)


@pytest.mark.parametrize("kind", MAKE)
def test_sweep_equals_one_by_one(moments, kind):
    curves = mask_sweep(moments, RATIOS[kind], PATCHES, SHAPE, kind=kind)
    assert curves.shape == (4, 4, 24)
    assert curves.dtype == np.float64
    expected = one_by_one(moments, kind, RATIOS[kind], PATCHES, SHAPE)
    np.testing.assert_allclose(curves, expected, rtol=1e-8)
    clean = np.broadcast_to(alignment_curve(moments), (4, 24))
    np.testing.assert_array_equal(curves[:, 0], clean)
    assert np.abs(curves[:, 1:] - clean[:, None]).max() > 0.01


def test_channels_are_masked_together(image_like):
    shape = (2, 2, 3)
    moments = reference.moments_of(*image_like(100, shape, 3, seed=1), 3)
    curves = mask_sweep(moments, [0.5], [1, 2], shape)
    expected = one_by_one(moments, "bernoulli", [0.5], [1, 2], shape)
    np.testing.assert_allclose(curves, expected, rtol=1e-8)


def test_max_rank_cuts_the_curve(moments):
    curves = mask_sweep(moments, [0.0, 0.5], [2], SHAPE, max_rank=5)
    assert curves.shape == (1, 2, 5)
    expected = one_by_one(moments, "bernoulli", [0.0, 0.5], [2], SHAPE)
    np.testing.assert_allclose(curves, expected[:, :, :5], rtol=1e-8)


def test_spectrum_at_hand_changes_nothing(moments):
    curves = mask_sweep(moments, [0.5], [2], SHAPE, spectrum=eigendecompose(moments))
    np.testing.assert_array_equal(curves, mask_sweep(moments, [0.5], [2], SHAPE))


@pytest.mark.parametrize("kind", MAKE)
def test_the_reduced_basis_is_within_1e_3(image_like, kind):
    from recon_jax.spectral import sweep
    from recon_jax.spectral.masks import patch_index, within_patches

    shape, rank = (20, 20, 1), 16
    moments = reference.moments_of(*image_like(900, shape, 4, seed=9, decay=1.5), 4)
    ratios, patches = [0.0, 0.25, 0.5, 0.75, 0.9], [2, (4, 5)]
    index = patch_index(2, shape)
    basis = sweep._reduced_basis(
        moments,
        eigendecompose(moments),
        within_patches(moments.scatter, index),
        [None, (0.5, 0.5), (0.1, 0.9)],
        rank,
    )
    assert basis is not None
    assert basis.shape[1] < 400
    curves = mask_sweep(moments, ratios, patches, shape, kind=kind, max_rank=rank)
    expected = one_by_one(moments, kind, ratios, patches, shape)[:, :, :rank]
    assert np.abs(curves - expected).max() < 1e-3
    assert np.abs(expected[:, 1:] - expected[:, :1]).max() > 0.01
    single = mask_sweep(
        moments, ratios, patches, shape, kind=kind, max_rank=rank, solver_dtype=jnp.float32
    )
    assert np.abs(single - expected).max() < 2e-3


def spoiled(images, how):
    images = images.copy()
    if how == "constant":
        images[:, 0, :2] = 3.0
        images[:, 2:, 4] = 0.0
    elif how == "duplicated":
        images[:, 1, 1] = images[:, 3, 5]
    else:
        images = images[:12]
    return images


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("how", ["constant", "duplicated", "few"])
def test_rank_deficient_data(image_like, kind, how):
    images, _ = image_like(150, SHAPE, 3, seed=1)
    images = spoiled(images, how)
    moments = reference.moments_of(images, np.arange(len(images)) % 3, 3)
    curves = mask_sweep(moments, RATIOS[kind], PATCHES, SHAPE, kind=kind)
    expected = one_by_one(moments, kind, RATIOS[kind], PATCHES, SHAPE)
    rank = np.linalg.matrix_rank(reference.centred_rows(images))
    assert rank < 24
    np.testing.assert_allclose(curves[..., :rank], expected[..., :rank], rtol=1e-6)
    np.testing.assert_allclose(curves[..., rank:], 1, rtol=1e-7)
    single = mask_sweep(moments, RATIOS[kind], PATCHES, SHAPE, kind=kind, solver_dtype=jnp.float32)
    np.testing.assert_allclose(single, expected, atol=1e-3)


def test_solver_in_float32_is_close(moments):
    exact = mask_sweep(moments, [0.0, 0.5, 0.9], [1, 2], SHAPE)
    single = mask_sweep(moments, [0.0, 0.5, 0.9], [1, 2], SHAPE, solver_dtype=jnp.float32)
    np.testing.assert_allclose(single, exact, atol=2e-4)


def test_moments_in_float32_are_close(moments):
    exact = mask_sweep(moments, [0.0, 0.5, 0.9], [1, 2], SHAPE)
    cast = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, moments)
    np.testing.assert_allclose(mask_sweep(cast, [0.0, 0.5, 0.9], [1, 2], SHAPE), exact, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "salt"}, "kind must be 'bernoulli' or 'subset', got 'salt'"),
        ({"ratios": []}, r"ratios must be ascending and lie in \[0, 1\), got \[\]"),
        ({"ratios": [0.5, 0.1]}, r"ratios must be ascending .* got \[0.5, 0.1\]"),
        ({"ratios": [0.0, 1.0]}, r"ratios must be ascending .* got \[0.0, 1.0\]"),
        ({"ratios": [-0.1]}, r"ratios must be ascending .* got \[-0.1\]"),
        ({"ratios": [float("nan")]}, r"ratios must be ascending .* got \[nan\]"),
        ({"patch_sizes": [4]}, "patch_size=4 does not divide image width 6; choose one of 1, 2, 3"),
        ({"max_rank": 0}, "max_rank must lie in 1 .. 24, got 0"),
        ({"max_rank": 25}, "max_rank must lie in 1 .. 24, got 25"),
        (
            {"kind": "subset", "ratios": [0.95], "patch_sizes": [2]},
            "ratio=0.95 keeps 0 of 6 patches; at least 1 of 2 must remain",
        ),
        (
            {"kind": "subset", "patch_sizes": [(4, 6)]},
            "ratio=0.5 keeps 0 of 1 patches; at least 1 of 2 must remain",
        ),
        ({"image_shape": (4, 5, 1), "patch_sizes": [1]}, "20 scalars"),
    ],
    ids=lambda p: str(p) if isinstance(p, dict) else "",
)
def test_bad_arguments_are_refused(moments, arguments, message):
    given = {"ratios": [0.5], "patch_sizes": [2], "image_shape": SHAPE, **arguments}
    with pytest.raises(ValueError, match=message):
        mask_sweep(moments, **given)


def test_one_class_is_refused(image_like):
    images, _ = image_like(20, SHAPE, 3)
    moments = reference.moments_of(images, np.zeros(20, int), 3)
    with pytest.raises(ValueError, match="only 1 of 3 classes have images"):
        mask_sweep(moments, [0.5], [2], SHAPE)
