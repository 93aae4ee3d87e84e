"""Reports as a browser shows them: nothing fails, nothing is cut off, everything can be read."""

import base64

import numpy as np
import pytest
from audit.made import made_comparison

from recon_jax.audit.page import write_html
from recon_jax.report import Section, Table, new_figure, save_figure, write_report
from report.chromium import Browser, find_chromium

PHONE, DESK, PAPER = 390, 1000, 718  # pixels; A4 within Chromium's margins

# Smallest contrast of any text with what is behind it (WCAG 2), and of which element.
CONTRAST = """(() => {
  const parse = text => {
    const found = text.match(/[\\d.]+/g).map(Number);
    return {rgb: found.slice(0, 3), alpha: found.length > 3 ? found[3] : 1};
  };
  const over = (top, alpha, under) => top.map((x, i) => alpha * x + (1 - alpha) * under[i]);
  const luminance = rgb => rgb.map(x => x / 255)
    .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    const under = element.parentElement ? behind(element.parentElement) : (dark ? [18, 18, 18] :
      [255, 255, 255]);
    const {rgb, alpha} = parse(getComputedStyle(element).backgroundColor);
    return over(rgb, alpha, under);
  };
  const opacity = element => element ?
    Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1;
  let worst = [99, ''];
  for (const element of document.body.querySelectorAll('*')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own) continue;
    const back = behind(element);
    const {rgb, alpha} = parse(getComputedStyle(element).color);
    const shades = [luminance(over(rgb, alpha * opacity(element), back)), luminance(back)];
    const ratio = (Math.max(...shades) + 0.05) / (Math.min(...shades) + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.tagName];
  }
  return worst;
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_chromium()
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt install chromium)")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with all that a report can have, some of it too wide for a phone and for paper."""
    folder = tmp_path_factory.mktemp("report")
    figure, axes = new_figure(8, 3)
    axes[0, 0].plot([0, 1])
    path = save_figure(folder, "figure", figure)
    columns = ["network", *(f"measure {i}" for i in range(16))]
    rows = [[f"name {i} of a network", *np.linspace(0, 1234.5, 16)] for i in range(3)]
    table = Table("t", "A table", columns, rows, "With a note.")
    sections = [Section("What is it?", ("A paragraph.",), path, "A caption.", [table])]
    facts = {"command": "python -m experiments.name " + 30 * "--config.field=value,", "seeds": [0]}
    summary = ["First.", "long/" * 60]
    write_report(folder / "report.html", "A report", summary, sections, facts)
    return folder / "report.html"


def check_loading(browser, page):
    """Nothing fails, nothing comes from elsewhere, and what there is has content."""
    browser.open(page)
    assert browser.messages() == []
    schemes = {address.split(":")[0] for address in browser.requests()}
    assert schemes <= {"file", "data"}
    assert sum(address.startswith("file:") for address in browser.requests()) == 1
    widths = browser.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert widths
    assert all(width > 0 for width in widths)
    assert browser.evaluate("[...document.images].every(image => image.alt.length > 0)")


def check_tables(browser, page):
    """Tables have a caption, a header cell over every column, and one before every row."""
    browser.open(page)
    tables = browser.evaluate(
        """[...document.querySelectorAll('table')].map(table => ({
          title: table.caption.textContent,
          columns: [...table.tHead.rows[0].cells].map(cell => cell.tagName + cell.scope),
          rows: [...table.tBodies[0].rows].map(row => [row.cells.length, row.cells[0].scope]),
        }))"""
    )
    assert tables
    for table in tables:
        assert table["title"]
        assert set(table["columns"]) == {"THcol"}
        assert table["rows"]
        assert all(row == [len(table["columns"]), "row"] for row in table["rows"])


def check_fit(browser, page):
    """The page does not scroll sideways, tables and figures do; paper shows all of them."""
    for width, media in ((PHONE, ""), (DESK, ""), (PAPER, "print")):
        browser.open(page, width=width, media=media)
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        parts = "[...document.querySelectorAll('table, img')]"
        outside = f"{parts}.filter(e => e.getBoundingClientRect().right > {width} + 1)"
        # What reaches beyond the edge can be scrolled, and not on paper.
        scrolled = f"{outside}.every(e => getComputedStyle(e.parentElement).overflowX === 'auto')"
        assert browser.evaluate(scrolled)
        if media:
            assert browser.evaluate(f"{outside}.length") == 0


def check_contrast(browser, page):
    """Text in both themes and on paper has the contrast that WCAG asks of small text."""
    backgrounds = {}
    for dark, media in ((False, ""), (True, ""), (True, "print")):
        browser.open(page, dark=dark, media=media)
        ratio, element = browser.evaluate(CONTRAST)
        assert ratio >= 4.5, (element, dark, media)
        script = "getComputedStyle(document.body).backgroundColor"
        backgrounds[dark, media] = browser.evaluate(script)
    white = "rgb(255, 255, 255)"
    assert backgrounds[False, ""] == backgrounds[True, "print"] == white
    assert backgrounds[True, ""] != white
    browser.open(page, dark=True)
    script = "[...document.images].map(image => getComputedStyle(image).backgroundColor)"
    assert set(browser.evaluate(script)) == {white}  # figures are drawn in black


CHECKS = (check_loading, check_tables, check_fit, check_contrast)


@pytest.mark.parametrize("check", CHECKS)
def test_a_report_in_a_browser(browser, page, check):
    check(browser, page)


@pytest.fixture(scope="module")
def audit_page(browser, tmp_path_factory):
    return write_html(tmp_path_factory.mktemp("audit") / "audit.html", made_comparison())


@pytest.mark.parametrize("check", CHECKS)
def test_an_audit_in_a_browser(browser, audit_page, check):
    check(browser, audit_page)


def test_an_audit_can_be_printed(browser, audit_page):
    browser.open(audit_page)
    content = base64.b64decode(browser.send("Page.printToPDF")["data"])
    assert content.startswith(b"%PDF")
    pages = content.count(b"/Type /Page\n")
    assert 3 <= pages <= 12
    assert content.count(b"/Subtype /Image") >= 4


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_loading, "</body>", "<script>console.error('no')</script></body>"),
        (check_loading, "</body>", "<img src='https://example.invalid/x.png' alt='x'></body>"),
        (check_loading, "data:image/png;base64,", "data:image/png;base64,AAAA"),
        (check_tables, '<th scope="col">measure 3</th>', "<td>measure 3</td>"),
        (check_tables, ' scope="row"', ""),
        (check_fit, ".scroll { overflow-x: auto; }", ""),
        (check_fit, "overflow-wrap: anywhere; }\nh1", "}\nh1"),
        (check_fit, "font-size: 6.5pt", "font-size: 16pt"),
        (check_contrast, "--soft: #454545", "--soft: #888"),
        (check_contrast, "--ink: #e8e8e8", "--ink: #333"),
        (check_contrast, "background: #fff;", ""),
    ],
)
def test_the_checks_see_what_is_wrong(browser, page, tmp_path, check, old, new):
    text = page.read_text()
    assert old in text
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace(old, new))
    with pytest.raises(AssertionError):
        check(browser, broken)
