"""Refusal of bad input, before anything is compiled; values are checked outside jit only."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from recon_jax.features import check_features
from recon_jax.linalg import is_concrete


def check_labels(labels: Any, num_classes: int, count: int | None = None) -> None:
    """Raise ValueError unless `labels` are `count` class indices in 0 .. num_classes - 1."""
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    if labels.ndim != 1 or not labels.size:
        raise ValueError(f"labels must be a non-empty vector (N,), got shape {labels.shape}")
    if count is not None and len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} rows of features; give one label a row")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integer class indices, got {labels.dtype}")
    if not is_concrete(labels):
        return
    low, high = int(np.min(labels)), int(np.max(labels))
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"labels run from {low} to {high}; with num_classes={num_classes} they must lie in "
            f"0 .. {num_classes - 1}"
        )


def check_training_set(features: Any, labels: Any, num_classes: int) -> None:
    """Raise ValueError unless a classifier of at least two classes can be fitted."""
    check_features(features)
    check_labels(labels, num_classes, len(features))
    if is_concrete(labels) and (np.asarray(labels) == np.asarray(labels)[0]).all():
        raise ValueError(
            f"all {len(labels)} labels are {int(labels[0])}: a probe needs at least two classes; "
            "draw the subset with few_shot_split"
        )


def check_at_least(name: str, value: Any, low: float, *, strict: bool = False) -> None:
    """Raise ValueError unless the number is finite and >= low (> low if strict)."""
    if not is_concrete(value):
        return
    number = float(value)
    if not math.isfinite(number) or number < low or (strict and number == low):
        sign = ">" if strict else ">="
        raise ValueError(f"{name} must be a finite number {sign} {low}, got {value}")
