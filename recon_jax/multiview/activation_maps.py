"""Where a network looks: activation maps, and how many regions of an image a prediction needs.

Source: Eigen-CAM, Muhammad & Yeasin 2020 (arXiv 2008.00299); the counts of regions are this
project's, for the claim of Pan et al. 2023 (arXiv 2206.03826) that mask-reconstruction pretraining
captures more parts of an object than supervision does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int
from scipy import ndimage

from recon_jax.checks import is_concrete
from recon_jax.linalg import default_tolerance
from recon_jax.multiview.checks import as_floats

Apply = Callable[[Any, Float[Array, "n h w c"]], Float[Array, "n classes"]]


class RegionCounts(NamedTuple):
    """How much of an image a prediction needs.

    Attributes:
      needed: smallest number of regions from which on the score is kept, 0 .. R; -1 where logits
        of the whole image are not finite.
      predicted: class that the whole image is predicted to be.
      scores: of the image with the first 0 .. R regions, the last one of the whole image.
    """

    needed: Int[Array, " n"]
    predicted: Int[Array, " n"]
    scores: Float[Array, "n r"]


@partial(jax.jit, static_argnames=("center", "rescale"))
def _eigen_cam(maps, center, rescale):
    rows = maps.reshape(len(maps), -1, maps.shape[3])
    norms = jnp.linalg.norm(rows, axis=2)
    if center:
        rows = rows - rows.mean(1, keepdims=True)
    left, values, _ = jnp.linalg.svd(rows, full_matrices=False)
    projection = left[:, :, 0] * values[:, :1]
    # What rounding leaves of a difference that is zero.
    noise = default_tolerance(maps.dtype) * norms.max(1, keepdims=True)
    agreement = jnp.sum(projection * (norms - norms.mean(1, keepdims=True)), 1, keepdims=True)
    level = noise * jnp.abs(projection).sum(1, keepdims=True)
    agreement = jnp.where(jnp.abs(agreement) > level, agreement, projection.sum(1, keepdims=True))
    projection = jnp.where(agreement < 0, -projection, projection)
    if rescale:
        low = projection.min(1, keepdims=True)
        width = projection.max(1, keepdims=True) - low
        varies = width > noise
        projection = jnp.where(varies, (projection - low) / jnp.where(varies, width, 1), 0)
    return projection.reshape(maps.shape[:3])


def eigen_cam(
    feature_maps: Float[ArrayLike, "n h w c"], *, center: bool = False, rescale: bool = True
) -> Float[Array, "n h w"]:
    """Projection of the features at every place on their first right singular vector.

    A v_1 of A = U S V^T, the features (H W, C) of one image, one row a place. It knows no class.
    Its sign is chosen so that it does not correlate negatively with the norm of the features: where
    the network is active, the map is high. If all norms are equal, its sum is not negative.

    Args:
      feature_maps: (N, H, W, C), such as the output of the last convolution, or the tokens of the
        patches of a transformer, without the class token, on their grid.
      center: subtract the mean over places first, as common implementations do and the paper does
        not.
      rescale: bring every map to [0, 1] by its least and greatest value; a constant map becomes 0.

    Returns:
      (N, H, W); without `rescale` in the unit of the features.

    Raises:
      ValueError: if the maps are not finite floats of four axes (values: outside jit).

    Source: Muhammad & Yeasin 2020 (arXiv 2008.00299), section 3; the sign is chosen here.
    """
    return _eigen_cam(as_floats("feature_maps", feature_maps, 4, "N, H, W, C"), center, rescale)


def region_ranks(maps: Float[Array, "n a b"]) -> Int[Array, "n a b"]:
    """Place of every region in descending order of its map, 0 first; of equals the first by row."""
    flat = maps.reshape(len(maps), -1)
    order = jnp.argsort(-flat, axis=1, stable=True)
    return jnp.argsort(order, axis=1).astype(jnp.int32).reshape(maps.shape)


@partial(jax.jit, static_argnums=0)
def _count_regions(apply, variables, images, maps, share):
    high, wide = images.shape[1] // maps.shape[1], images.shape[2] // maps.shape[2]
    regions = maps.shape[1] * maps.shape[2]

    def scores_of(image, ranks):
        rank = jnp.repeat(jnp.repeat(ranks, high, 0), wide, 1)
        kept = rank[None] < jnp.arange(regions + 1)[:, None, None]
        fill = image.mean((0, 1), keepdims=True)
        logits = apply(variables, jnp.where(kept[..., None], image[None], fill[None]))
        predicted = jnp.argmax(logits[-1])
        return predicted, logits[:, predicted] - logits.mean(1)

    predicted, scores = jax.lax.map(lambda row: scores_of(*row), (images, region_ranks(maps)))
    held = scores >= share.astype(scores.dtype) * scores[:, -1:]
    # Regions from which on all hold: a running product from the last one back.
    lasting = jnp.cumprod(held[:, ::-1].astype(jnp.int32), axis=1).sum(1)
    needed = jnp.where(lasting > 0, regions + 1 - lasting, -1)
    return RegionCounts(needed.astype(jnp.int32), predicted.astype(jnp.int32), scores)


def regions_for_logit(
    apply: Apply,
    variables: Any,
    images: Float[ArrayLike, "n h w c"],
    maps: Float[ArrayLike, "n a b"],
    *,
    share: float = 0.9,
) -> RegionCounts:
    """How many regions, the most active first, keep the predicted class's logit.

    The image is cut into the A x B regions of its map. Those of the r highest values stay; all
    others are filled with the mean of the image by channel. The score is the logit of the class
    that the whole image is predicted to be, minus the mean over classes:

    needed = min {r : score_s >= share * score_R for all s = r .. R}

    The mean is subtracted because a logit may be negative, and because the same number added to all
    logits changes no prediction; so the score of the whole image is never negative, and R regions
    always keep it. The logit of the filled image is no such reference: it may be the greater one.

    Args:
      apply: (variables, images) -> logits (N, K), a pure function that treats each image by itself,
        such as a network in evaluation mode. Keep the same function object to compile once.
      variables: what `apply` takes.
      images: (N, H, W, C), as the network sees them.
      maps: (N, A, B), such as those of `eigen_cam`; A must divide H, and B must divide W. Of equal
        values the first by row comes first.
      share: of the score that is to be kept, in (0, 1].

    Returns:
      needed and predicted (N,), scores (N, A B + 1). A network whose logits are all equal needs no
      region.

    Raises:
      ValueError: if images and maps are not finite floats (values: outside jit), their numbers
        differ, the regions do not cut the image evenly, or the share is out of range.

    Source: the measure is this project's; the claim, Pan et al. 2023 (arXiv 2206.03826).
    """
    images = as_floats("images", images, 4, "N, H, W, C")
    maps = as_floats("maps", maps, 3, "N, rows, columns")
    if len(images) != len(maps):
        raise ValueError(f"{len(images)} images need as many maps, got {len(maps)}")
    for name, side, cuts in zip(
        ("height", "width"), images.shape[1:3], maps.shape[1:], strict=True
    ):
        if side % cuts:
            allowed = ", ".join(str(k) for k in range(1, side + 1) if side % k == 0)
            raise ValueError(
                f"maps of {cuts} regions do not divide image {name} {side}; average or resize them "
                f"to one of {allowed}"
            )
    if not 0 < share <= 1:
        raise ValueError(f"share={share} must lie in (0, 1]: the part of the score to be kept")
    return _count_regions(apply, variables, images, maps, jnp.asarray(share))


def kept_regions(
    maps: Float[ArrayLike, "n a b"], needed: Int[ArrayLike, " n"]
) -> Bool[Array, "n a b"]:
    """The regions of the highest values, so many for each image; none for numbers below 1.

    Args:
      maps: (N, A, B), as in `regions_for_logit`.
      needed: (N,).

    Raises:
      ValueError: if there is not one number for each map.
    """
    maps, needed = as_floats("maps", maps, 3, "N, rows, columns"), jnp.asarray(needed)
    if needed.shape != (len(maps),):
        raise ValueError(f"needed must be one for each of {len(maps)} maps, got {needed.shape}")
    return region_ranks(maps) < needed[:, None, None]


def distinct_regions(kept: Bool[ArrayLike, "n a b"]) -> Int[np.ndarray, " n"]:
    """In how many separate pieces the kept regions lie; those that share a side are one piece.

    Computed on the host; it cannot be jitted.

    Args:
      kept: (N, A, B), such as those of `kept_regions`.

    Raises:
      ValueError: if it is not of three axes, or is traced by jit.
    """
    if not is_concrete(kept):
        raise ValueError("distinct_regions runs on the host; call it outside jit")
    kept = np.asarray(kept)
    if kept.ndim != 3:
        raise ValueError(f"kept must have shape (N, rows, columns), got {kept.shape}")
    return np.array([ndimage.label(one)[1] for one in kept], np.int64)
