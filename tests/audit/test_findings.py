import numpy as np
import pytest

from audit.made import boot, made_comparison, made_report, made_row, seeds
from recon_jax.audit import Estimate
from recon_jax.audit.findings import audit_findings, encoder_findings, find_baseline, side

NAN = Estimate(np.nan, note="no labels")


@pytest.mark.parametrize(
    ("estimate", "threshold", "expected"),
    [
        (boot(0.5, 0.1), 0.3, 1),
        (boot(0.5, 0.1), 0.7, -1),
        (boot(0.5, 0.1), 0.45, 0),
        (seeds(0.5, 0.1), 0.29, 1),  # more than twice the deviation
        (seeds(0.5, 0.1), 0.31, 0),
        (seeds(0.5, 0.1), 0.71, -1),
        (seeds(0.5, 0.1), 0.69, 0),
        (Estimate(0.5), 0.0, 0),
        (NAN, 0.0, 0),
    ],
)
def test_beyond_the_spread(estimate, threshold, expected):
    assert side(estimate, threshold) == expected


def test_one_encoder_in_words():
    lines = audit_findings(made_report())
    assert lines == [
        "net: keeps 80.0 [79.0, 81.0] % of the variance of the pixels, PCA of 16 82.0 [81.0, 83.0] "
        "%; most of the band 0-50 % of cumulative variance (95.0 [94.0, 96.0] %), least of 99-100 "
        "% (-10.0 [-11.0, -9.0] %).",
        "net: explains 60.0 [59.0, 61.0] % of the variance of the labels, more than the first 16 "
        "principal components (50.0 [49.0, 51.0] %): by 10.0 [9.0, 11.0] points.",
        "net: accuracy on test images: a linear probe 81.5 [80.0, 83.0] %, nearest neighbours 79.0 "
        "[77.5, 80.5] %, a linear probe of few labels 60.0 ± 2.0 %; of pixels, a linear probe 81.5 "
        "[80.0, 83.0] %.",
        "net: its output is less sensitive to smooth deformations than to noise of the same size: "
        "R = 0.333 ± 0.010, after R = 1.00 ± 0.01 in conv1.",
        "net: two views of an image at augmentation strength 0.6 are 0.400 ± 0.010 apart, where 0 "
        "is the same and 1 as different as two images.",
        "net: fills 7.5 [7, 8] of 16 dimensions (effective rank); intrinsic dimension 6.25 [5.75, "
        "6.75] by TwoNN.",
    ]


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (boot(0.1), "more than the first"),
        (boot(-0.1), "less than the first"),
        (boot(0.005), "not clearly more or less than the first"),
    ],
)
def test_alignment_against_principal_components(difference, words):
    labels = made_row().labels._replace(difference=difference)
    assert words in audit_findings(made_report(labels=labels))[1]


@pytest.mark.parametrize(
    ("ratio", "words"),
    [(seeds(2.0), "more sensitive"), (seeds(0.5), "less sensitive"), (seeds(1.01), "about as")],
)
def test_deformations_against_noise(ratio, words):
    output = made_row().stability["output"]._replace(R=ratio)
    lines = audit_findings(made_report(stability={"output": output}))
    (line,) = [line for line in lines if words in line]
    assert "after" not in line  # there is no layer before it


def test_what_is_not_known_is_said_with_the_reason():
    row = made_row()
    lines = audit_findings(
        made_report(
            spectrum=row.spectrum._replace(total=NAN),
            labels=row.labels._replace(features=NAN, difference=NAN),
            probes=type(row.probes)(NAN, NAN, NAN),
            stability={"output": type(row.stability["output"])(NAN, NAN, NAN)},
            invariance=row.invariance._replace(values=(NAN, NAN)),
            geometry=row.geometry._replace(effective_rank=NAN),
        )
    )
    assert len(lines) == 6
    assert all("known (no labels)." in line for line in lines)


def test_only_what_was_measured_and_all_warnings():
    report = made_report(
        spectrum=None, labels=None, probes=None, stability=None, invariance=None,
        warnings=("not deterministic: by 3 %",),
    )._replace(warnings=("no random network: pass fresh=",))  # fmt: skip
    lines = audit_findings(report)
    assert lines[0].startswith("net: fills")
    assert lines[1:] == [
        "Warning, net: not deterministic: by 3 %",
        "Warning: no random network: pass fresh=",
    ]


def test_a_comparison_orders_encoders_by_each_measure():
    comparison = made_comparison()
    lines = audit_findings(comparison)
    assert lines[0] == (
        "Variance of the pixels kept (%): net 80.0 [79.0, 81.0], other 75.0 [74.0, 76.0]; pixels "
        "83.0 [82.0, 84.0]."
    )
    assert len(lines) == 9
    swapped = comparison._replace(encoders=comparison.encoders[::-1])
    assert audit_findings(swapped) == lines
    # A measure that one encoder alone has orders nothing.
    alone = comparison.encoders[1]._replace(geometry=None)
    shorter = audit_findings(comparison._replace(encoders=(comparison.encoders[0], alone)))
    assert len(shorter) == len(lines) - 1
    assert encoder_findings(comparison, comparison.encoders[1])[0].startswith("other: keeps 75.0")


def test_the_largest_baseline_that_fits():
    report = made_report()
    more = report._replace(
        baselines=(*report.baselines, report.baselines[1]._replace(name="PCA of 9", dimension=9))
    )
    assert find_baseline(more, "pca", 12).name == "PCA of 9"
    assert find_baseline(more, "pca", 30).name == "PCA of 16"
    assert find_baseline(more, "random") is None
