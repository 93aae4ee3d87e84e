"""What a model is made of, found by shape inference alone: nothing is computed or compiled."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from recon_jax.models.checks import as_image_shape
from recon_jax.models.intermediates import apply_with_intermediates


def _abstract(model: nn.Module, image_shape: Sequence[int]):
    images = jax.ShapeDtypeStruct((1, *as_image_shape(image_shape)), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(model.init, key, images), images


def variable_shapes(model: nn.Module, image_shape: Sequence[int]) -> PyTree:
    """The variables of a model, with `jax.ShapeDtypeStruct` in place of arrays.

    Args:
      model: one of this package.
      image_shape: (H, W, C).

    Raises:
      ValueError: if the images do not fit the model.
    """
    return _abstract(model, image_shape)[0]


def parameter_count(model: nn.Module, image_shape: Sequence[int]) -> int:
    """Number of trained parameters; the running statistics of batch norm do not count.

    Args:
      model: one of this package.
      image_shape: (H, W, C).

    Raises:
      ValueError: if the images do not fit the model.
    """
    leaves = jax.tree.leaves(variable_shapes(model, image_shape)["params"])
    return sum(math.prod(leaf.shape) for leaf in leaves)


def layer_shapes(model: nn.Module, image_shape: Sequence[int]) -> OrderedDict[str, tuple[int, ...]]:
    """Shapes of all intermediate representations of one image, without the batch axis.

    Args:
      model: one of this package.
      image_shape: (H, W, C).

    Returns:
      A dict from the names of `apply_with_intermediates`, in its order, to shapes.

    Raises:
      ValueError: if the images do not fit the model.
    """
    variables, images = _abstract(model, image_shape)
    layers = jax.eval_shape(
        lambda variables, images: apply_with_intermediates(model, variables, images)[1],
        variables,
        images,
    )
    return OrderedDict((name, layer.shape[1:]) for name, layer in layers.items())
