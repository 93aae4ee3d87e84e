"""A tiny classifier with batch statistics, dropout-like noise and padding, for the tests."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from recon_jax.data import Batch
from recon_jax.training import example_keys, init_state


class MLP(nn.Module):
    """Two layers; with `norm`, batch normalisation between them, over `axis_name` if given."""

    norm: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(8)(x.reshape(x.shape[0], -1))
        if self.norm:
            axis_name = None if self.is_initializing() else self.axis_name
            x = nn.BatchNorm(use_running_average=False, momentum=0.9, axis_name=axis_name)(x)
        return nn.Dense(3)(jnp.tanh(x))


def make_loss(norm=False, noise=0.0, axis_name=None, sync=False):
    model = MLP(norm, axis_name if sync else None)

    def loss_fn(params, batch_stats, batch, key):
        images = jnp.asarray(batch.images)
        if noise:
            keys = example_keys(key, images.shape[0], axis_name)
            draw = jax.vmap(lambda k: jax.random.normal(k, images.shape[1:], images.dtype))
            images = images + noise * draw(keys)
        variables = {"params": params, "batch_stats": batch_stats}
        logits, new = model.apply(variables, images, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(batch.labels))
        weight = jnp.asarray(batch.mask, losses.dtype)
        count = weight.sum()
        correct = (logits.argmax(-1) == batch.labels) * weight
        metrics = {"accuracy": (correct.sum(), count)}
        return (losses * weight).sum() / count, (new.get("batch_stats", {}), metrics)

    return loss_fn


def make_batch(step=0, rows=16, padded=0, seed=0):
    rng = np.random.default_rng([seed, step])
    images = rng.standard_normal((rows, 2, 2, 1)).astype(np.float32)
    labels = rng.integers(0, 3, rows).astype(np.int32)
    images[labels == 1] += 1
    mask = np.arange(rows) < rows - padded
    images[~mask], labels[~mask] = 0, 0
    return Batch(images, labels, mask)


@functools.cache
def compiled_init(norm):
    return jax.jit(MLP(norm).init)


def make_state(optimizer, norm=False, ema=False, seed=0):
    key = jax.random.key(seed)
    variables = compiled_init(norm)(key, jnp.zeros((1, 2, 2, 1), jnp.float32))
    stats = variables.get("batch_stats", {})
    return init_state(variables["params"], optimizer, key=key, batch_stats=stats, ema=ema)
