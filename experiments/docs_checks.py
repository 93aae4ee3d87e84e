"""What the reference must hold: complete docstrings of public names, examples that are true."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import recon_jax

PACKAGE = Path(recon_jax.__file__).parent
PARTS = tuple(sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))

# Parts that hold what a paper says; their public names have a source.
PAPERS = ("spectral", "geometry", "diffeo", "multiview")

# Described where the words point to.
_ELSEWHERE = re.compile(r"\bArguments and errors as for `")


class Public(NamedTuple):
    """A name that a part of the library exports.

    Attributes:
      part: of the library, such as "spectral".
      name: as it is exported.
      home: the module that defines it.
      inner: its name there; "" for a module.
      value: what it stands for.
    """

    part: str
    name: str
    home: str
    inner: str
    value: Any

    @property
    def full(self) -> str:
        """Such as "spectral.alignment_curve"."""
        return f"{self.part}.{self.name}"


def exported(source: str) -> dict[str, tuple[str, str]]:
    """What the source of an `__init__` re-exports: name to module and name there."""
    imports = (node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom))
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in imports
        for alias in node.names
    }


@functools.cache
def public_names() -> tuple[Public, ...]:
    """Everything that the parts of the library re-export, in their order."""
    found = []
    for part in PARTS:
        package = importlib.import_module(f"recon_jax.{part}")
        for name, (home, inner) in exported(_source(package.__name__)).items():
            value = getattr(package, name)
            if inspect.ismodule(value):
                home, inner = value.__name__, ""
            while inner in (further := exported(_source(home))):
                home, inner = further[inner]
            found.append(Public(part, name, home, inner, value))
    return tuple(found)


def _source(module: str) -> str:
    return Path(importlib.import_module(module).__file__).read_text()


def modules() -> list[str]:
    """Dotted names of all modules of the library but private ones, sorted."""
    names = []
    for path in PACKAGE.rglob("*.py"):
        parts = ["recon_jax", *path.relative_to(PACKAGE).with_suffix("").parts]
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            names.append(".".join(parts))
    return sorted(names)


def docstring_faults(function: Callable[..., Any]) -> list[str]:
    """What the docstring of a function lacks: the line, arguments, returns, errors."""
    function = inspect.unwrap(function)
    doc = inspect.getdoc(function) or ""
    signature = inspect.signature(function)
    faults = [] if _has_line(doc) else ["no first line of three words that ends with a stop"]
    if _ELSEWHERE.search(doc) is None:
        names = list(signature.parameters)
        # A single argument may be described in the sentence that has its name.
        alone = len(names) == 1 and re.search(rf"\b{names[0]}\b", doc)
        missing = [name for name in names if not alone and not _describes(doc, name)]
        faults += [f"argument {name} is not described" for name in missing]
        if _raises(function) and "Raises:" not in doc:
            faults.append("raises errors, but has no section Raises")
    several = str(signature.return_annotation).startswith("tuple[")
    if several and "Returns:" not in doc and "tuple" not in doc.partition("\n")[0]:
        faults.append("returns several values, but has no section Returns")
    return faults


def class_faults(cls: type) -> list[str]:
    """What the docstring of a class lacks: the line, its fields."""
    doc = inspect.getdoc(cls) or ""
    fields = getattr(cls, "_fields", None) or getattr(cls, "__dataclass_fields__", ())
    # Those of every Flax module, and what a class takes over from its base, are described there.
    own = [name for name in fields if name not in ("parent", "name") and _is_own(cls, name)]
    faults = [] if _has_line(doc) else ["no first line of three words that ends with a stop"]
    # Beside the field, or in the sentences where a field is called what it is.
    known = _described_beside(cls) | set(re.findall(r"\w+", doc))
    missing = [name for name in own if name not in known]
    return faults + [f"field {name} is not described" for name in missing]


def _described_beside(cls: type) -> set[str]:
    """Fields that are followed by a docstring of their own."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body
    return {
        field.target.id
        for field, after in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr)
    }


def _is_own(cls: type, field: str) -> bool:
    return not any(field in getattr(base, "__annotations__", {}) for base in cls.__mro__[1:])


def _has_line(doc: str) -> bool:
    line = doc.partition("\n\n")[0]
    return len(line.split()) >= 3 and line.rstrip().endswith((".", ":", "?"))


def _describes(doc: str, name: str) -> bool:
    return re.search(rf"^ +\**{re.escape(name)}: \S", doc, re.MULTILINE) is not None


def _raises(function: Callable[..., Any]) -> bool:
    """Whether the body itself raises; what is refused by what it calls, is not seen."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    inner = {
        node
        for child in ast.walk(tree)
        if child is not tree and isinstance(child, ast.FunctionDef | ast.Lambda)
        for node in ast.walk(child)
    }
    return any(isinstance(node, ast.Raise) for node in ast.walk(tree) if node not in inner)


def has_source(public: Public) -> bool:
    """Whether a paper is named by a docstring: its own, its module's or its part's."""
    above = (importlib.import_module(name) for name in (public.home, f"recon_jax.{public.part}"))
    return any("Source: " in (inspect.getdoc(place) or "") for place in (public.value, *above))


def faults() -> list[str]:
    """What is wrong with the docstrings of public names, one line each."""
    found = []
    for public in public_names():
        if inspect.isclass(public.value):
            lacking = class_faults(public.value)
        elif callable(public.value):
            lacking = docstring_faults(public.value)
        else:  # a table of names, or a module
            continue
        if public.part in PAPERS and not has_source(public):
            lacking.append("no source: of its own, its module or its part")
        found += [f"{public.full}: {fault}" for fault in lacking]
    return found


def examples() -> Iterator[doctest.DocTest]:
    """The examples of all docstrings, as tests; read from the source, which no decorator hides."""
    parser = doctest.DocTestParser()
    for module in modules():
        home = importlib.import_module(module)
        file = home.__file__
        for node in ast.walk(ast.parse(Path(file).read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            doc = ast.get_docstring(node) or ""
            if ">>>" in doc:
                name = f"{module}.{getattr(node, 'name', '')}".removesuffix(".")
                line = node.body[0].lineno - 1
                yield parser.get_doctest(doc, dict(vars(home)), name, file, line)


def example_faults(test: doctest.DocTest) -> list[str]:
    """What the examples of one docstring print otherwise than they say; none if all is well."""
    output: list[str] = []
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(verbose=False, optionflags=options)
    runner.run(test, out=output.append)
    return ["".join(output)] if output else []
