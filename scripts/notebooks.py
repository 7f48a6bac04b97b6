"""Runs the notebooks of examples/ and stores what they print and draw, so that they can be read on
a code host.

    python scripts/notebooks.py [NAME …]    run, format and store them (all without a name)
    python scripts/notebooks.py --check     say what is not clean, and run nothing

A notebook is clean if every cell has run in order and without an error, code is formatted, and the
file is small. What changes from run to run is not stored: times, widgets, progress on stderr.
Left out: the tests, which run them (`tests/examples/test_notebooks.py`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
# bytes of a file: a code host shows it at once
LARGEST = 300_000
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> Any:
    """The notebook as it is after running in an empty directory.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as empty:
        place = {"metadata": {"path": empty}}
        client = NotebookClient(notebook, timeout=600, startup_timeout=300, resources=place)
        client.execute()
    return notebook


def passing(output: Any) -> bool:
    """Progress: what goes to stderr, and a display without a picture."""
    return output.get("name") == "stderr" or (
        output.output_type == "display_data" and "image/png" not in output.data
    )


def joined(outputs: list[Any]) -> list[Any]:
    """What is printed arrives in pieces; neighbours are one output."""
    whole: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and whole and whole[-1].output_type == "stream":
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def tidy(notebook: Any) -> Any:
    """Without what changes from run to run: ids and times of cells, stderr, metadata of editors."""
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat_minor = 5
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = joined([x for x in cell.outputs if not passing(x)])
            for output in cell.outputs:
                output.pop("metadata", None)
                if output.output_type in ("display_data", "execute_result"):
                    output.metadata = nbformat.from_dict({})
    return notebook


def problems(path: Path) -> list[str]:
    """What is not clean, a line each."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = []
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("its cells have not run in order")
    if any(x.output_type == "error" for cell in code for x in cell.outputs):
        found.append("a cell ended with an error")
    if path.stat().st_size > LARGEST:
        found.append(f"{path.stat().st_size:,} bytes, at most {LARGEST:,}")
    if nbformat.writes(tidy(nbformat.read(path, as_version=4))) != path.read_text().rstrip("\n"):
        found.append("it is not tidy")
    return [f"{path.name}: {line}; run python scripts/notebooks.py {path.stem}" for line in found]


def main(words: list[str]) -> int:
    if "--check" in words:
        found = [line for path in NOTEBOOKS for line in problems(path)]
        print("\n".join(found), file=sys.stderr, end="\n" if found else "")
        return bool(found)
    known = {path.stem: path for path in NOTEBOOKS}
    if unknown := set(words) - known.keys():
        sys.exit(f"no notebook {', '.join(unknown)}; there are {', '.join(known)}")
    for name in words or known:
        path = known[name]
        subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(path)], check=True)
        path.write_text(nbformat.writes(tidy(execute(path))) + "\n", encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
