"""From a pretrained ViT encoder to a classifier: its start, rates that fall with depth, freezing.

A linear probe trains the head alone, fine-tuning all parameters, the early layers more slowly:

start = start_from(classifier.init(key, images), mae_params["encoder"])
probe = freeze(make_optimizer("lars", schedule, momentum=0.9))
finetune = make_optimizer("adamw", schedule, weight_decay=0.05, layer_decay=0.75, b2=0.999)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from recon_jax.training.state import leaf_name

# The path of a leaf that holds one slice for each block of an encoder.
STACK = ("encoder", "blocks", "block")


def _names(path: tuple) -> tuple[str, ...]:
    return tuple(leaf_name((part,)) for part in path)


def is_stacked(path: tuple) -> bool:
    """Whether a leaf holds one slice for each of several equal blocks, along its first axis.

    The transformers of this package run their blocks as one scanned module, always called "block",
    in one called "blocks"; every leaf below has the blocks as a first axis that it would not have
    in a single layer. No other module has that pair of names.

    Args:
      path: of the leaf, as `jax.tree_util.tree_map_with_path` gives it.
    """
    names = _names(path)
    return ("blocks", "block") in itertools.pairwise(names)


def check_layer_decay(decay: float) -> None:
    """Raise ValueError unless 0 < decay <= 1."""
    if not 0 < decay <= 1:
        raise ValueError(
            f"layer_decay={decay} must lie in (0, 1], such as 0.75; 1 or None gives all layers "
            "the same rate"
        )


def _depth(params: Any) -> int:
    """Number of blocks of the encoder."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    depths = {leaf.shape[0] for path, leaf in paths if _names(path)[:3] == STACK}
    if len(depths) != 1:
        found = f"are stacked {sorted(depths)} deep" if depths else "are missing"
        raise ValueError(
            f"layer_decay needs the stacked blocks of a ViT encoder, but parameters under "
            f"{'.'.join(STACK)} {found}; use layer_decay=None for other models"
        )
    return depths.pop()


def layer_scales(params: Any, decay: float) -> Any:
    """Factors of the learning rate that fall from the head of a ViT down to its patches.

    decay^(depth + 1 - id), where the embedding of the patches and the class token have id 0, block
    i = 1 .. depth of the encoder has id i, and all the rest, the encoder's last norm and the head,
    has id depth + 1 and so the factor 1.

    Args:
      params: of a model with a `ViTEncoder` called "encoder".
      decay: in (0, 1].

    Returns:
      A tree like `params`, of NumPy arrays that broadcast against its leaves, in their dtypes: of
      shape (1, ..., 1), or (depth, 1, ..., 1) where the blocks are stacked.

    Raises:
      ValueError: for a decay out of range, or parameters without such an encoder.

    Source: Clark et al. 2020 (arXiv 2003.10555), Bao et al. 2022 (arXiv 2106.08254); the groups
    are those of He et al. 2022 (arXiv 2111.06377), released code.
    """
    check_layer_decay(decay)
    depth = _depth(params)
    blocks = decay ** np.arange(depth, 0, -1)

    def scale(path, leaf):
        names = _names(path)
        if names[:3] == STACK:
            return blocks.astype(leaf.dtype).reshape(depth, *(1,) * (leaf.ndim - 1))
        first = names[:2] in (("encoder", "embed"), ("encoder", "class_token"))
        factor = decay ** (depth + 1) if first else 1.0
        return np.full((1,) * leaf.ndim, factor, leaf.dtype)

    return jax.tree_util.tree_map_with_path(scale, params)


def scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Multiply updates by `layer_scales`: as the last link of a chain, it scales the learning rate.

    There it acts on AdamW's weight decay too, as a rate of the layer's own does.

    Args:
      decay: in (0, 1].

    Raises:
      ValueError: for a decay out of range; at `init`, if the parameters have no stacked encoder.
    """
    check_layer_decay(decay)

    def init(params):
        layer_scales(params, decay)  # for its errors
        return optax.EmptyState()

    def update(updates, state, params=None):
        del params
        return jax.tree.map(jnp.multiply, updates, layer_scales(updates, decay)), state

    return optax.GradientTransformation(init, update)


def freeze(
    optimizer: optax.GradientTransformation, names: Sequence[str] = ("encoder",)
) -> optax.GradientTransformation:
    """The optimizer for all parameters but those below some names, which stay as they are.

    For these it keeps no moments and decays no weights. It does not spare their gradients: see
    `frozen` of `models.ViTClassifier`.

    Args:
      optimizer: see `make_optimizer`.
      names: of the frozen parts, keys of the parameters.

    Raises:
      ValueError: at `init`, if the parameters have no such part, or no other.
    """

    def labels(params):
        unknown = [name for name in names if name not in params]
        if unknown or not set(params) - set(names):
            raise ValueError(
                f"cannot freeze {', '.join(unknown or names)} of parameters with the parts "
                f"{', '.join(params)}; choose some of these, not all"
            )
        return {name: "frozen" if name in names else "trained" for name in params}

    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)


def start_from(variables: Mapping[str, Any], encoder_params: Any) -> dict[str, Any]:
    """The variables of a classifier, with a pretrained encoder in place of its own.

    Args:
      variables: {"params": {"encoder": ..., ...}, ...} as `init` of a `ViTClassifier` returns them.
      encoder_params: such as params["encoder"] of a `MaskedAutoencoder` of the same width and
        depth. Positions are computed, not stored, so the images may be of another size.

    Returns:
      New variables; those given are not changed.

    Raises:
      ValueError: naming every parameter that is missing, left over, or of another shape.
    """
    own = variables["params"]["encoder"]
    _check_same_leaves(own, encoder_params)
    encoder = jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), own, encoder_params)
    return {**variables, "params": {**variables["params"], "encoder": encoder}}


def _check_same_leaves(wanted: Any, given: Any) -> None:
    def shapes(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {leaf_name(path): jnp.shape(leaf) for path, leaf in leaves}

    wanted, given = shapes(wanted), shapes(given)
    both = [name for name in wanted if name in given and given[name] != wanted[name]]
    faults = {
        "missing": [name for name in wanted if name not in given],
        "left over": [name for name in given if name not in wanted],
        "of another shape": [f"{name} {given[name]}, not {wanted[name]}" for name in both],
    }
    found = "; ".join(f"{what}: {', '.join(names)}" for what, names in faults.items() if names)
    if found:
        raise ValueError(
            f"encoder_params do not fit the classifier's encoder ({found}); build the classifier "
            "with the width, depth and patch_size of the pretrained encoder, and pass "
            'params["encoder"]'
        )
