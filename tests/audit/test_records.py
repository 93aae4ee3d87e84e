import json
import math

import numpy as np
import pytest

from recon_jax.audit import (
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

SOURCE = {"name": "arrays", "images": 9, "test_images": 3, "shape": [2, 2, 1], "classes": 0}
NUMBERS = iter(range(10**6))


def estimate(**fields):
    number = next(NUMBERS) + 0.25
    return Estimate(number, number - 1, number + 1, "bootstrap", f"note {number}")._replace(
        **fields
    )


def full_row(name):
    return Audited(
        name=name,
        dimension=7,
        role="encoder",
        spectrum=SpectrumKept(
            bands=("0-50 %", "50-100 %"),
            directions=(0, 3),
            shares=(0.0, 1.0),
            kept=(Estimate(math.nan, note="empty"), estimate()),
            total=estimate(),
            excluded=2,
        ),
        spectrum_directions=np.array([0.5, np.nan, -0.25]),
        labels=LabelAlignment(estimate(), estimate(), estimate(), estimate(), pca_dimension=3),
        geometry=Geometry(*(estimate() for _ in range(4))),
        probes=ProbeAccuracy(*(estimate(kind="seeds") for _ in range(3))),
        stability={
            "conv": LayerSensitivity(estimate(), estimate(), estimate(value=math.inf)),
            "a": LayerSensitivity(estimate(), estimate(), estimate(value=-math.inf)),
        },
        invariance=Invariance((0.5, 1.0), (estimate(), estimate())),
        warnings=("one",),
        compiled=False,
    )


def full_report():
    return AuditReport(
        encoder=full_row("mine"),
        baselines=(full_row("pixels"), Audited("PCA of 7", 7, "baseline")),
        variance=np.array([0.5, 0.3, 0.2]),
        source=SOURCE,
        setting={"seeds": (0, 1), "num_images": None},
        seconds={"total": 1.5},
        provenance={"versions": {"jax": "1"}},
        warnings=("two",),
    )


def same(a, b):
    """Equal field by field, NaN with NaN, arrays with arrays; tuples may have become lists."""
    if isinstance(a, np.ndarray):
        assert isinstance(b, np.ndarray)
        np.testing.assert_array_equal(a, b)
    elif hasattr(a, "_fields"):
        assert type(a) is type(b)
        for left, right in zip(a, b, strict=True):
            same(left, right)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, tuple):
        for left, right in zip(a, b, strict=True):
            same(left, right)
    else:
        assert a == b or (math.isnan(a) and math.isnan(b))


def through_json(record):
    return json.loads(json.dumps(record.to_dict(), allow_nan=False))


def test_reports_pass_through_json():
    report = full_report()
    same(report, AuditReport.from_dict(through_json(report)))


def test_comparisons_pass_through_json():
    report = full_report()
    comparison = Comparison(
        (report.encoder, full_row("other")),
        report.baselines,
        report.variance,
        report.source,
        report.setting,
        ("three",),
    )
    same(comparison, Comparison.from_dict(through_json(comparison)))
    assert [row.name for row in comparison.rows] == ["mine", "other", "pixels", "PCA of 7"]


def test_plain_content_marks_what_json_lacks():
    content = full_report().to_dict()
    assert content["encoder"]["spectrum"]["kept"][0]["value"] is None
    assert content["encoder"]["spectrum_directions"] == [0.5, None, -0.25]
    assert content["encoder"]["stability"]["conv"]["R"]["value"] == "inf"
    assert content["baselines"][1]["geometry"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("seconds"), "lacks 'seconds'"),
        (lambda content: content["encoder"].pop("labels"), "lacks 'labels'"),
        (lambda content: content.update(variance=3), "not an audit"),
        (lambda content: content.update(encoder=None), "not an audit"),
    ],
)
def test_other_content_is_refused(change, message):
    content = through_json(full_report())
    change(content)
    with pytest.raises(ValueError, match=message):
        AuditReport.from_dict(content)


def test_notebooks_show_a_table():
    report = full_report()
    shown = report._replace(encoder=report.encoder._replace(name="<mine>"))._repr_html_()
    assert shown.startswith("<table>")
    assert "<td>&lt;mine&gt;</td>" in shown
    assert shown.count("<tr>") == 1 + 3
