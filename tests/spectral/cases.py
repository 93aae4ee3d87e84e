"""Every corruption of the library with its gain and second moment written out in NumPy."""

import numpy as np

from recon_jax.spectral import (
    blur,
    compose,
    correlated_gaussian,
    downsample,
    gaussian,
    grayscale,
    identity,
    linear,
    patch_mask,
    patch_subset,
    pixel_mask,
)
from recon_jax.spectral.block_masks import block_mask, grid_mask

from . import reference as ref


def covariance_of(shape, seed=7):
    size = int(np.prod(shape))
    root = np.random.default_rng(seed).standard_normal((size, 3 * size)) / np.sqrt(3 * size)
    return root @ root.T * np.linspace(0.2, 2, size)[:, None] * np.linspace(0.2, 2, size)[None, :]


def _eye(shape):
    return np.eye(int(np.prod(shape)))


def _noise(matrix, stddev):
    return lambda scatter, count: (
        matrix,
        matrix @ scatter @ matrix.T + count * stddev**2 * np.eye(len(matrix)),
    )


def _bernoulli(ratio, patch, shape, per_channel=False):
    index = ref.patch_numbers(patch, shape, per_channel)
    patches = index.max() + 1
    if patches <= 8:
        patterns = ref.bernoulli_patches(ratio, patches)
        return lambda scatter, count: ref.masked_moments(scatter, index, patterns)
    # Too many patterns to list: q for one scalar, q^2 for two patches.
    same = index[:, None] == index[None, :]
    keep = 1 - ratio
    return lambda scatter, count: (
        keep * np.eye(len(index)),
        scatter * np.where(same, keep, keep**2),
    )


def _subset(kept, patch, shape):
    index = ref.patch_numbers(patch, shape)
    patterns = ref.subset_patches(kept, index.max() + 1)
    return lambda scatter, count: ref.masked_moments(scatter, index, patterns)


def _listed(patterns, patch, shape):
    index = ref.patch_numbers(patch, shape)
    return lambda scatter, count: ref.masked_moments(scatter, index, patterns)


def _chain(*parts):
    def moments(scatter, count):
        gain = np.eye(len(scatter))
        for part in parts:
            own, scatter = part(scatter, count)
            gain = own @ gain
        return gain, scatter

    return moments


def _tilt(shape):
    size = int(np.prod(shape))
    return np.eye(size) + 0.2 * np.random.default_rng(3).standard_normal((size, size))


def _apply_tilt(shape):
    def apply(images):
        rows = images.reshape(*images.shape[:-3], -1) @ _tilt(shape).astype(images.dtype).T
        return rows.reshape(images.shape)

    return apply


