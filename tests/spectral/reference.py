"""The closed forms written again in NumPy on the N x D data, to compare the library with."""

import itertools

import jax.numpy as jnp
import numpy as np
import scipy.linalg

from recon_jax.spectral import Moments


def centred_rows(images):
    rows = np.asarray(images, np.float64).reshape(len(images), -1)
    return rows - rows.mean(0)


def one_hot(labels, num_classes):
    return np.eye(num_classes)[labels]


def moments_of(images, labels, num_classes, dtype=jnp.float64):
    """Moments in one shot from the whole data."""
    rows, targets = centred_rows(images), one_hot(labels, num_classes)
    return Moments(
        count=jnp.asarray(len(rows), jnp.int32),
        mean=jnp.asarray(np.asarray(images, np.float64).reshape(len(rows), -1).mean(0), dtype),
        scatter=jnp.asarray(rows.T @ rows, dtype),
        cross=jnp.asarray(rows.T @ targets, dtype),
        class_counts=jnp.asarray(targets.sum(0), jnp.int32),
    )


def bernoulli_patches(ratio, patches):
    """All keep patterns (2^P, P) of independent patches, and their probabilities."""
    keep = np.array(list(itertools.product([0.0, 1.0], repeat=patches)))
    kept = keep.sum(1)
    return keep, (1 - ratio) ** kept * ratio ** (patches - kept)


def subset_patches(kept, patches):
    """All keep patterns with exactly `kept` patches, equally likely."""
    keep = np.array([p for p in itertools.product([0.0, 1.0], repeat=patches) if sum(p) == kept])
    return keep, np.full(len(keep), 1 / len(keep))


def block_patches(block, grid):
    """All keep patterns that hide one block (rows, columns) of the grid, equally likely."""
    patterns = []
    for top in range(grid[0] - block[0] + 1):
        for left in range(grid[1] - block[1] + 1):
            keep = np.ones(grid)
            keep[top : top + block[0], left : left + block[1]] = 0
            patterns.append(keep.reshape(-1))
    return np.array(patterns), np.full(len(patterns), 1 / len(patterns))


def grid_patches(stride, grid):
    """All keep patterns with every stride-th row and column of the grid, equally likely."""
    patterns = []
    for top in range(stride):
        for left in range(stride):
            keep = np.zeros(grid)
            keep[top::stride, left::stride] = 1
            patterns.append(keep.reshape(-1))
    return np.array(patterns), np.full(len(patterns), 1 / len(patterns))


def patch_numbers(patch, shape, per_channel=False):
    """Patch of every scalar of a flattened (H, W, C) image, by counting, not by formula."""
    height, width, channels = shape
    seen, index = {}, []
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                place = (y // patch[0], x // patch[1], c if per_channel else 0)
                index.append(seen.setdefault(place, len(seen)))
    return np.array(index)


def masked_moments(scatter, index, patterns):
    """Gain and second moment of zero-fill masks, as a sum over all patterns."""
    keep, probability = patterns
    mean = probability @ keep
    both = keep.T @ (probability[:, None] * keep)
    return np.diag(mean[index]), scatter * both[np.ix_(index, index)]


def blur_matrix(stddev, shape):
    """Gaussian blur cut at 4 standard deviations, renormalised at borders, pixel by pixel."""
    height, width, channels = shape
    matrix = np.zeros((height * width * channels,) * 2)
    for y, x, c in np.ndindex(shape):
        weights = {
            (v, u): np.exp(-((v - y) ** 2 + (u - x) ** 2) / (2 * stddev**2))
            for v in range(height)
            for u in range(width)
            if max(abs(v - y), abs(u - x)) <= 4 * stddev
        }
        total = sum(weights.values())
        for (v, u), weight in weights.items():
            matrix[(y * width + x) * channels + c, (v * width + u) * channels + c] = weight / total
    return matrix


def block_mean_matrix(factor, shape):
    """Mean over factor x factor blocks, copied back, channel by channel."""
    index = patch_numbers((factor, factor), shape, per_channel=True)
    same = index[:, None] == index[None, :]
    return same / same.sum(1, keepdims=True)


def luminance_matrix(shape):
    """Every channel becomes the BT.601 luminance."""
    return np.kron(np.eye(shape[0] * shape[1]), np.ones((3, 1)) * [[0.299, 0.587, 0.114]])


def encoders(gain, second, scatter):
    """Top generalised eigenvectors of (G S S G^T, M2), descending; M2 must be definite."""
    values, vectors = scipy.linalg.eigh(gain @ scatter @ scatter @ gain.T, second)
    return values[::-1], vectors[:, ::-1]


def encoders_on_range(gain, second, scatter, tolerance=1e-9):
    """The same where M2 is only semi-definite: solved inside its range."""
    variances, axes = np.linalg.eigh(second)
    basis = axes[:, variances > tolerance * variances.max()]
    inside = basis.T @ gain @ scatter @ scatter @ gain.T @ basis
    values, vectors = scipy.linalg.eigh(inside, basis.T @ second @ basis)
    return values[::-1], basis @ vectors[:, ::-1]


def alignment(rows, labels, num_classes, vectors, tolerance=1e-7):
    """The authors' alignment: QR of X V, then cumulative norms of Y^T Y Q, over their total.

    Latents that vanish are left out of the QR and repeat the value before them; the total is over
    the whole row space of the data.
    """
    targets = one_hot(labels, num_classes)
    latents = rows @ vectors
    scale = np.linalg.norm(latents, axis=0)
    live = scale > tolerance * scale.max()
    left, s, _ = np.linalg.svd(rows, full_matrices=False)
    space = left[:, s > tolerance * s[0]]
    live &= np.cumsum(live) <= space.shape[1]  # the row space is full by then
    q = np.linalg.qr(latents[:, live])[0]
    energy = np.zeros(rows.shape[1])
    energy[np.flatnonzero(live)] = ((targets @ (targets.T @ q)) ** 2).sum(0)
    total = ((targets @ (targets.T @ space)) ** 2).sum()
    return np.sqrt(np.cumsum(energy) / total)


def row_space(rows, vectors):
    """Orthonormal basis of the latents on the data (N, K)."""
    return np.linalg.qr(rows @ vectors)[0]
