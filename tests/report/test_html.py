import re
from html.parser import HTMLParser

from recon_jax.report import Section, Table, new_figure, save_figure, write_report


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_report_is_one_file_with_real_tables_and_embedded_figures(tmp_path):
    figure, axes = new_figure(2, 2)
    axes[0, 0].plot([0, 1])
    path = save_figure(tmp_path, "f", figure)
    table = Table("t", "A <title>", ("a", "b"), [["<script>", 2.0]], "note")
    sections = [Section("One", ("Text.",), path, "A caption.", [table])]
    write_report(tmp_path / "r.html", "Title", ["First & foremost"], sections, {"device": "cpu"})
    page = (tmp_path / "r.html").read_text()
    tags = Tags()
    tags.feed(page)
    names = [tag for tag, _ in tags.seen]
    assert names.count("table") == 1
    assert names.count("td") == 1
    scopes = [attributes["scope"] for tag, attributes in tags.seen if tag == "th"]
    assert scopes == ["col", "col", "row"]
    assert "script" not in names  # cells are escaped
    (image,) = [attributes for tag, attributes in tags.seen if tag == "img"]
    assert image["src"].startswith("data:image/png;base64,")
    assert image["alt"] == "A caption."
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)  # nothing is loaded from elsewhere
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in [
        (tag, attributes) for tag, attributes in tags.seen
    ]
    assert "First &amp; foremost" in page
