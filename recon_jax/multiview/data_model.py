"""Images whose features are known: patches of orthonormal features, two of them a class.

Source: Pan et al. 2023 (arXiv 2206.03826), section 3, and Allen-Zhu & Li 2020 (arXiv 2012.09816),
section 2, of which it takes the data; the finite sizes and weights are chosen here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from numbers import Real
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Int

from recon_jax.checks import check_integer, check_numbers
from recon_jax.multiview.checks import as_floats

# In `MultiViewBatch.views`: the image shows both features of its class.
BOTH_VIEWS = 2

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class MultiViewSpec:
    """Sizes and strengths of the data model; hashable, so that it can be a static argument.

    Class c has the features 2c and 2c + 1, its two views. A feature that an image shows lies on
    C_p patches of its own, at its weight divided by C_p. The other patches are noise.

    Attributes:
      num_classes: k, at least 1.
      num_patches: P, at least 2 C_p. floor(P / C_p) features have room: those of the class always,
        and if more features of other classes are drawn than fit, a random part of them is dropped.
        None is ever dropped if P >= 2 k C_p; at the defaults it happens in 1 % of the images.
      dim: d, entries of a patch, at least 2 k.
      patches_per_feature: C_p, at least 1.
      num_others: s in [0, k]: each feature of another class is shown with probability s / k.
      own_weight: range of the total weight of a feature of the image's class.
      other_weight: range of the total weight of one of another class, in multi-view images.
      single_other_weight: the same in single-view images.
      weak_factor: what the weight of the own feature that a single-view image hides is times, in
        [0, 1].
      feature_noise: gamma >= 0: patches of a feature hold every other feature at a coefficient
        uniform in [0, gamma].
      patch_noise: sigma_p >= 0, standard deviation of the Gaussian noise of all entries.

    Raises:
      ValueError: if a number is out of range.
    """

    num_classes: int = 5
    num_patches: int = 12
    dim: int = 32
    patches_per_feature: int = 2
    num_others: float = 1.0
    own_weight: Range = (1.0, 1.5)
    other_weight: Range = (0.2, 0.4)
    single_other_weight: Range = (0.15, 0.3)
    weak_factor: float = 0.02
    feature_noise: float = 0.02
    patch_noise: float = 0.07

    def __post_init__(self) -> None:
        check_integer("num_classes", self.num_classes, 1, "k, each with two features")
        check_integer("patches_per_feature", self.patches_per_feature, 1, "C_p")
        check_integer("num_patches", self.num_patches, 1, "P, patches of an image")
        check_integer("dim", self.dim, 1, "d, entries of a patch")
        own = 2 * self.patches_per_feature
        if own > self.num_patches:
            raise ValueError(
                f"num_patches={self.num_patches} have no room for the two features of a class on "
                f"patches_per_feature={self.patches_per_feature} patches each; at least {own} are "
                f"needed, and {own * self.num_classes} for all features at once"
            )
        if self.dim < self.num_features:
            raise ValueError(
                f"dim={self.dim} cannot hold {self.num_features} orthonormal features, two for "
                f"each of num_classes={self.num_classes}; take dim >= {self.num_features}"
            )
        if not 0 <= self.num_others <= self.num_classes:
            raise ValueError(
                f"num_others={self.num_others} must lie in [0, num_classes={self.num_classes}]: "
                "each feature of another class is shown with probability num_others / num_classes"
            )
        for name in ("own_weight", "other_weight", "single_other_weight"):
            _check_range(name, getattr(self, name))
        check_numbers("weak_factor", self.weak_factor, "[0, 1]", "0 hides the feature altogether")
        for name in ("feature_noise", "patch_noise"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}={value} must be a finite number >= 0; 0 is no noise")

    @property
    def num_features(self) -> int:
        """2 k."""
        return 2 * self.num_classes

    @property
    def capacity(self) -> int:
        """Most features that one image can show: min(2 k, floor(P / C_p))."""
        return min(self.num_features, self.num_patches // self.patches_per_feature)


def _check_range(name: str, ends: Range) -> None:
    if len(ends) != 2 or not all(isinstance(end, Real) for end in ends):
        raise ValueError(f"{name}={ends} must be two numbers, the least and the largest weight")
    if not 0 <= ends[0] <= ends[1] < math.inf:
        raise ValueError(f"{name}={ends} must be a finite range 0 <= least <= largest")


class MultiViewBatch(NamedTuple):
    """N images of the data model.

    Attributes:
      patches: (N, P, d).
      labels: classes (N,), int32.
      views: (N,), int32: `BOTH_VIEWS` = 2 for multi-view images; for a single-view image 0 or 1,
        the feature of its class that it shows, 2 label + view.
    """

    patches: Float[Array, "n p d"]
    labels: Int[Array, " n"]
    views: Int[Array, " n"]


def sample_features(
    key: Array, spec: MultiViewSpec, dtype: DTypeLike = jnp.float32
) -> Float[Array, "f d"]:
    """2 k orthonormal features, uniformly random: rows (2 k, d); 2 c and 2 c + 1 are of class c.

    Args:
      key: of the draw.
      spec: sizes.
      dtype: float32 or float64, also of the images made of them.
    """
    gaussian = jax.random.normal(key, (spec.dim, spec.num_features), dtype)
    basis, triangle = jnp.linalg.qr(gaussian)
    # QR leaves signs to the library; with those of the diagonal the basis is uniform.
    signs = jnp.where(jnp.diagonal(triangle) < 0, -1, 1).astype(basis.dtype)
    return (basis * signs[None, :]).T


def sample_multiview(
    key: Array,
    spec: MultiViewSpec,
    features: Float[ArrayLike, "f d"],
    num_images: int,
    single_view_fraction: ArrayLike = 0.0,
) -> MultiViewBatch:
    """Labelled images; image i depends on `key` and i alone, not on how many follow.

    A patch of feature v is z v + sum_(v' != v) a_v' v' + xi, with z its share of the weight, a
    uniform in [0, gamma] and xi ~ N(0, sigma_p^2 I); a patch without a feature is xi. Labels are
    uniform. Multi-view images show both features of their class, single-view images one of them,
    either with probability 1/2, and the other at a small part of its weight.

    Args:
      key: of the draw.
      spec: sizes and strengths.
      features: orthonormal rows (2 k, d) from `sample_features`; their dtype is that of the images.
      num_images: N, at least 1.
      single_view_fraction: mu, probability that an image is single-view, in [0, 1].

    Returns:
      The `MultiViewBatch`.

    Raises:
      ValueError: if the fraction or N is out of range, or the features do not have the shape of the
        spec.
    """
    check_integer("num_images", num_images, 1, "images to draw")
    share = "the share of single-view images"
    check_numbers("single_view_fraction", single_view_fraction, "[0, 1]", share)
    features = as_floats("features", features, 2, "2 k, dim")
    expected = (spec.num_features, spec.dim)
    if features.shape != expected:
        raise ValueError(
            f"features have shape {features.shape}, the spec asks for {expected}; draw them by "
            "sample_features(key, spec)"
        )
    return _sample(key, features, single_view_fraction, spec=spec, num_images=num_images)


@functools.partial(jax.jit, static_argnames=("spec", "num_images"))
def _sample(key, features, single_view_fraction, *, spec, num_images):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_images))
    fraction = jnp.asarray(single_view_fraction, features.dtype)
    coefficients, noise, labels, views = jax.vmap(
        lambda image_key: _draw_image(image_key, spec, fraction)
    )(keys)
    patches = jnp.matmul(coefficients, features, precision="highest") + spec.patch_noise * noise
    return MultiViewBatch(patches, labels, views)


def _draw_image(key, spec, fraction):
    """Coefficients (P, 2 k) of the features, white noise (P, d), label and view of one image."""
    bits_key, noise_key = jax.random.split(key)
    features, patches, dtype = spec.num_features, spec.num_patches, fraction.dtype
    # One draw for all: every further one costs half a second of compilation.
    sizes = (1, 1, 1, features, features, patches, patches * features)
    bits = jax.random.bits(bits_key, (sum(sizes),), jnp.uint32)
    label, single, view, weight, chance, place, clutter = jnp.split(bits, np.cumsum(sizes)[:-1])
    label = (label[0] % spec.num_classes).astype(jnp.int32)
    is_single = _uniform(single[0], dtype) < fraction
    view = jnp.where(is_single, (view[0] % 2).astype(jnp.int32), BOTH_VIEWS)
    weights = _weights(_uniform(weight, dtype), spec, label, view)
    feature, used = _places(_uniform(chance, dtype), place, spec, label)
    clutter = spec.feature_noise * _uniform(clutter, dtype).reshape(patches, features)
    shown = (weights / spec.patches_per_feature)[None, :]
    here = jnp.arange(features)[None, :] == feature[:, None]
    coefficients = jnp.where(used[:, None], jnp.where(here, shown, clutter), 0)
    noise = jax.random.normal(noise_key, (patches, spec.dim), dtype)
    return coefficients, noise, label, view


def _uniform(bits: Array, dtype: DTypeLike) -> Array:
    """Numbers in [0, 1) from 32 random bits, the same in both dtypes."""
    return (bits >> 8).astype(dtype) * 2.0**-24


def _weights(uniform, spec, label, view):
    """Total weights (2 k,) that the features would have if shown."""
    index = jnp.arange(spec.num_features)

    def within(ends):
        return ends[0] + (ends[1] - ends[0]) * uniform

    hidden = (view != BOTH_VIEWS) & (index % 2 != view)
    own = jnp.where(hidden, spec.weak_factor, 1).astype(uniform.dtype) * within(spec.own_weight)
    several, single = within(spec.other_weight), within(spec.single_other_weight)
    other = jnp.where(view == BOTH_VIEWS, several, single)
    return jnp.where(index // 2 == label, own, other)


def _places(chance, place_bits, spec, label):
    """The feature of each patch (P,), and whether it has one (P,)."""
    # Features in the order in which they get room: own, others shown, in random order, the rest.
    rank = jnp.where(chance < spec.num_others / spec.num_classes, chance, 2)
    rank = jnp.where(jnp.arange(spec.num_features) // 2 == label, -1, rank)
    order = jnp.argsort(rank)[: spec.capacity]
    slot = jnp.argsort(place_bits) // spec.patches_per_feature
    feature = order[jnp.minimum(slot, spec.capacity - 1)]
    return feature, (slot < spec.capacity) & (rank[feature] < 2)
