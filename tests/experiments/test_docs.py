"""The reference: docstrings are complete, examples true, pages whole."""

import doctest
import html
import html.parser
import re
import sys
from typing import NamedTuple

import pytest

from experiments import docs, docs_checks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("X^T X", "X<sup>T</sup> X"),
        ("r^(|i - j|)", "r<sup>|i - j|</sup>"),
        ("s_k^2 / N^-d", "s<sub>k</sub><sup>2</sup> / N<sup>-d</sup>"),
        ("||A T||_F", "||A T||<sub>F</sub>"),
        ("sum_(v != u) a_v", "sum<sub>v != u</sub> a<sub>v</sub>"),
        ("sum_{l != i} delta_i^{2 t}", "sum<sub>l != i</sub> delta<sub>i</sub><sup>2 t</sup>"),
        ("num_images and x_train of view_a", "num_images and x_train of view_a"),
        ("a < b & c", "a &lt; b &amp; c"),
        ("exp(-(a + (b)^(c (d)))", "exp(-(a + (b)<sup>c (d)</sup>)"),
    ],
)
def test_formulas_are_typeset(text, expected):
    assert docs.typeset(text) == expected


def test_docstrings_become_markdown():
    doc = "\n".join(
        [
            "Scale a * b * c of [0, 1](x), see `other` and `self.x^2`.",
            "",
            "  p_k = q^2",
            "      + r",
            "",
            "Args:",
            "  a_list: of x^2.",
            "    More.",
            "",
            ">>> f(1)",
            "2",
        ]
    )
    pages = {"other": "other.html#other"}
    found = docs.to_markdown(doc, pages.get)
    assert found.startswith(
        r"Scale a \* b \* c of \[0, 1\](x), see [`other`](other.html#other) and `self.x^2`."
    )
    assert '<pre class="formula">p<sub>k</sub> = q<sup>2</sup>\n    + r</pre>\n' in found
    assert "Args:\n  a_list: of x<sup>2</sup>.\n    More.\n" in found
    assert found.endswith("```python\n>>> f(1)\n2\n```\n")


def test_code_that_is_set_off_is_fenced():
    found = docs.to_markdown("Use it.\n\n    state = fit(state, 10)\n    print(state)\n\nEnd.")
    assert "```python\nstate = fit(state, 10)\nprint(state)\n```" in found
    assert found.endswith("End.")


def _complete(first, second=None, **options):
    """Says all there is to say.

    Args:
      first: a number.
      second: another.
      **options: and more.

    Raises:
      ValueError: always.
    """
    raise ValueError(first)


def _without_argument(first, second):
    """Says something about one.

    Args:
      first: a number.
    """


def _without_errors():
    """Says nothing about errors."""
    raise ValueError


def _with_errors_of_another():
    """Says nothing about errors, which are another's."""

    def inner():
        raise ValueError

    return inner


def _without_returns(pair) -> tuple[int, int]:
    """Says nothing of what a pair comes back."""
    return pair


def _as_elsewhere(first, second):
    """Says it by reference. Arguments and errors as for `_complete`."""
    raise ValueError(first)


def _short():
    """No."""


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (_complete, None),
        (_as_elsewhere, None),
        (_with_errors_of_another, None),
        (_without_argument, "argument second is not described"),
        (_without_errors, "no section Raises"),
        (_without_returns, "no section Returns"),
        (_short, "no first line"),
    ],
)
def test_faults_of_functions_are_found(function, fault):
    found = docs_checks.docstring_faults(function)
    assert found == [] if fault is None else [fault in line for line in found] == [True]


class _Pair(NamedTuple):
    """Two numbers, of which one is described.

    Attributes:
      first: a number.
    """

    first: int
    second: int
    third: int
    """Described beside the field."""


def test_faults_of_classes_are_found():
    assert docs_checks.class_faults(_Pair) == ["field second is not described"]


def test_sources_are_looked_for():
    bare = docs_checks.Public("losses", "x", "recon_jax.linalg", "x", _short)
    assert not docs_checks.has_source(bare)
    assert docs_checks.has_source(bare._replace(part="diffeo"))


