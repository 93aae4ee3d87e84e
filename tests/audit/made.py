"""Audits made of given numbers, for the tests of tables, figures, words and pages."""

import numpy as np

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

BANDS = ("0-50 %", "50-75 %", "75-90 %", "90-99 %", "99-100 %")
COUNTS = (1, 4, 12, 40, 43)


def boot(value, half=0.01):
    return Estimate(value, value - half, value + half, "bootstrap")


def seeds(value, deviation=0.01):
    return Estimate(value, value - deviation, value + deviation, "seeds")


def made_row(name="net", role="encoder", dimension=16, shift=0.0, layers=("conv1", "conv2")):
    """Every measure; `shift` moves all of them, so that rows can be told apart."""
    directions = np.linspace(1, -0.5, 100) + shift
    kept = tuple(boot(value + shift) for value in (0.95, 0.7, 0.5, 0.2, -0.1))
    spectrum = SpectrumKept(
        BANDS, COUNTS, (0.5, 0.25, 0.15, 0.09, 0.01), kept, boot(0.8 + shift), 3
    )
    stability = {
        layer: LayerSensitivity(seeds(0.02), seeds(0.02 + 0.01 * i), seeds(1 / (1 + i) + shift))
        for i, layer in enumerate((*layers, "output"))
    }
    return Audited(
        name,
        dimension,
        role,
        spectrum=spectrum,
        spectrum_directions=directions,
        labels=LabelAlignment(
            boot(0.6 + shift), boot(0.5), boot(0.1 + shift), boot(1.2 + 2 * shift), dimension
        ),
        geometry=Geometry(
            *(boot(value + shift, 0.5) for value in (7.5, 15.0, 6.25)),
            Estimate(np.nan, note="fewer than 17 images."),
        ),
        probes=ProbeAccuracy(
            boot(81.5 + shift, 1.5), boot(79.0 + shift, 1.5), seeds(60 + shift, 2)
        ),
        stability=stability,
        invariance=Invariance((0.2, 0.6), (seeds(0.1 + shift), seeds(0.4 + shift))),
    )


def baselines(dimension=16):
    pca = made_row(f"PCA of {dimension}", "baseline", dimension, 0.02, ())
    return (made_row("pixels", "baseline", 784, 0.03, ()), pca)


SHARED = {
    "variance": np.full(100, 0.01),
    "source": {"name": "drawn", "images": 1000, "test_images": 200, "shape": (28, 28, 1),
               "classes": 10},
    "setting": {"seeds": (0, 1, 2), "bootstraps": 200, "shots": 5},
}  # fmt: skip


def made_report(**changes):
    """A report of one encoder with two baselines; `changes` replaces parts of the encoder."""
    return AuditReport(
        encoder=made_row()._replace(**changes),
        baselines=baselines(),
        seconds={"spectrum": 1.25, "total": 10.0},
        provenance={"git_revision": "abc", "device": "1 x cpu"},
        **SHARED,
    )


def made_comparison():
    """Two encoders with their baselines."""
    encoders = (made_row(), made_row("other", shift=-0.05, layers=("dense", "norm", "dense2")))
    return Comparison(encoders=encoders, baselines=baselines(), **SHARED)
