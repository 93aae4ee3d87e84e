import json

import numpy as np
import pytest

from recon_jax.audit import AuditReport, compare

from .made import made_row


def made_report(name, baselines=(), **fields):
    return AuditReport(
        encoder=made_row(name),
        baselines=tuple(baselines),
        variance=np.full(100, 0.01),
        source={"name": "arrays", "digest": "a"},
        setting={"seeds": (0, 1), "num_images": None},
        seconds={"total": 1.0},
        provenance={},
        warnings=("pixels run from 0 to 255",),
    )._replace(**fields)


def base(name, dimension, shift=0.0):
    return made_row(name, "baseline", dimension, shift)


def test_encoders_stand_side_by_side_and_shared_baselines_once():
    first = [base("pixels", 100), base("PCA of 4", 4), base("random a", 4, 0.2)]
    second = [base("pixels", 100), base("PCA of 9", 9), base("random b", 4, 0.2)]
    third = [base("random c", 4, 0.3), base("PCA of 9", 9)]
    reports = [
        made_report(name, rows) for name, rows in zip("abc", (first, second, third), strict=True)
    ]
    found = compare(reports)
    assert [row.name for row in found.encoders] == ["a", "b", "c"]
    names = [row.name for row in found.baselines]
    # The random networks of a and b agree in every number.
    assert names == ["pixels", "PCA of 4", "random a", "PCA of 9", "random c"]
    assert found.source == reports[0].source
    assert found.warnings == ("pixels run from 0 to 255",)


def test_reports_may_come_from_json():
    first = made_report("a")
    second = AuditReport.from_dict(json.loads(json.dumps(made_report("b").to_dict())))
    assert [row.name for row in compare([first, second]).rows] == ["a", "b"]


def test_missing_random_networks_name_the_encoder():
    reports = [made_report(name, warnings=("no random network: x",)) for name in "ab"]
    assert compare(reports).warnings == ("a: no random network: x", "b: no random network: x")


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        ([], "no reports"),
        (["a", "a"], "2 encoders are called 'a'; audit them with name="),
        (
            ["a", made_report("b", source={"name": "arrays", "digest": "b"})],
            "another source: digest 'a' and 'b'",
        ),
        (
            ["a", made_report("b", setting={"seeds": (0, 2), "num_images": None})],
            r"another setting: seeds \[0, 1\] and \[0, 2\]",
        ),
        (["a", made_report("b", setting={"seeds": (0, 1)})], "num_images None and 'nothing'"),
    ],
)
def test_what_cannot_be_compared(reports, message):
    reports = [made_report(one) if isinstance(one, str) else one for one in reports]
    with pytest.raises(ValueError, match=message):
        compare(reports)
