"""The reference of the library, from its docstrings: one HTML page a module, and checks of them.

    python -m experiments.docs [--workdir=results/docs]     # needs pip install -e '.[docs]'
    python -m experiments.docs --check                      # docstrings and their examples alone

The first page says what each part is for; the page of a part lists its public names with a line for
each; that of a module holds their docstrings, formulas and source. The pages need no network.
`--check` ends with exit code 1 and a line for each docstring that lacks a section (see
`docs_checks`), and for each example that does not give what it says.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import html
import importlib
import inspect
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jinja2

import recon_jax
from experiments import docs_checks

# A power of whatever stands before it; an index after a letter, a Greek name, a sum or a bracket.
_POWER = re.compile(r"\^(\((?:[^()]|\([^()]*\))*\)|\{[^{}]*\}|[-+]?\w+)")
_INDEX = re.compile(
    r"(?<![\w_])([^\W\d_]|sum|max|min|mean|prod|delta|theta|lambda|Lambda|rho|sigma|tau)"
    r"_(\w{1,2}(?!\w)|\([^()]*\)|\{[^{}]*\})"
    r"|(?<=[|)])_([A-Za-z0-9](?!\w)|\+)"
)
# Code within a line, which stays as it is, or what lies between two pieces of code.
_CODE = re.compile(r"(`[^`]*`)")


def typeset(text: str) -> str:
    """HTML of a formula in plain text: powers raised, indices lowered; r^(d - 1), s_k, ||A||_F."""

    def bare(found: str) -> str:
        return found[1:-1] if found[0] in "({" else found

    text = _INDEX.sub(
        lambda m: f"{m[1] or ''}<sub>{bare(m[2] or m[3])}</sub>", html.escape(text, quote=False)
    )
    return _POWER.sub(lambda m: f"<sup>{bare(m[1])}</sup>", text)


def to_markdown(doc: str, link: Callable[[str], str | None] = lambda name: None) -> str:
    """A docstring of this library in Markdown: formulas typeset, names linked, code fenced.

    Args:
      doc: the docstring, without its indentation.
      link: from a name in backquotes to the address of its page, None if it has none.
    """
    return "\n".join(_convert(block, link) for block in _blocks(doc.split("\n")))


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Lines that are treated alike: examples, what is set off by an indent, and all others."""
    block: list[str] = []
    for line in lines:
        if block and _kind(block[-1], block) != _kind(line, block):
            yield block
            block = []
        block.append(line)
    yield block


def _kind(line: str, block: list[str]) -> str:
    """What a line is, after the lines before it."""
    if line.startswith(">>>") or (block and block[0].startswith(">>>") and line):
        return "example"
    set_off = line.startswith("  ") and (not block or not block[-1] or _is_set_off(block))
    return "indented" if set_off or (not line and _is_set_off(block)) else "text"


def _is_set_off(block: list[str]) -> bool:
    return bool(block) and block[0].startswith("  ")


def _convert(block: list[str], link: Callable[[str], str | None]) -> str:
    text = "\n".join(block)
    if block[0].startswith(">>>"):
        return f"```python\n{text}\n```\n"
    if _is_set_off(block):
        return _set_off(textwrap.dedent(text).strip())
    return "".join(
        _linked(piece, link) if piece.startswith("`") else _prose(piece)
        for piece in _CODE.split(text)
    )


def _set_off(text: str) -> str:
    """Python if it is Python, a formula otherwise."""
    try:
        compile(text, "docstring", "exec")
    except SyntaxError:
        return f'<pre class="formula">{typeset(text)}</pre>\n'
    return f"```python\n{text}\n```\n"


def _prose(text: str) -> str:
    """Text without code, in which Markdown finds no emphasis, link or tag."""
    return re.sub(r"([*\[\]])", r"\\\1", typeset(text))


def _linked(code: str, link: Callable[[str], str | None]) -> str:
    address = link(code.strip("`").partition("(")[0])
    return code if address is None else f"[{code}]({address})"


def _first_line(value: Any) -> str:
    doc = inspect.getdoc(value) or ""
    return " ".join(doc.partition("\n\n")[0].split())


def _address(module: str, name: str) -> str | None:
    """Address of a name in backquotes, as seen from a module's page; None if it has no page."""
    from pdoc.render_helpers import relative_link

    part = module.split(".")[1] if "." in module else ""
    places = {public.full: public for public in docs_checks.public_names()}
    found = places.get(name.removeprefix("recon_jax.")) or places.get(f"{part}.{name}")
    if found is None or found.home == module:  # names of the page itself are linked by pdoc
        return None
    return relative_link(module, found.home) + (f"#{found.inner}" if found.inner else "")


