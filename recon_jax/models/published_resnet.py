"""Residual networks as torchvision and timm name their parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from recon_jax.models.feature_encoders import ResNetEncoder
from recon_jax.models.published_entries import ReadEncoder, entry_faults, refuse, shape_of
from recon_jax.models.resnet import BLOCKS, BOTTLENECKS, PUBLISHED_WIDTH, WIDTHS
from recon_jax.models.shapes import variable_shapes

KERNEL = "conv1.weight"
HEAD = "fc"
STEMS = {7: "imagenet", 3: "cifar"}  # by the side of the first kernel
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_WAY_OUT = (
    "those of 18, 34 or 50 layers as torchvision and timm have them can be read; strip what the "
    "names have in front of that, and leave out other parts, in a dict of models.read_weights"
)


def _blocks(weights: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """How many blocks the names have in each of four stages."""
    counts = [0, 0, 0, 0]
    for name in weights:
        if match := re.match(r"layer([1-4])\.([0-9]+)\.", name):
            stage = int(match[1]) - 1
            counts[stage] = max(counts[stage], int(match[2]) + 1)
    return tuple(counts)


def _module(weights: Mapping[str, np.ndarray]) -> tuple[ResNetEncoder, int]:
    """The network of these weights and its channels; ValueError if it is none of ours."""
    faults = {"missing": [], "misshapen": []}
    width, channels, *sides = shape_of(weights, KERNEL, 4, faults)
    if not any(faults.values()) and sides not in ([side, side] for side in STEMS):
        faults["misshapen"].append(f"{KERNEL} {weights[KERNEL].shape}, not of 7 x 7 or 3 x 3")
    refuse("a residual network", faults, _WAY_OUT)
    form, blocks = "layer1.0.conv3.weight" in weights, _blocks(weights)
    depths = [d for d in BLOCKS if BLOCKS[d] == blocks and (d in BOTTLENECKS) == form]
    if not depths:
        raise ValueError(
            f"a residual network of {blocks} {'bottleneck' if form else 'basic'} blocks is none of "
            f"the known ones; {_WAY_OUT}"
        )
    return ResNetEncoder(depths[0], STEMS[sides[0]], width), channels


def published_name(path: str) -> str:
    """The name of the entry at our path, such as "params/stage2_block1/conv1/norm/scale"."""
    _, *modules, kind, leaf = path.split("/")
    conv = kind == "conv"
    if modules == ["stem"]:
        module = "conv1" if conv else "bn1"
    else:
        stage, block = re.fullmatch(r"stage(\d)_block(\d+)", modules[0]).groups()
        inner = modules[1] if conv else modules[1].replace("conv", "bn")
        if inner == "shortcut":
            inner = f"downsample.{0 if conv else 1}"
        module = f"layer{stage}.{int(block) - 1}.{inner}"
    return f"{module}.{_LEAVES.get(leaf, leaf)}"


def _published_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Kernels are (height, width, inputs, outputs) here, (outputs, inputs, height, width) there."""
    return (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape


def read_resnet(weights: Mapping[str, np.ndarray]) -> ReadEncoder:
    """A residual network without its head from the entries of one, all of which it must need.

    Counts of batches (num_batches_tracked) say nothing of the network and are left out.

    Args:
      weights: float32 arrays by name, without the head.

    Raises:
      ValueError: if the network is none of ours, or entries are missing, unexpected, misshapen or
        not finite, all listed by name.

    Source: He et al. 2016 (arXiv 1512.03385).
    """
    weights = {n: w for n, w in weights.items() if not n.endswith("num_batches_tracked")}
    module, channels = _module(weights)
    shapes = flatten_dict(variable_shapes(module, (32, 32, channels)), sep="/")
    expected = {published_name(path): _published_shape(s.shape) for path, s in shapes.items()}
    refuse(
        f"a residual network of {module.depth} layers", entry_faults(weights, expected), _WAY_OUT
    )

    def value(path):
        array = weights[published_name(path)].astype(np.float32)
        return jnp.asarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array)

    notes = ()
    if module.stem == "cifar":
        notes = (
            "the first kernel is 3 x 3: it is taken to have stride 1 and no pooling behind it, "
            "which weights do not tell",
        )
    variables = unflatten_dict({path: value(path) for path in shapes}, sep="/")
    dimension = WIDTHS[-1] // PUBLISHED_WIDTH * module.width
    if module.depth in BOTTLENECKS:
        dimension *= 4
    return ReadEncoder("resnet", module, variables, dimension, channels, notes)
