"""Writes what the documentation takes from the code: the README's table, and every algorithm as
mathematics.

`python scripts/docs.py` rewrites, `--check` only tells whether anything is stale (exit code 1).
"""

import io
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

from logpi.algorithms import TABLE, describe
from logpi.commands.algorithms import main as table

ROOT = Path(__file__).resolve().parent.parent


def markdown_table() -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        table(["--markdown"])
    return out.getvalue().strip()


def pages() -> dict[Path, str]:
    """Every generated file with its text."""
    readme = (ROOT / "README.md").read_text()
    fresh = re.sub(
        r"(## The table\n\n)(?s:.*?)(\n\n`beta`)", lambda m: m[1] + markdown_table() + m[2], readme
    )
    chapters = "\n\n".join(f"## {name}\n\n```\n{describe(name)}\n```" for name in TABLE)
    page = (
        "# Algorithms\n\nAs `logpi describe NAME` prints them, from the compositions"
        f" themselves.\n\n{chapters}\n"
    )
    return {ROOT / "README.md": fresh, ROOT / "docs" / "algorithms.md": page}


if __name__ == "__main__":
    stale = [
        path for path, text in pages().items() if not path.exists() or path.read_text() != text
    ]
    if "--check" in sys.argv:
        sys.exit(
            f"stale: {', '.join(p.name for p in stale)}; run python scripts/docs.py" if stale else 0
        )
    for path, text in pages().items():
        path.write_text(text)
