"""An audit at a glance: the one number that stands for each family of measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from recon_jax.audit.records import Audited, Estimate
from recon_jax.audit.tables import MISSING, Audit, setting_words, tell
from recon_jax.report import Table


def middle(values: Sequence[Any]) -> Any:
    """The entry in the middle, the later of two: at the strongest augmentation all are alike.

    Args:
      values: one or more, by strength.
    """
    return values[len(values) // 2]


class Headline(NamedTuple):
    """The number that stands for a family at a glance.

    Attributes:
      column: of the overview.
      title: in a sentence.
      pick: the Estimate of an encoder or baseline; None if it was not measured.
      spec: format.
      scale: what it is multiplied by.
    """

    column: str
    title: str
    pick: Callable[[Audited], Estimate | None]
    spec: str = ".1f"
    scale: float = 1.0


HEADLINES = (
    Headline(
        "pixels kept (%)",
        "Variance of the pixels kept (%)",
        lambda item: item.spectrum and item.spectrum.total,
        scale=100,
    ),
    Headline(
        "R² of labels (%)",
        "Variance of the labels explained (%)",
        lambda item: item.labels and item.labels.features,
        scale=100,
    ),
    Headline(
        "over PCA (points)",
        "The same over PCA of as many dimensions (points)",
        lambda item: item.labels and item.labels.difference,
        "+.1f",
        100,
    ),
    Headline(
        "linear probe (%)",
        "Linear probe (% correct)",
        lambda item: item.probes and item.probes.linear,
    ),
    Headline(
        "neighbours (%)",
        "Nearest neighbours (% correct)",
        lambda item: item.probes and item.probes.knn,
    ),
    Headline(
        "few labels (%)",
        "Linear probe of few labels (% correct)",
        lambda item: item.probes and item.probes.few_shot,
    ),
    Headline(
        "R at the output",
        "Sensitivity to deformations over that to noise, R of the output",
        lambda item: list(item.stability.values())[-1].R if item.stability else None,
        ".3g",
    ),
    Headline(
        "non-invariance",
        "Non-invariance at the middle augmentation strength",
        lambda item: item.invariance and middle(item.invariance.values),
        ".3f",
    ),
    Headline(
        "effective rank",
        "Effective rank",
        lambda item: item.geometry and item.geometry.effective_rank,
        ".3g",
    ),
)


def overview_table(audit: Audit) -> Table:
    """The most telling numbers of each family, without spread, one row an encoder or baseline.

    Args:
      audit: a report, or a comparison of several.
    """
    rows = []
    for item in audit.rows:
        picked = [(way.pick(item), way) for way in HEADLINES]
        cells = [
            tell(found._replace(kind="none"), way.spec, way.scale) if found else MISSING
            for found, way in picked
        ]
        rows.append([item.name, item.role, item.dimension, *cells])
    strengths = next((item.invariance.strengths for item in audit.rows if item.invariance), None)
    at = f" Non-invariance: at strength {middle(strengths):g}." if strengths else ""
    note = f"Each number has its spread in a table further down.{at} {setting_words(audit)}"
    columns = ["name", "role", "K", *(way.column for way in HEADLINES)]
    return Table("overview", "At a glance", columns, rows, note)
