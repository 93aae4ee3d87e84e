"""Audits as content that JSON can hold, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from recon_jax.audit.records import (
    Audited,
    AuditReport,
    Comparison,
    Estimate,
    Geometry,
    Invariance,
    LabelAlignment,
    LayerSensitivity,
    ProbeAccuracy,
    SpectrumKept,
)


def plain(value: Any) -> Any:
    """Records as dicts, arrays and tuples as lists, NaN as None, infinity as "inf".

    Args:
      value: a record, or anything in one.
    """
    if hasattr(value, "_fields"):
        return {name: plain(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def read_report(content: Mapping[str, Any]) -> AuditReport:
    """The report that `plain` made this content of.

    Args:
      content: also after JSON.

    Raises:
      ValueError: if an entry is missing or of another kind.
    """
    return _read(content, _report, "an audit")


def read_comparison(content: Mapping[str, Any]) -> Comparison:
    """The comparison that `plain` made this content of; see `read_report`.

    Args:
      content: also after JSON.
    """
    return _read(content, _comparison, "a comparison of audits")


def _read(content: Mapping[str, Any], build: Callable, what: str) -> Any:
    try:
        return build(content)
    except KeyError as error:
        raise ValueError(f"the content is not {what}: it lacks {error}") from error
    except (AttributeError, TypeError) as error:
        raise ValueError(f"the content is not {what}: {error}") from error


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _array(values: Any) -> np.ndarray:
    return np.array([_number(value) for value in values], np.float64)


def _estimate(content: Mapping[str, Any]) -> Estimate:
    ends = (_number(content[name]) for name in ("value", "low", "high"))
    return Estimate(*ends, content["kind"], content["note"])


def _estimates(cls: Any, content: Mapping[str, Any]) -> Any:
    """A tuple all of whose fields are Estimates."""
    return cls(**{name: _estimate(content[name]) for name in cls._fields})


def _spectrum(content: Mapping[str, Any]) -> SpectrumKept:
    return SpectrumKept(
        bands=tuple(content["bands"]),
        directions=tuple(content["directions"]),
        shares=tuple(_number(share) for share in content["shares"]),
        kept=tuple(_estimate(item) for item in content["kept"]),
        total=_estimate(content["total"]),
        excluded=content["excluded"],
    )


def _labels(content: Mapping[str, Any]) -> LabelAlignment:
    names = ("features", "pca", "difference", "ratio")
    return LabelAlignment(
        *(_estimate(content[name]) for name in names), pca_dimension=content["pca_dimension"]
    )


def _invariance(content: Mapping[str, Any]) -> Invariance:
    return Invariance(
        tuple(_number(strength) for strength in content["strengths"]),
        tuple(_estimate(item) for item in content["values"]),
    )


def _stability(content: Mapping[str, Any]) -> dict[str, LayerSensitivity]:
    return {name: _estimates(LayerSensitivity, layer) for name, layer in content.items()}


def _audited(content: Mapping[str, Any]) -> Audited:
    readers = {
        "spectrum": _spectrum,
        "spectrum_directions": _array,
        "labels": _labels,
        "geometry": lambda item: _estimates(Geometry, item),
        "probes": lambda item: _estimates(ProbeAccuracy, item),
        "stability": _stability,
        "invariance": _invariance,
        "warnings": tuple,
    }
    fields = {name: content[name] for name in Audited._fields}
    for name, reader in readers.items():
        fields[name] = None if fields[name] is None else reader(fields[name])
    return Audited(**fields)


def _rows(content: Any) -> tuple[Audited, ...]:
    return tuple(_audited(item) for item in content)


def _shared(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "baselines": _rows(content["baselines"]),
        "variance": _array(content["variance"]),
        "source": dict(content["source"]),
        "setting": dict(content["setting"]),
        "warnings": tuple(content["warnings"]),
    }


def _report(content: Mapping[str, Any]) -> AuditReport:
    own = {name: dict(content[name]) for name in ("seconds", "provenance")}
    return AuditReport(encoder=_audited(content["encoder"]), **own, **_shared(content))


def _comparison(content: Mapping[str, Any]) -> Comparison:
    return Comparison(encoders=_rows(content["encoders"]), **_shared(content))
