"""Refusal of bad input, before anything is compiled; values are checked outside jit only."""

from __future__ import annotations

from typing import Any

import numpy as np

from recon_jax import checks
from recon_jax.checks import check_integer, is_concrete
from recon_jax.features import check_features


def check_labels(labels: Any, num_classes: int, count: int | None = None) -> None:
    """Raise ValueError unless `labels` are `count` class indices in 0 .. num_classes - 1."""
    check_integer("num_classes", num_classes, 2, "a probe tells classes apart")
    checks.check_labels(labels, num_classes, count)


def check_training_set(features: Any, labels: Any, num_classes: int) -> None:
    """Raise ValueError unless a classifier of at least two classes can be fitted."""
    check_features(features)
    check_labels(labels, num_classes, len(features))
    if is_concrete(labels) and (np.asarray(labels) == np.asarray(labels)[0]).all():
        raise ValueError(
            f"all {len(labels)} labels are {int(labels[0])}: a probe needs at least two classes; "
            "draw the subset with few_shot_split"
        )