# name -> (library, reference), each a function of the image shape.
CASES = {
    "identity": (identity, lambda s: _noise(_eye(s), 0)),
    "gaussian": (lambda s: gaussian(0.7, s), lambda s: _noise(_eye(s), 0.7)),
    "correlated_gaussian": (
        lambda s: correlated_gaussian(covariance_of(s), s),
        lambda s: lambda scatter, count: (_eye(s), scatter + count * covariance_of(s)),
    ),
    "pixel_mask": (lambda s: pixel_mask(0.4, s), lambda s: _bernoulli(0.4, (1, 1), s)),
    "scalar_mask": (
        lambda s: pixel_mask(0.6, s, per_channel=True),
        lambda s: _bernoulli(0.6, (1, 1), s, True),
    ),
    "patch_mask": (lambda s: patch_mask(0.75, 2, s), lambda s: _bernoulli(0.75, (2, 2), s)),
    "tall_patch_mask": (
        lambda s: patch_mask(0.3, (4, 2), s),
        lambda s: _bernoulli(0.3, (4, 2), s),
    ),
    "wide_patch_mask": (
        lambda s: patch_mask(0.5, (1, 2), s),
        lambda s: _bernoulli(0.5, (1, 2), s),
    ),
    "channel_patch_mask": (
        lambda s: patch_mask(0.5, 2, s, per_channel=True),
        lambda s: _bernoulli(0.5, (2, 2), s, True),
    ),
    "subset_1_of_4": (lambda s: patch_subset(0.75, 2, s), lambda s: _subset(1, (2, 2), s)),
    "subset_3_of_8": (lambda s: patch_subset(0.6, (2, 1), s), lambda s: _subset(3, (2, 1), s)),
    "block_mask": (
        lambda s: block_mask(0.25, 1, s),
        lambda s: _listed(ref.block_patches((2, 2), (4, 4)), (1, 1), s),
    ),
    "wide_block_mask": (
        lambda s: block_mask(0.4, (2, 1), s),
        lambda s: _listed(ref.block_patches((1, 3), (2, 4)), (2, 1), s),
    ),
    "middle_block_mask": (
        lambda s: block_mask(0.55, 1, s),
        lambda s: _listed(ref.block_patches((3, 3), (4, 4)), (1, 1), s),
    ),
    "grid_mask": (
        lambda s: grid_mask(2, 1, s),
        lambda s: _listed(ref.grid_patches(2, (4, 4)), (1, 1), s),
    ),
    "wide_grid_mask": (
        lambda s: grid_mask(2, (1, 2), s),
        lambda s: _listed(ref.grid_patches(2, (4, 2)), (1, 2), s),
    ),
    "blur": (lambda s: blur(0.8, s), lambda s: _noise(ref.blur_matrix(0.8, s), 0)),
    "blur_noise": (
        lambda s: blur(0.8, s, noise=0.3),
        lambda s: _noise(ref.blur_matrix(0.8, s), 0.3),
    ),
    "downsample": (lambda s: downsample(2, s), lambda s: _noise(ref.block_mean_matrix(2, s), 0)),
    "downsample_noise": (
        lambda s: downsample(2, s, noise=0.3),
        lambda s: _noise(ref.block_mean_matrix(2, s), 0.3),
    ),
    "linear": (
        lambda s: linear("tilt", _apply_tilt(s), s),
        lambda s: _noise(_tilt(s), 0),
    ),
    "mask_then_gaussian": (
        lambda s: compose([patch_mask(0.5, 2, s), gaussian(0.5, s)], s),
        lambda s: _chain(_bernoulli(0.5, (2, 2), s), _noise(_eye(s), 0.5)),
    ),
    "gaussian_then_mask": (
        lambda s: compose([gaussian(0.5, s), patch_mask(0.5, 2, s)], s),
        lambda s: _chain(_noise(_eye(s), 0.5), _bernoulli(0.5, (2, 2), s)),
    ),
    "blur_subset_gaussian": (
        lambda s: compose([blur(0.6, s), patch_subset(0.5, 2, s), gaussian(0.2, s)], s),
        lambda s: _chain(
            _noise(ref.blur_matrix(0.6, s), 0), _subset(2, (2, 2), s), _noise(_eye(s), 0.2)
        ),
    ),
}
COLOUR_CASES = {
    "grayscale": (grayscale, lambda s: _noise(ref.luminance_matrix(s), 0)),
    "grayscale_noise": (
        lambda s: grayscale(s, noise=0.4),
        lambda s: _noise(ref.luminance_matrix(s), 0.4),
    ),
}

GREY, COLOUR = (4, 4, 1), (4, 4, 3)
# Corruptions after which some directions of the images are gone.
LOSSY = {"downsample", "grayscale", "middle_block_mask"}
# Where noise fills the lost directions, the encoders beyond the rank of the gain are arbitrary.
NOISY_LOSSY = {"downsample_noise": 4, "grayscale_noise": 3}

# With channels only what treats them in its own way; the rest acts alike on any flattened image.
_WITH_CHANNELS = (
    "pixel_mask",
    "scalar_mask",
    "patch_mask",
    "channel_patch_mask",
    "subset_1_of_4",
    "block_mask",
    "grid_mask",
    "blur_noise",
    "downsample",
)
ALL = [(name, GREY) for name in CASES]
ALL += [(name, COLOUR) for name in (*_WITH_CHANNELS, *COLOUR_CASES)]


def build(name, shape):
    """The library's corruption and its NumPy moments (scatter, count) -> (gain, second)."""
    ours, reference = {**CASES, **COLOUR_CASES}[name]
    return ours(shape), reference(shape)
