import numpy as np
import pytest

from recon_jax.report import claims
from recon_jax.report.claims import FAILS, HOLDS, UNKNOWN, Claim

PLAIN = Claim("it helps", "more than 2", "3 ± 1", HOLDS)
FULL = Claim("it scales", "as k", "k^0.9", FAILS, "one network", "k")


def test_columns_that_no_claim_fills_are_left_out():
    table = claims.claims_table("Title", [PLAIN], "The note.")
    assert table.columns == ["claim", "rule", "measured", "verdict"]
    assert table.rows == [["it helps", "more than 2", "3 ± 1", "holds"]]
    both = claims.claims_table("Title", [PLAIN, FULL], "")
    assert both.columns == ["claim", "of", "rule", "measured", "paper", "verdict"]
    assert both.rows[0] == ["it helps", "", "more than 2", "3 ± 1", "", "holds"]
    assert both.rows[1] == ["it scales", "one network", "as k", "k^0.9", "k", "does not hold"]


def test_claims_in_words():
    assert claims.sentence(PLAIN) == "It helps: holds (more than 2). Measured: 3 ± 1."
    assert claims.tally([PLAIN, FULL, PLAIN]) == "Of 3 claims 2 hold, 1 do not, 0 cannot be told."


@pytest.mark.parametrize(
    ("needed", "holds", "verdict"),
    [
        ([1.0, 2.0], True, HOLDS),
        ([1.0, 2.0], False, FAILS),
        ([1.0, np.nan], True, UNKNOWN),
        ([1.0], True, UNKNOWN),
    ],
)
def test_a_verdict_needs_finite_numbers(needed, holds, verdict):
    assert claims.judge(np.array(needed), holds, 2) == verdict