def _contents(module: str) -> str:
    """What is added to the page of the library, or of a part: a table of what is in it."""
    if module == "recon_jax":
        names = [name for name in docs_checks.modules() if name.count(".") == 1]
        rows = [
            (name.split(".")[1], name.replace(".", "/") + ".html", importlib.import_module(name))
            for name in names
        ]
    else:
        public = docs_checks.public_names()
        rows = [
            (item.name, _address(module, item.full), item.value)
            for item in public
            if module == f"recon_jax.{item.part}"
        ]
    lines = [
        f"| [`{name}`]({address}) | {to_markdown(_described(value)).replace('|', '&#124;')} |"
        for name, address, value in rows
    ]
    return "\n".join(["", "| name | what it is for |", "|---|---|", *lines]) if rows else ""


def _described(value: Any) -> str:
    """One line about a public value: of its docstring, or what it holds."""
    if inspect.ismodule(value) or callable(value):
        return _first_line(value)
    if isinstance(value, dict | tuple | list):
        return "One of " + ", ".join(f"`{name}`" for name in value)
    return f"`{value!r}`"


def build(workdir: Path) -> Path:
    """Write the pages; returns the path of the first one.

    Args:
      workdir: where they go; files of the same names are replaced.

    Raises:
      ValueError: if pdoc is not installed.
    """
    try:
        import pdoc
    except ImportError as error:
        raise ValueError(
            "building the reference needs pdoc; install it with pip install -e '.[docs]', or run "
            "with --check alone"
        ) from error

    def markdown(context: Any, doc: str) -> str:
        if doc.startswith(("Alias for field number", "Create new instance of")):
            return ""  # what Python says of a NamedTuple that says more itself
        module = context["module"]
        text = to_markdown(doc, functools.partial(_address, module.modulename))
        text = pdoc.docstrings.convert(text, "google", None)
        if module.is_package and doc == module.docstring:
            text += _contents(module.modulename)
        return text

    version = f"recon_jax {recon_jax.__version__}"
    pdoc.render.configure(docformat="google", show_source=False, footer_text=version)
    pdoc.render.env.filters["to_markdown"] = jinja2.pass_context(markdown)
    with contextlib.ExitStack() as stack:
        for place in (pdoc.doc, pdoc.doc_types):
            stack.enter_context(mock.patch.object(place, "safe_eval_type", _as_written))
        for part in docs_checks.PARTS:
            # pdoc would look for modules in __all__ alone, and describe what they define twice.
            fields = vars(importlib.import_module(f"recon_jax.{part}"))
            stack.enter_context(mock.patch.dict(fields))
            fields.pop("__all__", None)
        pdoc.pdoc("recon_jax", r"!recon_jax\..*\b_.*", output_directory=workdir)
    for page in workdir.rglob("*.html"):
        page.write_text(_without_dead_links(page.read_text()))
    return workdir / "index.html"


class _Written:
    """An annotation that is shown as it stands in the source."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _as_written(annotation: Any, *_: Any) -> Any:
    """In place of pdoc's evaluation: `Float[Array, "n d"]` says more than what it stands for."""
    text = getattr(annotation, "__forward_arg__", annotation)
    return _Written(text) if isinstance(text, str) else annotation


def _without_dead_links(page: str) -> str:
    """A page without links to members that it does not show, such as those of a Flax module."""
    known = set(re.findall(r'id="([^"]+)"', page))
    return re.sub(r'<a href="#([^"]+)">(.*?)</a>', lambda m: m[0] if m[1] in known else m[2], page)


def check() -> list[str]:
    """What is wrong with docstrings of public names and with examples, one line or more each."""
    examples = [
        fault for test in docs_checks.examples() for fault in docs_checks.example_faults(test)
    ]
    return [*docs_checks.faults(), *examples]


def main() -> None:
    """Check, or build, and say how it went."""
    parser = argparse.ArgumentParser(prog="python -m experiments.docs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--workdir", type=Path, default=Path("results/docs"), help="where pages go")
    parser.add_argument("--check", action="store_true", help="check docstrings and examples alone")
    options = parser.parse_args()
    if options.check:
        found = check()
        print("\n".join(found) or "docstrings are complete, and their examples true")
        sys.exit(1 if found else 0)
    start = time.perf_counter()
    try:
        first = build(options.workdir)
    except (ValueError, OSError) as error:
        print(f"experiments.docs: error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(docs_checks.modules())} pages in {time.perf_counter() - start:.0f} s: {first}")


if __name__ == "__main__":
    main()
