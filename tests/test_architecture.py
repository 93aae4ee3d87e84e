"""Rules of the layout, read from the source: who may import whom, and who knows devices."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "recon_jax"

# Arrows go down only: a part may import parts of a lower level, never of its own or a higher one.
LEVELS = {
    "checks": 0,
    "files": 0,
    "identity": 0,
    "features": 1,
    "linalg": 1,
    "parallel": 1,
    "neighbors": 2,
    "models": 2,
    "losses": 2,
    "sizing": 2,
    "data": 2,
    "diffeo": 2,
    "augment": 3,
    "geometry": 3,
    "multiview": 3,
    "spectral": 3,
    "training": 4,
    "probes": 4,
    "report": 5,
    "audit": 6,
}
DEVICE_WORDS = {"pmap", "shard_map", "make_mesh", "distributed"}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    """The part of the library a file belongs to; None for the package's own __init__."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return None if first == "__init__" else first


def imported_modules(tree, package):
    """Absolute dotted names that a module imports, `from a import b` counting as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def import_faults(source, part, package):
    faults = []
    for name in imported_modules(ast.parse(source), package):
        top, *rest = name.split(".")
        if top in ("experiments", "configs", "tests"):
            faults.append(f"imports {name}")
        if top != "recon_jax" or not rest or rest[0] == part or rest[0].startswith("__"):
            continue
        if rest[0] not in LEVELS:
            faults.append(f"imports {name}, a part without a level")
        elif part is None or LEVELS[rest[0]] >= LEVELS[part]:
            faults.append(f"{part} imports {name}, which is not below it")
    return faults


def device_faults(source):
    faults = []
    for node in ast.walk(ast.parse(source)):
        words = set()
        if isinstance(node, ast.Attribute):
            words = {node.attr}
        elif isinstance(node, ast.Name):
            words = {node.id}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            words = {word for alias in node.names for word in f"{module}.{alias.name}".split(".")}
        faults += [f"line {node.lineno}: {word}" for word in sorted(words & DEVICE_WORDS)]
    return faults


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_go_down(path):
    part = part_of(path)
    assert part is None or part in LEVELS, f"{part} has no level: add it to LEVELS and the design"
    package = ".".join(path.relative_to(ROOT).parts[:-1])
    assert import_faults(path.read_text(), part, package) == []


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if part_of(path) != "parallel"],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_only_parallel_knows_devices(path):
    assert device_faults(path.read_text()) == []


def test_parallel_is_seen_to_know_devices():
    found = {path.name: device_faults(path.read_text()) for path in PACKAGE.glob("parallel/*.py")}
    # On the day pmap goes, one file changes.
    assert [name for name, faults in found.items() if "pmap" in str(faults)] == ["mapping.py"]
    assert "distributed" in str(found["processes.py"])


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("import experiments.alignment", "report"),
        ("from configs import alignment", "report"),
        ("import recon_jax.report", "spectral"),
        ("from recon_jax import training", "spectral"),
        ("from recon_jax.geometry.tangents import tangent", "spectral"),
        ("from recon_jax.audit import audit", "report"),
        ("def f():\n    from recon_jax import probes", "data"),
        ("from ..training import step", "spectral"),
        ("from .. import training", "spectral"),
        ("from recon_jax import parallel", "linalg"),
        ("from recon_jax.unheard_of import x", "report"),
        ("from recon_jax import data", None),
    ],
)
def test_the_import_rule_catches(source, part):
    assert import_faults(source, part, f"recon_jax.{part}")


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("from recon_jax import linalg, parallel", "spectral"),
        ("from recon_jax.spectral import moments", "spectral"),
        ("from . import moments\nfrom .moments import Moments", "spectral"),
        ("from recon_jax import data", "spectral"),
        ("import jax.numpy as jnp", "spectral"),
        ("from recon_jax import __version__", "report"),
    ],
)
def test_the_import_rule_lets_pass(source, part):
    assert import_faults(source, part, f"recon_jax.{part}") == []


@pytest.mark.parametrize(
    "source",
    [
        "import jax\njax.pmap(f)",
        "from jax import pmap",
        "from jax.experimental.shard_map import shard_map",
        "import jax\njax.make_mesh((1,), ('x',))",
        "import jax\njax.distributed.initialize()",
        "import jax.distributed",
        "from jax import distributed as d",
    ],
)
def test_the_device_rule_catches(source):
    assert device_faults(source)


def test_the_device_rule_ignores_prose():
    assert device_faults('"""For use under pmap, see jax.distributed."""\n# shard_map\n') == []


def public_names():
    """(part, name) of everything that the parts of the library re-export."""
    for path in sorted(PACKAGE.glob("*/__init__.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                yield from ((path.parent.name, alias.asname or alias.name) for alias in node.names)


@pytest.mark.parametrize(("part", "name"), list(public_names()))
def test_public_names_are_documented(part, name):
    public = getattr(importlib.import_module(f"recon_jax.{part}"), name)
    if not callable(public):  # tables of names, constants
        return
    doc = inspect.getdoc(public) or ""
    # A NamedTuple without a docstring gets its signature for one.
    assert len(doc.split()) >= 4
    assert not doc.startswith(f"{name}(")


def test_parts_re_export_something():
    names = list(public_names())
    assert len(names) == len(set(names))
    parts = {"data", "models", "parallel", "probes", "report", "spectral", "training"}
    assert parts <= {part for part, _ in names}
