"""Features of images: how an encoder is called, batch by batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from recon_jax import training
from recon_jax.audit.calling import callables_of, is_traceable
from recon_jax.audit.checks import as_floats, as_rows, check_features, name_layers, require_finite
from recon_jax.audit.encoders import Encoder
from recon_jax.linalg import default_tolerance

OUTPUT = "output"
FIRST = "images of the first batch"
# Two calls that differ by more, as a part of the features' spread, are no rounding.
_REPEATABLE = 1e-4


class Prepared(NamedTuple):
    """An encoder that was tried on images and is ready to be run.

    Attributes:
      name: of the encoder.
      features: images as NumPy float32 to NumPy features (N, K), for batches of one size.
      layers: the same to {name: features}, "output" last.
      dimension: K.
      compiled: whether JAX compiled it.
      warnings: what was seen when it was tried.
    """

    name: str
    features: Callable[[np.ndarray], np.ndarray]
    layers: Callable[[np.ndarray], OrderedDict[str, Any]]
    dimension: int
    compiled: bool
    warnings: tuple[str, ...]


def prepare(
    encoder: Encoder, images: Shaped[np.ndarray, "n h w c"], *, with_layers: bool = True
) -> Prepared:
    """Decide how an encoder is called, and refuse what cannot be audited, on a first batch.

    Args:
      encoder: to be tried.
      images: one batch, of the size of all that follow; uint8, or floats in [0, 1].
      with_layers: whether its layers are tried too.

    Returns:
      The Prepared, which has run twice on the batch.

    Raises:
      ValueError: if features are a tuple, list or dict, have no leading axis of the images, are
        neither real numbers nor booleans, or NaN or infinite; likewise for layers.
    """
    batch = unit_images(images)
    jit = is_traceable(encoder, batch) if encoder.jit is None else encoder.jit
    features, layers = callables_of(encoder, batch, jit, with_layers)
    name = encoder.name

    def rows(images):
        return as_rows(check_features(name, features(images), len(images)))

    def named(images):
        found = name_layers(name, layers(images), len(images)) if layers else OrderedDict()
        # Last, also where a layer has that name.
        found.pop(OUTPUT, None)
        found[OUTPUT] = check_features(name, features(images), len(images))
        return OrderedDict((layer, as_floats(value)) for layer, value in found.items())

    first, numbers = rows(batch), np.arange(len(batch))
    require_finite(name, first, numbers, FIRST)
    for layer, found in named(batch).items() if layers else ():
        require_finite(f"layer {layer!r} of {name}", as_rows(found), numbers, FIRST)
    warnings = _repeatability(first, rows(batch))
    return Prepared(name, rows, named, first.shape[1], jit, warnings)


def extract(
    prepared: Prepared,
    images: Shaped[np.ndarray, "n h w c"],
    batch_size: int,
    *,
    what: str = "images",
    numbers: np.ndarray | None = None,
) -> Float[np.ndarray, "n k"]:
    """Features of images, batch by batch.

    Args:
      prepared: from `prepare`.
      images: uint8, or floats in [0, 1].
      batch_size: images a call. What is compiled gets full batches, the last one padded with its
        last image.
      what: the images are called in messages.
      numbers: by which messages count the images (N,); 0 .. N - 1 if None.

    Returns:
      Features in host memory, what follows the first axis flattened; float32, or float64 if the
      encoder gives that.

    Raises:
      ValueError: as `prepare` does, naming images whose features are not finite; or if the number
        of features changes.
    """
    numbers = np.arange(len(images)) if numbers is None else numbers
    parts = []
    for start in range(0, len(images), batch_size):
        part = unit_images(images[start : start + batch_size])
        count = len(part)
        if prepared.compiled and count < batch_size:
            part = np.concatenate([part, np.repeat(part[-1:], batch_size - count, axis=0)])
        found = prepared.features(part)[:count]
        if found.shape[1] != prepared.dimension:
            raise ValueError(
                f"{prepared.name} returned {found.shape[1]} features an image where it had "
                f"returned {prepared.dimension} before; their number must not depend on the images"
            )
        require_finite(prepared.name, found, numbers[start : start + count], what)
        parts.append(found)
    return np.concatenate(parts)


def unit_images(images: Shaped[np.ndarray, "n h w c"]) -> Float[np.ndarray, "n h w c"]:
    """What encoders see: 8-bit pixels over 255, other images as they are, in float32."""
    return np.asarray(training.unit_pixels(images)).astype(np.float32, copy=False)


def constant_features(features: Float[np.ndarray, "n k"]) -> int:
    """How many features are the same for all images, up to rounding."""
    spread = np.ptp(features, axis=0)
    return int(np.sum(spread <= default_tolerance(features.dtype) * np.abs(features).max(0)))


def _repeatability(first: np.ndarray, second: np.ndarray) -> tuple[str, ...]:
    """What two calls on the same images say."""
    change = np.sqrt(np.mean(np.square(second.astype(np.float64) - first)))
    spread = np.sqrt(np.mean(np.square(first.astype(np.float64) - first.mean(0, keepdims=True))))
    if change <= _REPEATABLE * spread or not change:
        return ()
    size = f"{change / spread:.2g} times" if spread > 0 else "infinitely many times"
    return (
        f"not deterministic: features of the same {len(first)} images differ between two calls, "
        f"by {size} their spread over images; every number holds for one draw of them alone",
    )
