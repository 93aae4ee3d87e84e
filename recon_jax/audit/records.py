"""What an audit leaves: numbers with their spread, plain tuples that pass through JSON and back."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

KINDS = ("bootstrap", "seeds", "none")


class Estimate(NamedTuple):
    """One number with its spread.

    Attributes:
      value: NaN where it was not measured or is not defined; the note says why.
      low: lower end of the 95 % bootstrap interval over test images, or mean minus standard
        deviation over seeds; NaN if there is neither.
      high: upper end alike.
      kind: "bootstrap", "seeds" or "none".
      note: why there is no value, or what is particular about it.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    kind: str = "none"
    note: str = ""


class SpectrumKept(NamedTuple):
    """How much of each part of the pixels' spectrum a linear read-out recovers from features.

    Attributes:
      bands: names, by cumulative variance of the pixel eigen-directions, such as "0-50 %".
      directions: how many directions a band holds; 0 where one direction spans the whole band.
      shares: of the variance of the training images, in [0, 1].
      kept: held-out R^2 of the band, each direction weighing its variance; at most 1, below 0 where
        the read-out does worse than the mean image.
      total: the same of all directions together.
      excluded: directions without variance, which are left out.
    """

    bands: tuple[str, ...]
    directions: tuple[int, ...]
    shares: tuple[float, ...]
    kept: tuple[Estimate, ...]
    total: Estimate
    excluded: int


class LabelAlignment(NamedTuple):
    """What a linear read-out tells about the labels, against PCA of the same dimension.

    Attributes:
      features: held-out R^2 of the one-hot labels.
      pca: the same from the first `pca_dimension` principal components of the pixels.
      difference: features - pca, both on the same resampled images.
      ratio: features / pca; NaN where PCA explains nothing.
      pca_dimension: that of the features, or the number of directions with variance if fewer.
    """

    features: Estimate
    pca: Estimate
    difference: Estimate
    ratio: Estimate
    pca_dimension: int


class Geometry(NamedTuple):
    """How many directions features fill.

    Attributes:
      effective_rank: `geometry.effective_rank` of centred features.
      numerical_rank: singular values of centred features above a hundredth of the largest.
      two_nn: intrinsic dimension by the two nearest neighbours.
      local_pca: intrinsic dimension by principal components of neighbourhoods.
    """

    effective_rank: Estimate
    numerical_rank: Estimate
    two_nn: Estimate
    local_pca: Estimate


class ProbeAccuracy(NamedTuple):
    """Accuracy on test images in per cent.

    Attributes:
      linear: logistic regression on all training images.
      knn: nearest neighbours among the training images.
      few_shot: logistic regression on a few images of each class.
    """

    linear: Estimate
    knn: Estimate
    few_shot: Estimate


class LayerSensitivity(NamedTuple):
    """Sensitivities of one layer, as `diffeo.Sensitivity`.

    Attributes:
      D: to smooth deformations.
      G: to noise of the same size.
      R: D / G.
    """

    D: Estimate
    G: Estimate
    R: Estimate


class Invariance(NamedTuple):
    """`geometry.non_invariance` of two views of each image.

    Attributes:
      strengths: of the views, in (0, 1].
      values: one Estimate a strength; 0 is invariant, 1 as different as strangers.
    """

    strengths: tuple[float, ...]
    values: tuple[Estimate, ...]


class Audited(NamedTuple):
    """All measures of one encoder or baseline; those that were not asked for are None.

    Attributes:
      name: what tables call it.
      dimension: K, numbers in the features of an image.
      role: "encoder" or "baseline".
      spectrum: see `SpectrumKept`.
      spectrum_directions: held-out R^2 of each pixel eigen-direction with variance (D',), that of
        most variance first.
      labels: see `LabelAlignment`.
      geometry: see `Geometry`.
      probes: see `ProbeAccuracy`.
      stability: `LayerSensitivity` by layer in order of computation, "output" last.
      invariance: see `Invariance`.
      warnings: what a reader should know, such as features that are constant.
      compiled: False if the function was called as it is, not compiled by JAX.
    """

    name: str
    dimension: int
    role: str
    spectrum: SpectrumKept | None = None
    spectrum_directions: np.ndarray | None = None
    labels: LabelAlignment | None = None
    geometry: Geometry | None = None
    probes: ProbeAccuracy | None = None
    stability: Mapping[str, LayerSensitivity] | None = None
    invariance: Invariance | None = None
    warnings: tuple[str, ...] = ()
    compiled: bool = True


class AuditReport(NamedTuple):
    """The audit of one encoder, with its baselines.

    Attributes:
      encoder: what was audited.
      baselines: measured in the same way on the same images.
      variance: share of the training images' variance along each pixel eigen-direction (D',),
        descending, of sum 1.
      source: name, images, test_images, shape, classes (0 without labels).
      setting: every argument that decides the numbers.
      seconds: what took how long, by name, "total" included.
      provenance: versions, git revision and device.
      warnings: that concern the audit as a whole, such as a baseline that was left out.
    """

    encoder: Audited
    baselines: tuple[Audited, ...]
    variance: np.ndarray
    source: Mapping[str, Any]
    setting: Mapping[str, Any]
    seconds: Mapping[str, float]
    provenance: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[Audited, ...]:
        """The encoder, then the baselines."""
        return (self.encoder, *self.baselines)

    def to_dict(self) -> dict[str, Any]:
        """Content that JSON can hold: arrays as lists, NaN as null, infinity as "inf"."""
        from recon_jax.audit import reading  # which needs these records

        return reading.plain(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> AuditReport:
        """The report of what `to_dict` gave, also after JSON.

        Args:
          content: as `to_dict` returned it.

        Raises:
          ValueError: if an entry is missing or of another kind, naming it.
        """
        from recon_jax.audit import reading  # which needs these records

        return reading.read_report(content)

    def _repr_html_(self) -> str:
        """What a notebook shows: the most telling numbers, one row an encoder or baseline."""
        return _overview(self)


class Comparison(NamedTuple):
    """Several encoders side by side, audited on the same images in the same way.

    Attributes:
      encoders: in the order of the reports.
      baselines: each once; those that depend on an encoder, as PCA of its dimension, for each.
      variance: as of `AuditReport`.
      source: of the reports.
      setting: of the reports.
      warnings: of the reports, each once.
    """

    encoders: tuple[Audited, ...]
    baselines: tuple[Audited, ...]
    variance: np.ndarray
    source: Mapping[str, Any]
    setting: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[Audited, ...]:
        """The encoders, then the baselines."""
        return (*self.encoders, *self.baselines)

    def to_dict(self) -> dict[str, Any]:
        """Content that JSON can hold, as of `AuditReport`."""
        from recon_jax.audit import reading  # which needs these records

        return reading.plain(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Comparison:
        """The comparison of what `to_dict` gave; ValueError as of `AuditReport.from_dict`."""
        from recon_jax.audit import reading  # which needs these records

        return reading.read_comparison(content)

    def _repr_html_(self) -> str:
        """What a notebook shows: the most telling numbers, one row an encoder or baseline."""
        return _overview(self)


def _overview(audit: AuditReport | Comparison) -> str:
    from recon_jax.audit import overview  # which needs these records

    table = overview.overview_table(audit)

    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    body = "".join(line(cells, "td") for cells in table.rows)
    head = f"<thead>{line(table.columns, 'th')}</thead>"
    caption = f"<caption>{html.escape(table.note)}</caption>"
    return f"<table>{caption}{head}<tbody>{body}</tbody></table>"
