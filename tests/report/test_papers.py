import pytest

from recon_jax.report import papers
from recon_jax.report.recorded import FAILS, HOLDS, UNDECIDED, Verdict
from recon_jax.report.tables import Table
from tests.report.test_recorded import record

TABLE = Table(
    "kept",
    "What is kept",
    ["network, of 2", "strength", "rank (%)"],
    [
        ["deep", "0.1", "9 ± 1"],
        ["deep", "1", "4 ± 1"],
        ["wide", "0.1", "8"],
        ["wide", "1", "3 | 2"],
    ],
)
CLAIMS = [
    Verdict("it helps", "wide", "rule 1", "3 ± 1", "5", HOLDS, "reproduced"),
    Verdict("it scales", "", "", "2 ± 9", "", UNDECIDED, "undecided: within the spread"),
]
RECORDS = {
    "job": record(tables=[TABLE], claims=CLAIMS, rules="The rules."),
    "other": record(title="A job: other", claims=[CLAIMS[0]._replace(verdict=FAILS)]),
    "pending": None,
}


def test_rows_and_columns_are_chosen():
    found = papers.select(TABLE, ["where network, of 2 = wide", "columns rank (%) ; strength"])
    assert found.columns == ["rank (%)", "strength"]
    assert found.rows == [["8", "0.1"], ["3 | 2", "1"]]
    assert papers.select(TABLE, ["where strength = 0.1 ; 1"]).rows == TABLE.rows
    assert papers.select(TABLE, ["last network, of 2"]).rows == [TABLE.rows[1], TABLE.rows[3]]
    both = papers.select(TABLE, ["where strength = 1", "where network, of 2 = deep"])
    assert both.rows == [TABLE.rows[1]]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("where rank = 1", "no column 'rank'; choose one of network, of 2 ; strength ; rank"),
        ("columns rank", "no column 'rank'"),
        ("last rank", "no column 'rank'"),
        ("where strength = 2", r"no row .* the column holds 0.1, 1"),
        ("order strength", "must be 'columns A ; B', 'last A' or 'where A = VALUE ; VALUE'"),
    ],
)
def test_what_is_not_there_is_refused(wanted, message):
    with pytest.raises(ValueError, match=message):
        papers.select(TABLE, [wanted])


def test_one_cell():
    where = "job/kept | where network, of 2 = deep | where strength = 1 | columns rank (%)"
    assert papers.cell(RECORDS, where) == "4 ± 1"
    assert papers.expand(f"rank {{{{{where}}}}}%", RECORDS) == "rank 4 ± 1%"
    with pytest.raises(ValueError, match="is 4 x 1 cells, not 1"):
        papers.cell(RECORDS, "job/kept | columns rank (%)")


PAGE = """# Title

<!-- table job/kept | where strength = 1 | columns network, of 2 ; rank (%) -->
stale
<!-- end -->
Between | bars.
<!-- setting job -->
<!-- end -->
<!-- claims pending -->
<!-- end -->
<!-- figures job -->
<!-- end -->
"""


def test_blocks_are_made_and_the_rest_stays():
    made = papers.fill(PAGE, RECORDS)
    assert made == papers.fill(made, RECORDS)
    assert "stale" not in made
    assert (
        "| network, of 2 | rank (%) |\n| --- | --- |\n| deep | 4 ± 1 |\n| wide | 3 \\| 2 |" in made
    )
    assert "\nBetween | bars.\n" in made
    assert "*Not recorded yet.*" in made
    assert "`python -m experiments.job`; seeds 0, 1; 12 s; 2 CPU cores; revision abc; " in made
    assert "source: table of that revision" in made
    assert "![X](../figures/x.png)" in made


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("table nobody/kept", "unknown job 'nobody'; choose one of job, other, pending"),
        ("table job/lost", "job has no table 'lost'; choose one of kept"),
        ("claims nobody", "unknown job"),
    ],
)
def test_blocks_of_nothing_are_refused(block, message):
    with pytest.raises(ValueError, match=message):
        papers.fill(f"<!-- {block} -->\n<!-- end -->\n", RECORDS)


def test_claims_of_one_job_and_of_several():
    columns, rows = papers.claims_rows([RECORDS["job"]])
    assert columns == ["claim", "rule", "measured", "paper", "verdict"]
    assert rows == [
        ["it helps (wide)", "rule 1", "3 ± 1", "5", "holds"],
        [
            "it scales",
            "see below",
            "2 ± 9",
            "not published here",
            "not decidable at this size (undecided: within the spread)",
        ],
    ]
    columns, rows = papers.claims_rows([RECORDS["job"], RECORDS["other"]])
    assert columns == ["claim", "rule", "drawn", "other"]
    assert rows == [
        ["it helps (wide)", "rule 1", "holds", "does not hold"],
        ["it scales", "", "not decidable at this size", "-"],
    ]
    made = papers.fill("<!-- claims job -->\n<!-- end -->", RECORDS)
    assert "*Rules: The rules.*" in made


def test_tally_counts_each_verdict():
    assert papers.tally(CLAIMS) == "1 hold, 0 do not, 1 not decidable"
    assert papers.tally([]) == "no claims"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(36, "36 s"), (99.4, "99 s"), (720, "12 min"), (9000, "2.5 h"), (float("nan"), "unknown")],
)
def test_durations(seconds, text):
    assert papers.duration(seconds) == text


def test_content_between_two_comments():
    page = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n"
    made = papers.put_between(page, "x", "new\n")
    assert made == "a\n<!-- x:begin -->\n\nnew\n\n<!-- x:end -->\nb\n"
    assert papers.put_between(made, "x", "new\n") == made
    with pytest.raises(ValueError, match="must have <!-- y:begin --> and then <!-- y:end -->"):
        papers.put_between(page, "y", "new\n")


def test_a_report_has_every_table_and_claim():
    text = papers.report_of("Paper", "A question?", [RECORDS["job"]])
    for part in (
        "# Paper",
        "A question?",
        "1 hold, 0 do not",
        "**What is kept**",
        "| wide | 0.1 |",
    ):
        assert part in text
    assert "![X](experiments/figures/x.png)" in text


def test_differences_name_the_page():
    found = papers.differences("a\nb\n", "a\nc\n", "page.md")
    assert "--- page.md (committed)" in found
    assert "-b\n+c\n" in found
    assert papers.differences("a", "a", "page.md") == ""
