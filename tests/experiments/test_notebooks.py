"""The notebooks: short cells, prose before each, nothing stored, and they run."""

import json
import re
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LONGEST_CELL = 12


def cells_of(path):
    return json.loads(path.read_text())["cells"]


def code_of(path):
    return ["".join(cell["source"]) for cell in cells_of(path) if cell["cell_type"] == "code"]


def faults_of(text):
    """What is wrong with the file of a notebook, in words."""
    book, faults = json.loads(text), []
    if text != json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True) + "\n":
        faults.append("not as nbformat writes it")
    if sorted(book["metadata"]) != ["kernelspec", "language_info"]:
        faults.append(f"metadata {sorted(book['metadata'])}")
    if re.search(r"/(home|root|work|tmp|Users)/|[A-Z]:\\\\", text):
        faults.append("path of a machine")
    before = None
    for number, cell in enumerate(book["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            if len(re.findall(r"\w+", source)) < 8:
                faults.append(f"cell {number}: too little prose")
        else:
            if before != "markdown":
                faults.append(f"cell {number}: code without prose before it")
            if cell["outputs"] or cell["execution_count"] is not None:
                faults.append(f"cell {number}: outputs are stored")
            if len(source.splitlines()) > LONGEST_CELL:
                faults.append(f"cell {number}: more than {LONGEST_CELL} lines")
        if cell["metadata"]:
            faults.append(f"cell {number}: metadata {cell['metadata']}")
        before = cell["cell_type"]
    return faults


def test_there_is_one_a_paper_and_two_more():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["00", "01", "02", "03", "04", "05", "99"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_files_are_clean(path):
    assert faults_of(path.read_text()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_alone_installs_and_the_last_draws(path):
    code = code_of(path)
    assert 'find_spec("recon_jax") is None' in code[0]
    assert ["%pip" in cell for cell in code] == [True] + [False] * (len(code) - 1)
    assert cells_of(path)[-1]["cell_type"] == "code"
    assert "plt." in code[-1]


def broken(change):
    book = json.loads(NOTEBOOKS[0].read_text())
    change(book)
    return json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda book: book["cells"][1].update(execution_count=3), "cell 1: outputs are stored"),
        (lambda book: book["cells"][1].update(outputs=[{}]), "cell 1: outputs are stored"),
        (lambda book: book["cells"][3]["source"].extend(["\nx"] * 12), "cell 3: more than"),
        (lambda book: book["cells"].pop(2), "cell 2: code without prose"),
        (lambda book: book["cells"][2].update(source=["See below."]), "cell 2: too little prose"),
        (lambda book: book["cells"][1]["source"].append("\n'/home/me/x'"), "path of a machine"),
        (lambda book: book["metadata"].update(widgets={}), "metadata"),
        (lambda book: book["cells"][1]["metadata"].update(id="a"), "cell 1: metadata"),
    ],
)
def test_faults_are_found(change, fault):
    (found,) = faults_of(broken(change))
    assert found.startswith(fault)


def test_a_reordered_file_is_found():
    book = json.loads(NOTEBOOKS[0].read_text())
    assert faults_of(json.dumps(book, indent=2) + "\n") == ["not as nbformat writes it"]


def execute(path, folder):
    """The cells of a notebook after a kernel of its own has run them, and the seconds it took."""
    pytest.importorskip("ipykernel", reason="ipykernel is missing: pip install -e '.[test]'")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is missing")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is missing")
    book, start = nbformat.read(path, as_version=4), time.perf_counter()
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources=resources, record_timing=False
    )
    client.execute()
    return [cell for cell in book.cells if cell.cell_type == "code"], time.perf_counter() - start


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parents[1]))
    cells, seconds = execute(path, tmp_path)
    print(f"{path.stem}: {seconds:.0f} s")
    kinds = [output.output_type for cell in cells for output in cell.outputs]
    assert "error" not in kinds
    # Warnings come there.
    said = [o.text for cell in cells for o in cell.outputs if o.get("name") == "stderr"]
    assert said == []
    assert any("image/png" in output.get("data", {}) for output in cells[-1].outputs)
    assert list(tmp_path.iterdir()) == []
