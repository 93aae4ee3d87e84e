"""Entries of published weights: which must be there, what is wrong with them, ours made of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import PyTree

from recon_jax.models.published_layouts import BLOCK, Layout, from_published, published_shape
from recon_jax.models.shapes import variable_shapes

LISTED = 12  # names in a message


class ReadEncoder(NamedTuple):
    """What the entries of a published encoder are, its head aside.

    Attributes:
      family: "resnet" or "vit".
      module: images (N, H, W, C) -> features (N, D).
      variables: of the module, float32.
      dimension: D.
      channels: C.
      notes: what whoever uses it should know, in sentences.
    """

    family: str
    module: nn.Module
    variables: PyTree
    dimension: int
    channels: int
    notes: tuple[str, ...]


def _listed(title: str, names: list[str]) -> str:
    more = f", ... and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"\n  {title} ({len(names)}): {', '.join(names[:LISTED])}{more}"


def refuse(what: str, faults: Mapping[str, list[str]], way_out: str) -> None:
    """Raise ValueError, with the names of each kind of fault, if there are faults."""
    if any(faults.values()):
        lists = (_listed(title, sorted(names)) for title, names in faults.items() if names)
        raise ValueError(f"the weights are not those of {what}:{''.join(lists)}\n{way_out}")


def entry_faults(
    weights: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, list[str]]:
    """Which entries are missing, unexpected, of another shape or not finite.

    Args:
      weights: arrays by name.
      expected: the shape of every entry.
    """
    present = set(expected) & set(weights)
    misshapen = {name for name in present if weights[name].shape != expected[name]}
    return {
        "missing": list(set(expected) - set(weights)),
        "unexpected": list(set(weights) - set(expected)),
        "misshapen": [f"{n} {weights[n].shape}, not {expected[n]}" for n in misshapen],
        "not finite": [n for n in present - misshapen if not np.isfinite(weights[n]).all()],
    }


def shape_of(
    weights: Mapping[str, np.ndarray], name: str, rank: int, faults: dict[str, list[str]]
) -> tuple[int, ...]:
    """The shape of an entry; ones, and an entry of `faults`, if it is missing or not of `rank`."""
    if name not in weights:
        faults["missing"].append(name)
    elif weights[name].ndim != rank or 0 in weights[name].shape:
        faults["misshapen"].append(f"{name} {weights[name].shape}, not of {rank} axes")
    else:
        return weights[name].shape
    return (1,) * rank


@functools.lru_cache(maxsize=8)
def leaves_of(
    model: nn.Module, halves: tuple[str, ...]
) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
    """Path, number of stacked blocks (0 outside of them) and shape in one block of parameters."""
    shapes = variable_shapes(model, model.image_shape)["params"]
    flat = flatten_dict({half: shapes[half] for half in halves}, sep="/")
    inside = {path: BLOCK in path for path in flat}
    return tuple(
        (path, leaf.shape[0] if inside[path] else 0, leaf.shape[inside[path] :])
        for path, leaf in flat.items()
    )


def transformer_shapes(
    model: nn.Module, layout: Layout, halves: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """The shape of every entry of a transformer with fixed positions, except of the positions."""
    shapes = {}
    for path, blocks, shape in leaves_of(model, halves):
        first, *rest = published_shape(path, shape, model.patch_size)
        for layer in range(max(1, blocks)):
            names = layout.names(path, layer)
            shapes.update(dict.fromkeys(names, (first // len(names), *rest)))
    return shapes


def transformer_params(
    weights: Mapping[str, np.ndarray], model: nn.Module, layout: Layout, halves: tuple[str, ...]
) -> PyTree:
    """The float32 parameters of a transformer with fixed positions from its entries."""

    def value(path, layer=0):
        parts = [weights[name] for name in layout.names(path, layer)]
        return from_published(path, np.concatenate(parts).astype(np.float32))

    params = {}
    for path, blocks, _ in leaves_of(model, halves):
        layers = [value(path, layer) for layer in range(max(1, blocks))]
        params[path] = jnp.asarray(np.stack(layers) if blocks else layers[0])
    return unflatten_dict(params, sep="/")
