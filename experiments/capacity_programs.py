"""The programs that are sized: one step of each job on one device, and the types it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from recon_jax import data, models, parallel, sizing, spectral, training


class Network(NamedTuple):
    """A network and how it is trained.

    Attributes:
      name: for tables.
      model: the Flax module.
      loss: (model, axis_name=) -> loss for `training.make_train_step`.
      optimizer: of the step.
      image_shape: (H, W, C).
    """

    name: str
    model: Any
    loss: Callable[..., Any]
    optimizer: optax.GradientTransformation
    image_shape: tuple[int, int, int]


def resnet50(options: ConfigDict) -> Network:
    """The classifier with the usual recipe: SGD with momentum and weight decay."""
    model = models.ResNet(
        options.depth, options.num_classes, stem="imagenet", dtype=jnp.dtype(options.dtype)
    )
    optimizer = training.make_optimizer("sgd", 0.4, momentum=0.9, weight_decay=1e-4)
    shape = (options.image_size, options.image_size, 3)
    return Network(f"ResNet{options.depth}", model, training.classification_loss, optimizer, shape)


def masked_autoencoder(options: ConfigDict) -> Network:
    """The masked autoencoder with AdamW, as in He et al. 2022."""
    shape = (options.image_size, options.image_size, 3)
    model = models.MaskedAutoencoder(
        shape,
        patch_size=options.patch_size,
        width=options.width,
        depth=options.depth,
        heads=options.heads,
        decoder_depth=options.decoder_depth,
        dtype=jnp.dtype(options.dtype),
    )
    mask = spectral.patch_subset(options.mask_ratio, options.patch_size, shape)
    loss = partial(training.masked_autoencoder_loss, corruption=mask)
    optimizer = training.make_optimizer("adamw", 2.4e-3, weight_decay=0.05, b2=0.95)
    return Network(options.name, model, loss, optimizer, shape)


NETWORKS = {"resnet50": resnet50, "mae": masked_autoencoder}


def train_step(network: Network, axis_name: str | None = None) -> Callable[..., Any]:
    """The step (state, batch) -> (state, metrics) that experiments compile."""
    model = network.model
    if axis_name is not None and hasattr(model, "axis_name"):
        model = model.clone(axis_name=axis_name)
    return training.make_train_step(
        network.loss(model, axis_name=axis_name), network.optimizer, axis_name=axis_name
    )


def state_types(network: Network) -> training.TrainState:
    """Types of the state at step 0."""
    variables = models.variable_shapes(network.model, network.image_shape)
    return jax.eval_shape(partial(_init_state, network), variables, _key_type())


def random_state(network: Network) -> training.TrainState:
    """A state of random parameters, drawn by NumPy: initialisers take long to compile."""
    variables = models.variable_shapes(network.model, network.image_shape)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(0.02 * rng.standard_normal(leaf.shape), leaf.dtype), variables
    )
    stats = variables.get("batch_stats", {})
    variables = {**variables, "batch_stats": jax.tree.map(jnp.ones_like, stats)}
    return _init_state(network, variables, jax.random.key(0))


def _key_type() -> jax.ShapeDtypeStruct:
    return jax.eval_shape(lambda: jax.random.key(0))


def _init_state(network: Network, variables: Any, key: Any) -> training.TrainState:
    return training.init_state(
        variables["params"], network.optimizer, key=key, batch_stats=variables.get("batch_stats")
    )


def batch_types(network: Network, size: int) -> data.Batch:
    """Types of a batch of 8-bit images."""
    return data.Batch(
        jax.ShapeDtypeStruct((size, *network.image_shape), jnp.uint8),
        jax.ShapeDtypeStruct((size,), jnp.int32),
        jax.ShapeDtypeStruct((size,), jnp.bool_),
    )


def random_batch(network: Network, size: int) -> data.Batch:
    """A batch of noise: what the pixels are does not change the time."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, *network.image_shape), np.uint8)
    return data.Batch(pixels, np.zeros(size, np.int32), np.ones(size, bool))


def saved_for_gradient(network: Network, size: int) -> int:
    """Bytes of activations that a step on `size` images keeps, see `sizing.saved_bytes`."""
    state = state_types(network)
    loss = network.loss(network.model)
    return sizing.saved_bytes(
        loss, state.params, state.batch_stats, batch_types(network, size), state.key
    )


def whole_moments_step(moments: spectral.Moments, images: Any, labels: Any) -> spectral.Moments:
    """One batch into statistics that each device keeps whole."""
    return spectral.update_moments(moments, images, labels)


def sharded_scatter_step(block: Any, images: Any, first: Any) -> Any:
    """One batch of 8-bit images (B, D) into rows first, first + 1, ... of a scatter about 128.

    block (D / n, D) <- block + X[:, rows]^T X: every device sees the whole batch and keeps D / n
    rows, so nothing but images travels.
    """
    rows = images.astype(block.dtype) - 128
    own = jax.lax.dynamic_slice_in_dim(rows, first, block.shape[0], axis=1)
    return block + jnp.matmul(own.T, rows, precision="highest")


def moments_types(side: int, num_classes: int, batch: int) -> tuple[Any, Any, Any]:
    """Types of the arguments of `whole_moments_step`."""
    size = 3 * side**2
    state = jax.eval_shape(partial(spectral.init_moments, size, num_classes, jnp.float32))
    images = jax.ShapeDtypeStruct((batch, size), jnp.uint8)
    return state, images, jax.ShapeDtypeStruct((batch,), jnp.int32)


def scatter_types(side: int, count: int, batch: int) -> tuple[Any, Any, Any]:
    """Types of the arguments of `sharded_scatter_step`; ValueError if rows do not divide."""
    size = 3 * side**2
    if size % count:
        raise ValueError(
            f"the {size} rows of the scatter of {side} x {side} images do not divide over {count} "
            "devices; change moments.sharded_side"
        )
    return (
        jax.ShapeDtypeStruct((size // count, size), jnp.float32),
        jax.ShapeDtypeStruct((batch, size), jnp.uint8),
        jax.ShapeDtypeStruct((), jnp.int32),
    )


def compiled_collectives(
    networks: Mapping[str, ConfigDict], count: int
) -> dict[str, list[sizing.Collective]]:
    """Collectives of compiled steps on `count` simulated devices, by the names of `NETWORKS`.

    Runs in a process of its own, because the number of devices is fixed at first use. Images are
    small: gradients do not depend on their size, and neither do batch statistics.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", count)
    found = {}
    for kind, options in networks.items():
        options = options.copy_and_resolve_references()
        options.image_size = 2 * options.get("patch_size", 16)
        network = NETWORKS[kind](options)
        mapped = parallel.device_map(train_step(network, parallel.AXIS), (None, 0), None)
        # Compiling takes all the time here, and collectives are not for the optimiser to change.
        quick = {"xla_backend_optimization_level": 0}
        lowered = jax.jit(mapped, compiler_options=quick).lower(
            state_types(network), batch_types(network, count)
        )
        found[kind] = sizing.find_collectives(lowered.compile().as_text(), count)
    return found
