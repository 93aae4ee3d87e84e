import math

import numpy as np

from recon_jax.audit import Audited, Estimate, LayerSensitivity
from recon_jax.audit.measuring import MEASURES, average

from .made import made_row


def test_rows_are_averaged_over_seeds():
    rows = [
        made_row(shift=shift)._replace(warnings=words)
        for shift, words in ((0, ()), (0.1, ("dead",)))
    ]
    found = average(rows, "random net")
    assert (found.name, found.role, found.dimension) == ("random net", "encoder", 16)
    expected = np.mean([row.spectrum.total.value for row in rows])
    deviation = 0.1 / math.sqrt(2)
    np.testing.assert_allclose(
        found.spectrum.total[:3], [expected, expected - deviation, expected + deviation]
    )
    assert found.spectrum.total.kind == "seeds"
    assert found.spectrum.bands == rows[0].spectrum.bands
    assert found.labels.pca_dimension == 16
    np.testing.assert_allclose(
        found.spectrum_directions, np.mean([row.spectrum_directions for row in rows], 0)
    )
    assert list(found.stability) == ["conv1", "conv2", "output"]
    assert found.geometry.local_pca.note.endswith("fewer than 17 images.")
    assert found.warnings == ("network 2: dead",)


def test_measures_that_were_not_asked_for_stay_none():
    layer = LayerSensitivity(*[Estimate(1.0)] * 3)
    rows = [Audited("a", 2, "baseline", stability={"z": layer, "a": layer})] * 2
    found = average(rows, "b")
    assert found.spectrum is None
    assert found.probes is None
    assert list(found.stability) == ["z", "a"]


def test_every_measure_is_a_field():
    assert set(MEASURES) < set(Audited._fields)
