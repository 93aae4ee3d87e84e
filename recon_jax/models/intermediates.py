"""Every intermediate representation of a model, by name, from the path the model always takes.

A layer that computes a representation records it with Flax's `sow`, which does nothing unless the
collection is asked for; so training, inference and inspection run the same code, and XLA removes
what a jitted caller does not use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

import flax.linen as nn
from jaxtyping import Array, ArrayLike, PyTree

COLLECTION = "intermediates"
# The entry that holds what a module returns: it is named by the path of the module alone.
OUTPUT = "output"


def record(module: nn.Module, value: Array, name: str = OUTPUT) -> Array:
    """Offer `value` as an intermediate representation of `module`, and return it."""
    # The plain value, not Flax's tuple of all calls: no layer here is called twice.
    module.sow(COLLECTION, name, value, init_fn=lambda: None, reduce_fn=lambda _, new: new)
    return value


def _flatten(tree: Mapping, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, Array]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, (*prefix, key))
        else:
            yield "/".join(prefix if key == OUTPUT else (*prefix, key)), value


def apply_with_intermediates(
    model: nn.Module, variables: PyTree, images: ArrayLike
) -> tuple[PyTree, OrderedDict[str, Array]]:
    """The output of a model in evaluation mode, and all representations on the way to it.

    Runs eagerly and under jit (`jax.jit(partial(apply_with_intermediates, model))`).

    Args:
      model: one of this package.
      variables: {"params": ..., "batch_stats": ...} as `model.init` returns them.
      images: (N, H, W, C) in the range the model was trained on.

    Returns:
      The output, exactly `model.apply(variables, images, train=False)`, and a dict from name to
      representation, (N, H', W', C') or (N, D), in the order of computation from input to output.
      The name is the path of the layer, such as "block1/conv1"; a layer counts with its batch norm
      and ReLU. The last entry is "logits", or "reconstruction" of an autoencoder. It is an
      OrderedDict, because jit would sort the keys of a plain dict.

    Raises:
      ValueError: if the images do not fit the model.
    """
    output, state = model.apply(variables, images, train=False, mutable=[COLLECTION])
    return output, OrderedDict(_flatten(state[COLLECTION]))
