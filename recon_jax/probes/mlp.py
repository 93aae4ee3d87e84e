"""The MLP probe: what a small non-linear classifier reads from features."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Integer, PRNGKeyArray, UInt32

from recon_jax.checks import check_integer, check_numbers
from recon_jax.probes.checks import check_training_set
from recon_jax.probes.standardize import Standardizer, fit_standardizer, standardize


class _Network(nn.Module):
    """D - hidden - C with batch normalisation and ReLU after every hidden layer."""

    hidden: tuple[int, ...]
    num_classes: int

    @nn.compact
    def __call__(self, x, train: bool):
        for i, width in enumerate(self.hidden):
            # No bias: batch normalisation would subtract it.
            x = nn.Dense(width, use_bias=False, name=f"hidden_{i}", dtype=x.dtype)(x)
            # The fits are short; Flax's default 0.99 would still hold the initial statistics.
            x = nn.BatchNorm(not train, momentum=0.9, name=f"norm_{i}", dtype=x.dtype)(x)
            x = nn.relu(x)
        return nn.Dense(self.num_classes, name="output", dtype=x.dtype)(x)


class MLPProbe(NamedTuple):
    """Fitted MLP probe; a pytree of arrays.

    Attributes:
      standardizer: train statistics of the features.
      variables: Flax variables: "params" and "batch_stats".
    """

    standardizer: Standardizer
    variables: dict[str, Any]

    def logits(self, features: Float[ArrayLike, "n d"]) -> Float[Array, "n c"]:
        """Class scores (N, C) of raw features (N, D), with the running batch statistics."""
        params = self.variables["params"]
        hidden = tuple(
            params[f"hidden_{i}"]["kernel"].shape[1]
            for i in range(sum(name.startswith("hidden") for name in params))
        )
        network = _Network(hidden, params["output"]["bias"].shape[0])
        return network.apply(self.variables, standardize(self.standardizer, features), train=False)


def _make_step(network, optimizer, features, labels):
    def loss_of(params, batch_stats, rows):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = network.apply(
            variables, features[rows], train=True, mutable=["batch_stats"]
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels[rows]).mean()
        return loss, updated["batch_stats"]

    def step(state, rows):
        params, batch_stats, moments = state
        gradient, batch_stats = jax.grad(loss_of, has_aux=True)(params, batch_stats, rows)
        updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), batch_stats, moments), None

    return step


@partial(jax.jit, static_argnames=("num_classes", "hidden", "num_epochs", "batch_size", "batches"))
def _fit(key, features, labels, rate, decay, num_classes, hidden, num_epochs, batch_size, batches):
    network = _Network(hidden, num_classes)
    init_key, order_key = jax.random.split(key)
    variables = network.init(init_key, features[:2], train=False)
    variables = jax.tree.map(lambda leaf: leaf.astype(features.dtype), variables)
    schedule = optax.cosine_decay_schedule(1.0, num_epochs * batches)
    optimizer = optax.adamw(lambda count: rate * schedule(count), weight_decay=decay)
    step = _make_step(network, optimizer, features, labels)

    def epoch(state, number):
        # The batch of a step is a function of (key, step): step // batches picks the permutation.
        order = jax.random.permutation(jax.random.fold_in(order_key, number), len(labels))
        rows = order[: batches * batch_size].reshape(batches, batch_size)
        return jax.lax.scan(step, state, rows)

    params = variables["params"]
    state = (params, variables["batch_stats"], optimizer.init(params))
    (params, batch_stats, _), _ = jax.lax.scan(epoch, state, jnp.arange(num_epochs))
    return {"params": params, "batch_stats": batch_stats}


def mlp_probe(
    key: PRNGKeyArray | UInt32[Array, "2"],
    features: Float[ArrayLike, "n d"],
    labels: Integer[ArrayLike, " n"],
    num_classes: int,
    *,
    hidden: tuple[int, ...] = (1024, 1024),
    num_epochs: int = 50,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-3,
) -> MLPProbe:
    """Small MLP, D - 1024 - 1024 - C with batch normalisation and ReLU, on standardised features.

    Mean cross-entropy by AdamW with a cosine decay to 0, on minibatches without replacement; the
    incomplete one at the end of an epoch is dropped. The whole fit is one compiled loop, and a pure
    function of its arguments. Usable under jit with all but key, arrays, rates static.

    Args:
      key: random key, of the initial weights and of every minibatch.
      features: (N, D), float32 or float64, N >= 2.
      labels: class indices (N,) in 0 .. C - 1.
      num_classes: C, at least 2.
      hidden: widths of the hidden layers, at least one.
      num_epochs: passes over the data, at least 1.
      batch_size: at least 2, as batch normalisation asks for; all N if there are fewer.
      learning_rate: > 0, at the start.
      weight_decay: >= 0, decoupled.

    Returns:
      The MLPProbe.

    Raises:
      ValueError: if the arrays are empty, of different length, or not finite, a label is out of
        range, there is one class only, or a setting is out of range (values: outside jit).

    Source: probe architecture of Balestriero & LeCun 2024 (arXiv 2402.11337), released code of the
    guidance experiment; the optimiser settings are those of its classifiers.
    """
    features, labels = jnp.asarray(features), jnp.asarray(labels)
    check_training_set(features, labels, num_classes)
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden must hold at least one width >= 1, got {hidden}")
    check_integer("num_epochs", num_epochs, 1)
    check_integer("batch_size", batch_size, 2)
    check_numbers("learning_rate", learning_rate, "(0, inf)")
    check_numbers("weight_decay", weight_decay, "[0, inf)")
    standardizer = fit_standardizer(features)
    batch_size = min(batch_size, len(labels))
    variables = _fit(
        key,
        standardize(standardizer, features),
        labels,
        learning_rate,
        weight_decay,
        num_classes,
        hidden,
        num_epochs,
        batch_size,
        len(labels) // batch_size,
    )
    return MLPProbe(standardizer, variables)
