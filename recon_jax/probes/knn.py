"""The k-nearest-neighbour probe: a classifier without training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Integer

from recon_jax.checks import check_numbers
from recon_jax.features import check_features
from recon_jax.neighbors import nearest_neighbors
from recon_jax.probes.checks import check_labels

VOTES = ("majority", "weighted")


def knn_votes(
    neighbor_labels: Integer[ArrayLike, "q k"],
    num_classes: int,
    similarities: Float[ArrayLike, "q k"] | None = None,
    *,
    temperature: float = 0.07,
) -> Float[Array, "q c"]:
    """Share of the vote that each class gets from the neighbours.

    Equal weights, or w_i proportional to exp(s_i / T) if similarities are given; normalised to sum
    to 1 over classes, which changes no prediction.

    Args:
      neighbor_labels: classes of the neighbours (Q, k), in 0 .. C - 1.
      num_classes: C.
      similarities: s (Q, k), cosines; None for a majority vote.
      temperature: T > 0.

    Returns:
      Votes (Q, C).

    Raises:
      ValueError: if the temperature is not positive or the shapes differ.

    Source: Wu et al. 2018 (instance discrimination, arXiv 1805.01978), section 3.4.
    """
    neighbor_labels = jnp.asarray(neighbor_labels)
    check_numbers("temperature", temperature, "(0, inf)")
    if similarities is None:
        weights = jnp.ones(neighbor_labels.shape)
    elif similarities.shape != neighbor_labels.shape:
        raise ValueError(
            f"similarities {similarities.shape} and neighbor_labels {neighbor_labels.shape} differ"
        )
    else:
        weights = jax.nn.softmax(jnp.asarray(similarities) / temperature, axis=1)
    one_hot = jax.nn.one_hot(neighbor_labels, num_classes, dtype=weights.dtype)
    votes = jnp.sum(one_hot * weights[:, :, None], 1)
    return votes / weights.sum(1, keepdims=True)


def knn_classify(
    queries: Float[ArrayLike, "q d"],
    references: Float[ArrayLike, "n d"],
    reference_labels: Integer[ArrayLike, " n"],
    num_classes: int,
    *,
    num_neighbors: int = 20,
    metric: str = "cosine",
    vote: str = "weighted",
    temperature: float = 0.07,
    block_size: int | None = None,
) -> Int[Array, " q"]:
    """Class that the nearest references of each query vote for.

    "majority" counts neighbours; "weighted" gives each exp(s / T), s its cosine similarity. Among
    equal votes the lowest class wins; among equally near references the lowest index is taken
    first. Both are deterministic.

    Args:
      queries: (Q, D), float32 or float64.
      references: training features (N, D), same dtype.
      reference_labels: class indices (N,) in 0 .. C - 1.
      num_classes: C, at least 2.
      num_neighbors: k, in 1 .. N.
      metric: "cosine" or "euclidean".
      vote: "majority" or "weighted"; the latter is defined for cosine similarities only.
      temperature: T > 0.
      block_size: see `nearest_neighbors`.

    Returns:
      Predicted classes (Q,), int32.

    Raises:
      ValueError: as `nearest_neighbors`; if a label is out of range, the labels do not match the
        references, the vote is unknown, or a weighted vote is asked for distances.

    Source: Wu et al. 2018 (instance discrimination, arXiv 1805.01978), section 3.4.
    """
    references, labels = jnp.asarray(references), jnp.asarray(reference_labels)
    check_features(references, "references")
    check_labels(labels, num_classes, len(references))
    if vote not in VOTES:
        raise ValueError(f"unknown vote {vote!r}; choose one of {', '.join(VOTES)}")
    if vote == "weighted" and metric == "euclidean":
        raise ValueError(
            "a weighted vote needs cosine similarities; use metric='cosine' or vote='majority'"
        )
    check_numbers("temperature", temperature, "(0, inf)")
    scores, index = nearest_neighbors(
        queries, references, num_neighbors, metric, block_size=block_size
    )
    similarities = scores if vote == "weighted" else None
    votes = knn_votes(labels[index], num_classes, similarities, temperature=temperature)
    return jnp.argmax(votes, 1).astype(jnp.int32)
