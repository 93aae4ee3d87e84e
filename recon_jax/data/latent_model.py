"""Latent factors as a source: what a random network turns into observations.

Views of one datum share the content and jitter the augmented factors (`augment.latent_views`). An
encoder can factor such an augmentation out, which makes it the control of claims about projectors.
"""

from __future__ import annotations

import numpy as np

from recon_jax.checks import check_integer
from recon_jax.data.array_source import Source, from_arrays

CONTENT = 4
AUGMENTED = 4
NUM_IMAGES = 2_000
NUM_CLASSES = 4
_SPLIT_CODES = {"train": 0, "test": 1}


def latent_source(
    *,
    split: str = "train",
    num_images: int = NUM_IMAGES,
    content: int = CONTENT,
    augmented: int = AUGMENTED,
    seed: int = 0,
) -> Source:
    """Standard normal latents, content first, labelled by the quadrant of two augmented ones.

    The label of latents z is [z_c > 0] + 2 [z_(c+1) > 0], c = content, and datum i has label i % 4,
    so that classes are balanced: magnitudes are drawn, and these two signs follow from i. A linear
    map of the latents tells the classes; the content says nothing about them.

    Datum i depends on (seed, split, i, content, augmented) alone.

    Args:
      split: "train" or "test", different draws.
      num_images: at least 4.
      content: latents that views share, >= 1.
      augmented: latents that views jitter, >= 2.
      seed: at least 0.

    Returns:
      A `Source` of float32 "images" (1, content + augmented, 1).

    Raises:
      ValueError: an argument is outside its range.

    Source: the negative control to Cosentino et al. 2022 (arXiv 2205.06926); not of that paper.
    """
    if split not in _SPLIT_CODES:
        raise ValueError(f"split={split!r} is not a split; choose one of {', '.join(_SPLIT_CODES)}")
    for option, value, lowest in (
        ("num_images", num_images, NUM_CLASSES),
        ("content", content, 1),
        ("augmented", augmented, 2),
        ("seed", seed, 0),
    ):
        check_integer(option, value, lowest)
    rng = np.random.default_rng([seed, _SPLIT_CODES[split]])
    # Row by row from one stream: fewer data are the first of more.
    latents = rng.standard_normal((num_images, content + augmented), np.float32)
    labels = np.arange(num_images) % NUM_CLASSES
    for bit in range(2):
        signs = np.where(labels >> bit & 1, 1, -1).astype(np.float32)
        latents[:, content + bit] = signs * np.abs(latents[:, content + bit])
    names = ("- -", "+ -", "- +", "+ +")
    return from_arrays(latents[:, None, :, None], labels, names, name="latents", split=split)
