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


def _without_dropout(next_method, args, kwargs, context):
    """Interceptor of Flax methods: dropout hands on what it is given."""
    if isinstance(context.module, nn.Dropout) and context.method_name == "__call__":
        return args[0] if args else kwargs["inputs"]
    return next_method(*args, **kwargs)


def apply_with_intermediates(
    model: nn.Module, variables: PyTree, images: ArrayLike, *, batch_statistics: bool = False
) -> tuple[PyTree, OrderedDict[str, Array]]:
    """The output of a model in evaluation mode, and all representations on the way to it.

    Runs eagerly and under jit (`jax.jit(partial(apply_with_intermediates, model))`).

    Args:
      model: one of this package.
      variables: {"params": ..., "batch_stats": ...} as `model.init` returns them.
      images: (N, H, W, C) in the range the model was trained on.
      batch_statistics: True normalises by the mean and variance of these images, as in training,
        for networks whose running statistics mean nothing yet; the variables stay as they are and
        dropout is off. What an image gives then depends on the others.

    Returns:
      The output, exactly `model.apply(variables, images, train=False)` without batch statistics,
      and a dict from name to representation, (N, H', W', C') or (N, D), in the order of computation
      from input to output. The name is the path of the layer, such as "block1/conv1"; a layer
      counts with its batch norm and ReLU. The last entry is "logits", or "reconstruction" of an
      autoencoder. It is an OrderedDict, because jit would sort the keys of a plain dict.

    Raises:
      ValueError: if the images do not fit the model.
    """
    if batch_statistics:
        # The new running statistics are thrown away.
        with nn.intercept_methods(_without_dropout):
            output, state = model.apply(
                variables, images, train=True, mutable=[COLLECTION, "batch_stats"]
            )
    else:
        output, state = model.apply(variables, images, train=False, mutable=[COLLECTION])
    return output, OrderedDict(_flatten(state[COLLECTION]))