def test_public_names_are_found_where_they_are_defined():
    homes = {item.full: (item.home, item.inner) for item in docs_checks.public_names()}
    assert homes["diffeo.depth_laws"] == ("recon_jax.diffeo.depth_laws", "")
    assert homes["augment.StrengthPolicy"] == ("recon_jax.augment.policies", "StrengthPolicy")
    assert homes["probes.nearest_neighbors"] == ("recon_jax.neighbors", "nearest_neighbors")


def test_docstrings_of_the_library_are_complete():
    assert docs_checks.faults() == []


EXAMPLES = list(docs_checks.examples())


def test_central_functions_have_examples():
    parts = {test.name.split(".")[1] for test in EXAMPLES}
    assert {"data", "diffeo", "geometry", "losses", "models", "multiview", "probes"} <= parts
    assert len(EXAMPLES) >= 15


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_examples_are_true(example):
    assert docs_checks.example_faults(example) == []


@pytest.mark.parametrize(("text", "holds"), [(">>> 1 + 1\n2\n", True), (">>> 1 + 1\n3\n", False)])
def test_false_examples_are_reported(text, holds):
    example = doctest.DocTestParser().get_doctest(text, {}, "sum", "sum.py", 0)
    assert (docs_checks.example_faults(example) == []) == holds


@pytest.mark.parametrize(("found", "code"), [([], 0), (["a fault"], 1)])
def test_check_says_so(found, code, monkeypatch, capsys):
    monkeypatch.setattr(docs, "check", lambda: found)
    monkeypatch.setattr(sys, "argv", ["docs", "--check"])
    with pytest.raises(SystemExit) as ending:
        docs.main()
    assert ending.value.code == code
    assert ("a fault" in capsys.readouterr().out) == bool(found)


def test_a_missing_pdoc_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "pdoc", None)
    monkeypatch.setattr(sys, "argv", ["docs", f"--workdir={tmp_path}"])
    with pytest.raises(SystemExit) as ending:
        docs.main()
    assert ending.value.code == 2
    assert "pip install -e '.[docs]'" in capsys.readouterr().err


class _Page(html.parser.HTMLParser):
    """What a page can be linked to by, and what it links to."""

    def __init__(self, path):
        super().__init__()
        self.names, self.links = set(), set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if key == "id":
                self.names.add(value)
            elif key in ("href", "src") and not value.startswith(("data:", "https://pdoc.dev")):
                self.links.add(value)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    pytest.importorskip("pdoc", reason="pdoc is not installed: pip install -e '.[docs]'")
    workdir = tmp_path_factory.mktemp("docs").resolve()
    first = docs.build(workdir)
    assert first.exists()
    return {path: _Page(path) for path in workdir.rglob("*.html")}, workdir


def test_every_public_name_is_on_a_page(pages):
    pages, workdir = pages
    missing = [
        item.full
        for item in docs_checks.public_names()
        if item.inner not in {"", *pages[workdir / (item.home.replace(".", "/") + ".html")].names}
    ]
    assert missing == []


def test_parts_list_their_public_names(pages):
    pages, workdir = pages
    links = pages[workdir / "recon_jax" / "spectral.html"].links
    assert {"spectral/alignment.html#alignment_curve", "spectral/masks.html#patch_mask"} <= links
    assert "recon_jax/linalg.html" in pages[workdir / "recon_jax.html"].links


def test_no_link_is_broken_and_none_leaves(pages):
    pages, workdir = pages
    broken = []
    for path, page in pages.items():
        for link in page.links:
            file, _, name = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            if not target.exists() or (name and name not in pages[target].names):
                broken.append((path.relative_to(workdir), link))
    assert broken == []


def test_docstrings_are_shown_as_they_are_meant(pages):
    _, workdir = pages
    text = (workdir / "recon_jax" / "diffeo" / "depth_laws.html").read_text()
    assert '<pre class="formula">stride 1:  D<sub>k</sub> = 1/2' in text
    assert "Alias for field" not in "".join(path.read_text() for path in workdir.rglob("*.html"))
    assert "<strong>num_layers:</strong>" in text
    text = (workdir / "recon_jax" / "geometry" / "rank.html").read_text()
    plain = html.unescape(re.sub("<[^>]*>", "", text))
    assert "features: Float[ArrayLike, 'n d']" in plain
    assert "jaxlib" not in plain
