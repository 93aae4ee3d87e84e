from html.parser import HTMLParser
from pathlib import Path

import pytest

from audit.made import made_comparison, made_report
from recon_jax.audit.page import audit_facts, audit_sections, audit_title, write_html


class Page(HTMLParser):
    """Headings, captions of tables, and sources of images."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.images, self._open = {"h1": [], "h2": [], "caption": [], "li": []}, [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._open = tag
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag):
        self._open = ""

    def handle_data(self, data):
        if self._open in self.texts:
            self.texts[self._open].append(data)


@pytest.fixture(scope="module", params=["report", "comparison"])
def page(request, tmp_path_factory):
    audit = {"report": made_report, "comparison": made_comparison}[request.param]()
    path = write_html(tmp_path_factory.mktemp("page") / "audit.html", audit)
    return audit, Page(path.read_text()), path.read_text()


def test_everything_is_on_the_page(page):
    audit, found, text = page
    assert found.texts["h1"] == [audit_title(audit)]
    assert len(found.texts["caption"]) == 7  # at a glance, and the six families
    assert len(found.images) == 4
    assert all(image["src"].startswith("data:image/png;base64,") for image in found.images)
    questions = [title for title in found.texts["h2"] if title.endswith("?")]
    assert len(questions) == 6
    for item in audit.rows:
        assert item.name in text
    assert "bootstraps" in text


def test_a_comparison_tells_of_each_encoder():
    audit = made_comparison()
    assert audit_title(audit) == "Audit of net and other on drawn"
    three = audit._replace(encoders=(*audit.encoders, audit.encoders[0]))
    assert audit_title(three) == "Audit of net, other and net on drawn"
    assert audit_title(audit._replace(encoders=audit.encoders[:1])) == "Audit of net on drawn"


def test_words_on_each_encoder_of_a_comparison(page):
    audit, found, _ = page
    told = [title for title in found.texts["h2"] if title.endswith("in words")]
    expected = [f"{item.name}, in words" for item in getattr(audit, "encoders", ())]
    assert told == expected


def test_where_the_numbers_come_from():
    facts = audit_facts(made_report())
    assert facts["seconds"] == "spectrum 1.2, total 10.0"
    assert facts["git_revision"] == "abc"
    assert facts["shots"] == 5


def test_a_page_of_one_family_and_a_name_that_is_no_html(tmp_path):
    nothing = dict.fromkeys(("spectrum", "labels", "probes", "stability", "invariance"))
    report = made_report(name="<b>net</b>", **nothing)._replace(baselines=())
    text = write_html(tmp_path / "audit.html", report).read_text()
    assert "<b>net" not in text
    assert "&lt;b&gt;net" in text
    found = Page(text)
    assert len(found.texts["caption"]) == 2
    assert found.images == []


@pytest.mark.parametrize("probes", [True, False])
def test_the_figure_of_probes_and_labels_is_shown_once(probes):
    report = made_report()
    if not probes:
        rows = [row._replace(probes=None) for row in report.rows]
        report = report._replace(encoder=rows[0], baselines=tuple(rows[1:]))
    sections = audit_sections(report, {"probes": (Path("probes.png"), "A caption.")})
    shown = [section.title for section in sections if section.figure]
    assert shown == ["What can be read from it?" if probes else "Is it aligned with the labels?"]
