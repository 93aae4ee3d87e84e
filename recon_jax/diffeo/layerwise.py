"""Sensitivities of every layer of a network, in one pass over the images."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Shaped

from recon_jax import parallel
from recon_jax.checks import check_choice, check_integer
from recon_jax.diffeo.checks import as_floats
from recon_jax.diffeo.sensitivity import (
    REDUCTIONS,
    Sensitivity,
    denominator_fault,
    ratios,
    sensitivities,
)

OUTPUT = "output"
SETS = ("images", "deformed", "noisy")


class _Sums(NamedTuple):
    """Of one layer, over the images so far, in float64 on the host.

    `norms` are summed squares: of what is left of the features without their mean, and of what
    deformation and noise changed.
    """

    count: int
    mean: np.ndarray
    norms: np.ndarray
    dtype: np.dtype


def layerwise_sensitivities(
    apply_with_intermediates: Callable[[Any], Any],
    images: Shaped[ArrayLike, "..."],
    deformed: Shaped[ArrayLike, "..."],
    noisy: Shaped[ArrayLike, "..."],
    *,
    reduce: str = "mean",
    batch_size: int | None = None,
    jit: bool = True,
) -> OrderedDict[str, Sensitivity]:
    """`sensitivities` of all representations of a network, by name and in its order.

    For a model of this library, the three sets as `probe_images` makes them:

        f = functools.partial(models.apply_with_intermediates, model, variables)
        layerwise_sensitivities(f, *probe_images(key, images), batch_size=125)

    With "mean", batches leave sums behind and no features; the result does not depend on their
    size. "median" needs the features of all images at once, in the memory of the host: three times
    N numbers for each number a layer has for one image.

    Args:
      apply_with_intermediates: from a batch of images to (output, {name: features}), to
        {name: features}, or to features, which are then called "output"; features are (B, ...).
        If it is a `functools.partial`, it is compiled once for all arrays in its place: a network
        before and after training shares a program.
      images: (N, ...), N >= 2.
      deformed: the same images deformed, of the same shape.
      noisy: the same images with noise, of the same shape.
      reduce: "mean" or "median", see `sensitivities`.
      batch_size: images a call; None is all N. Of a function that mixes the images of a batch, as
        batch norm does with batch statistics, it changes the features; take None.
      jit: compile the function. False calls it as it is, with NumPy arrays, as one that is not
        written in JAX needs.

    Returns:
      One `Sensitivity` a name. Where nothing moves, D or G may be of the size of squared rounding
      instead of 0: inside one program, features of equal images need not agree in the last bit.

    Raises:
      ValueError: if there are fewer than two images, the sets differ in shape, an option is
        unknown or out of range, the function returns something else or another number of images,
        features are not finite, or a layer's are the same for all images.

    Source: Tomasini et al. 2022 (arXiv 2210.01506), section 3.
    """
    check_choice("reduce", reduce, REDUCTIONS)
    sets = [np.asarray(array) for array in (images, deformed, noisy)]
    count = _check_sets(sets)
    size = _as_batch_size(batch_size, count)
    summarise = {"mean": _mean_summary, "median": _features_alone}[reduce]
    run = (_compiled if jit else _eager)(apply_with_intermediates, summarise)
    results = ((kept, run(batch, weights)) for batch, weights, kept in _batches(sets, size, jit))
    return {"mean": _finish_means, "median": _finish_medians}[reduce](results)


def _check_sets(sets: list[np.ndarray]) -> int:
    shapes = [array.shape for array in sets]
    if len(set(shapes)) > 1 or not shapes[0]:
        listed = ", ".join(f"{name} {shape}" for name, shape in zip(SETS, shapes, strict=True))
        raise ValueError(
            f"the three sets must have one shape (N, ...), of the same images in the same order; "
            f"got {listed}"
        )
    if len(sets[0]) < 2:
        raise ValueError(
            f"{len(sets[0])} image(s) have no distances between them to compare with; give at "
            "least two, the papers take 500"
        )
    return len(sets[0])


def _as_batch_size(batch_size: int | None, count: int) -> int:
    if batch_size is None:
        return count
    check_integer("batch_size", batch_size, 1, "None takes all images at once")
    return min(int(batch_size), count)


def _batches(sets: list[np.ndarray], size: int, pad: bool) -> Iterator[tuple]:
    """Batches of the three sets, weights that average over their images, and how many count.

    If `pad`, all have one size and thus one program: the last image is repeated at weight 0.
    """
    count = len(sets[0])
    for start in range(0, count, size):
        kept = min(size, count - start)
        rows = np.arange(start, start + (size if pad else kept))
        weights = (rows < count) / kept
        yield [array[np.minimum(rows, count - 1)] for array in sets], weights, kept


def _named(result: Any, count: int) -> OrderedDict[str, Any]:
    """Features by name, of what a function returned for `count` images."""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
        result = result[1]
    layers = OrderedDict(result if isinstance(result, Mapping) else {OUTPUT: result})
    if not layers:
        raise ValueError("the function returned no features; it must name at least one layer")
    for name, features in layers.items():
        shape = getattr(features, "shape", None)
        if shape is None:
            raise ValueError(
                f"layer {name!r} is {type(features).__name__}, not an array; the function must "
                "return (output, {name: features}), {name: features} or features"
            )
        if not shape or shape[0] != count:
            raise ValueError(
                f"layer {name!r} has shape {tuple(shape)} for {count} images; features need a "
                "leading axis with one entry an image: transpose them, or leave the layer out"
            )
    return layers


def _mean_summary(features, deformed, noisy, weights):
    """First image, mean relative to it, and squared norms of each image, (3, B)."""
    first = features[:1]
    relative = features - first
    mean = jnp.dot(weights.astype(features.dtype), relative, precision="highest")
    changes = (relative - mean[None], deformed - features, noisy - features)
    return first[0], mean, jnp.stack([jnp.square(change).sum(1) for change in changes])


def _features_alone(features, deformed, noisy, weights):
    return features, deformed, noisy


def _summaries(sets: list[OrderedDict], weights: Array, summarise: Callable) -> OrderedDict:
    """What remains of the features of a batch in the three sets, by name."""
    summaries = OrderedDict()
    for name in sets[0]:
        rows = [as_floats(layers[name]).reshape(len(weights), -1) for layers in sets]
        summaries[name] = summarise(*rows, weights)
    return summaries


def _build(summarise: Callable, frame: parallel.Frame) -> Callable:
    """A compiled (arrays, batch, weights) -> summaries of the function of a frame."""

    def run(arrays, batch, weights):
        fn = parallel.put_arrays(frame, arrays)
        # Three calls take hardly longer to compile than one on all images together, and a layer's
        # features can go as soon as the three are compared.
        sets = [_named(fn(images), len(images)) for images in batch]
        return _summaries(sets, weights, summarise)

    return parallel.fast_jit(run)


_build_once = functools.lru_cache(maxsize=8)(_build)


def _compiled(fn: Callable, summarise: Callable) -> Callable:
    """A function (batch, weights) -> summaries by name, in one program."""
    frame, arrays = parallel.take_arrays(fn)
    build = _build_once if frame.is_key else _build
    return functools.partial(build(summarise, frame), arrays)


def _eager(fn: Callable, summarise: Callable) -> Callable:
    """The same of a function that is called as it is."""
    compiled = jax.jit(functools.partial(_summaries, summarise=summarise))

    def run(batch, weights):
        sets = [_named(fn(images), len(images)) for images in batch]
        for layers in sets:
            for name, features in layers.items():
                layers[name] = features if isinstance(features, Array) else np.asarray(features)
        return compiled(sets, weights)

    return run


def _check_norms(name: str, norms: np.ndarray) -> None:
    """ValueError if some of the norms (3, B) that `_mean_summary` found are not finite."""
    bad = ~np.isfinite(norms)
    if not bad.any():
        return
    # One bad image spoils the mean and with it all norms of the first kind, but only its own ones
    # of the others.
    culprits = [bad.all(0), bad[1], bad[2], bad[0]]
    which = next(index for index, rows in enumerate(culprits) if rows.any())
    raise ValueError(
        f"layer {name!r}: the features of {culprits[which].sum()} of {norms.shape[1]} "
        f"{(*SETS, SETS[0])[which]} are NaN or infinite, or overflow when they are squared; look "
        "at the images and at the network that made them"
    )


def _add(name: str, sums: _Sums | None, kept: int, summary: tuple) -> _Sums:
    """Sums with one more batch, whose mean is merged by its distance to the one so far."""
    first, relative, norms = (np.asarray(part) for part in summary)
    dtype, norms = norms.dtype, norms[:, :kept].astype(np.float64)
    _check_norms(name, norms)
    mean = first.astype(np.float64) + relative
    if sums is None:
        return _Sums(kept, mean, norms.sum(1), dtype)
    total = sums.count + kept
    step = mean - sums.mean
    between = np.array([step @ step * (sums.count * kept / total), 0, 0])
    return _Sums(
        total, sums.mean + step * (kept / total), sums.norms + norms.sum(1) + between, dtype
    )


def _finish_means(results: Iterator[tuple]) -> OrderedDict[str, Sensitivity]:
    layers: OrderedDict[str, _Sums] = OrderedDict()
    for kept, summaries in results:
        for name, summary in summaries.items():
            layers[name] = _add(name, layers.get(name), kept, summary)
    return OrderedDict((name, _of_sums(name, sums)) for name, sums in layers.items())


def _of_sums(name: str, sums: _Sums) -> Sensitivity:
    spread, deformed, noisy = (
        jnp.asarray(total / sums.count, sums.dtype) for total in sums.norms * [2, 1, 1]
    )
    fault = denominator_fault(spread, "mean", sums.count)
    if fault:
        raise ValueError(f"layer {name!r}: the features {fault}")
    return ratios(spread, deformed, noisy)


def _finish_medians(results: Iterator[tuple]) -> OrderedDict[str, Sensitivity]:
    batches: OrderedDict[str, list] = OrderedDict()
    for kept, summaries in results:
        for name, features in summaries.items():
            # On the host, because not all layers fit the memory of an accelerator.
            batches.setdefault(name, []).append([np.asarray(part)[:kept] for part in features])
    done = OrderedDict()
    for name in list(batches):
        features = [np.concatenate(parts) for parts in zip(*batches.pop(name), strict=True)]
        try:
            done[name] = sensitivities(*features, reduce="median")
        except ValueError as error:
            raise ValueError(f"layer {name!r}: {error}") from error
    return done
