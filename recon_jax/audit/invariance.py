"""How different features of two views of one image are, by the strength of the augmentation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from recon_jax import augment, geometry, training
from recon_jax.audit.extraction import Prepared, extract, unit_images
from recon_jax.audit.intervals import over_seeds, undefined
from recon_jax.audit.records import Invariance

# (strength, seed, number) -> a view of each image.
Views = Callable[[float, int, int], Float[np.ndarray, "n h w c"]]
_KEPT_BYTES = 2**29


def make_views(
    images: Shaped[np.ndarray, "n h w c"],
    strengths: Sequence[float],
    seeds: Sequence[int],
    batch_size: int,
) -> Views:
    """Random views of images by strength, seed and number (0 or 1), the same on every call.

    Views of one seed and number differ in strength alone: all their random numbers are the same.
    They are kept if all of them fit half a gigabyte, and drawn again otherwise.

    Args:
      images: (N, H, W, C).
      strengths: that will be asked for.
      seeds: that will be asked for.
      batch_size: images a call of the policy.

    Returns:
      The function.

    Raises:
      ValueError: if `augment.view_policy` knows no views of such images.
    """
    shown = unit_images(images)
    policy = augment.view_policy(shown.shape[1:])

    def views(strength, seed, number):
        key = jax.random.fold_in(jax.random.key(seed), number)
        keys = training.example_keys(key, len(shown))
        parts = []
        for start in range(0, len(shown), batch_size):
            rows = slice(start, start + batch_size)
            parts.append(np.asarray(policy(keys[rows], jnp.asarray(shown[rows]), strength)))
        return np.concatenate(parts)

    keep = 2 * len(strengths) * len(seeds) * shown.nbytes <= _KEPT_BYTES
    return functools.cache(views) if keep else views


def measure_invariance(
    prepared: Prepared,
    views: Views,
    strengths: Sequence[float],
    seeds: Sequence[int],
    batch_size: int,
) -> Invariance:
    """Non-invariance of features at each strength, over draws of two views of each image.

    Args:
      prepared: the encoder.
      views: from `make_views`.
      strengths: in (0, 1].
      seeds: one draw each; all encoders see the same views.
      batch_size: images a call.

    Returns:
      The Invariance; without values where features are the same for all views.

    Source: Cosentino et al. 2022 (arXiv 2205.06926).
    """
    values = []
    for strength in strengths:
        found = [_of_draw(prepared, views, strength, seed, batch_size) for seed in seeds]
        notes = [value for value in found if isinstance(value, str)]
        numbers = [np.nan if isinstance(value, str) else value for value in found]
        values.append(over_seeds(numbers, notes[0] if notes else ""))
    return Invariance(tuple(float(strength) for strength in strengths), tuple(values))


def undefined_invariance(strengths: Sequence[float], note: str) -> Invariance:
    """No numbers, and why.

    Args:
      strengths: of the views.
      note: why.
    """
    return Invariance(tuple(strengths), (undefined(note),) * len(strengths))


def _of_draw(prepared, views, strength, seed, batch_size) -> float | str:
    what = f"views of strength {strength:g}"
    pair = (views(strength, seed, number) for number in range(2))
    pair = [extract(prepared, images, batch_size, what=what) for images in pair]
    try:
        return float(geometry.non_invariance(*pair))
    except ValueError as error:
        return str(error)
