"""The notebooks of examples/ run from the first cell to the last, and are stored clean.

Left out: what they print, which their own text must fit (a reader sees it on a code host).
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from scripts import notebooks

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS == notebooks.NOTEBOOKS and len(NOTEBOOKS) >= 3


@each
def test_it_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel of its own, on one thread; a cell that fails raises here."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ran = notebooks.execute(path)
    assert all(c.execution_count for c in ran.cells if c.cell_type == "code")


@each
def test_it_is_clean(path: Path) -> None:
    assert notebooks.problems(path) == []


@each
def test_it_is_short_and_tells_a_story(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    code = [c for c in cells if c.cell_type == "code"]
    assert 5 <= len(code) <= 15 and cells[0].source.startswith("# ")
    assert sum(len(c.source.split()) for c in cells if c.cell_type == "markdown") > 150
    assert any("image/png" in o.get("data", {}) for c in code for o in c.outputs)


def test_what_changes_from_run_to_run_is_not_stored() -> None:
    code = nbformat.v4.new_code_cell("1", metadata={"execution": {"started": "now"}})
    code.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="step 3 of 9"),
        nbformat.v4.new_output("display_data", data={"text/plain": "12 tokens/s"}),
        nbformat.v4.new_output("display_data", data={"image/png": "aGk="}),
        nbformat.v4.new_output("stream", name="stdout", text="0.5"),
    ]
    tidied = notebooks.tidy(nbformat.v4.new_notebook(cells=[code], metadata={"kernel": "mine"}))
    kept = [o.get("name", o.output_type) for o in tidied.cells[0].outputs]
    assert kept == ["display_data", "stdout"]
    assert tidied.cells[0].metadata == {} and "kernel" not in tidied.metadata


def test_a_notebook_that_was_not_run_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), path)
    assert any("have not run in order" in line for line in notebooks.problems(path))
