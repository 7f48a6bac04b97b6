"""Writes what the documentation takes from the code: the README's table, every algorithm as
mathematics, the tree of docs/architecture.md, the names of docs/coming_from.md, the metrics of
docs/guide.md, and the pages of the lab (`lab_docs.py`, half a minute; `--quick` leaves them out).

`python scripts/docs.py` rewrites, `--check` only tells whether anything is stale (exit code 1).
"""

import ast
import io
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

import lab_docs

from logpi.algorithms import TABLE, describe, names
from logpi.algorithms.choosing import SITUATIONS
from logpi.commands.algorithms import main as table
from logpi.runs import metric_table

ROOT = Path(__file__).resolve().parent.parent


def markdown_table() -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        table(["--markdown"])
    return out.getvalue().strip()


def first_sentence(path: Path) -> str:
    """Of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=\.)\s", text.split("\n\n")[0].replace("\n", " "))[0]


def tree() -> str:
    """The first level of the package, a line each."""
    folders = [(f"{p.parent.name}/", p) for p in (ROOT / "logpi").glob("*/__init__.py")]
    files = [(p.name, p) for p in (ROOT / "logpi").glob("*.py")]
    lines = [f"  {name:<13} {first_sentence(p)}" for name, p in sorted(files) + sorted(folders)]
    return "\n".join(["```", "logpi/", *lines, "```"])


def names_elsewhere() -> str:
    """What other libraries call methods and options, and what to use for what has no such name."""
    dictionaries = (
        ("method", names.ROWS),
        ("option", names.OPTIONS),
        ("of the job", names.JOB_NAMES),
    )
    lines = ["| | here | elsewhere |", "|---|---|---|"]
    for kind, own_names in dictionaries:
        for here in sorted({own for other, own in own_names.items() if own != other}):
            others = (f"`{other}`" for other, own in own_names.items() if own == here != other)
            lines.append(f"| {kind} | `{here}` | {', '.join(others)} |")
    lines += [
        "",
        "Not understood, and what to do instead:",
        "",
        "| elsewhere | here |",
        "|---|---|",
    ]
    said: dict[str, list[str]] = {}
    for other, line in names.ELSEWHERE.items():
        said.setdefault(line.replace("|", "\\|"), []).append(f"`{other}`")
    return "\n".join([*lines, *(f"| {', '.join(v)} | {k} |" for k, v in said.items())])


def choosing() -> str:
    """What one has decides the method."""
    lines = [
        "# What you have decides the method",
        "",
        "`logpi algorithms --for WORD` prints an entry. It is where we would begin; the table and",
        "[the lab](lab/README.md) say what the rows do, [results](results.md) what we saw.",
        "",
        "| word | you have | row |",
        "|---|---|---|",
        *(f"| [{w}](#{w}) | {s.have} | `{s.row}` |" for w, s in SITUATIONS.items()),
    ]
    for word, s in SITUATIONS.items():
        lines += ["", f"## {word}", "", f"You have {s.have}. Take `{s.row}`: {s.why}.", ""]
        lines += ["```", s.command, "```"]
        if s.others:
            lines += ["", "| or | when |", "|---|---|"]
        lines += [f"| `{name}` | {when} |" for name, when in s.others]
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Every generated file with its text."""
    readme, architecture = ROOT / "README.md", ROOT / "docs" / "architecture.md"
    coming = ROOT / "docs" / "coming_from.md"
    listed = re.sub(
        r"(<!-- names -->\n)(?s:.*?)(<!-- /names -->)",
        lambda m: f"{m[1]}\n{names_elsewhere()}\n\n{m[2]}",
        coming.read_text(),
    )
    fresh = re.sub(
        r"(## The table\n\n)(?s:.*?)(\n\n`beta`)",
        lambda m: m[1] + markdown_table() + m[2],
        readme.read_text(),
    )
    drawn = re.sub(
        r"(<!-- tree -->\n)(?s:.*?)(<!-- /tree -->)",
        lambda m: f"{m[1]}{tree()}\n{m[2]}",
        architecture.read_text(),
    )
    guide = ROOT / "docs" / "guide.md"
    metrics = re.sub(
        r"(<!-- metrics -->\n)(?s:.*?)(<!-- /metrics -->)",
        lambda m: f"{m[1]}{metric_table.markdown()}\n{m[2]}",
        guide.read_text(),
    )
    chapters = "\n\n".join(f"## {name}\n\n```\n{describe(name)}\n```" for name in TABLE)
    page = (
        "# Algorithms\n\nAs `logpi describe NAME` prints them, from the compositions"
        f" themselves.\n\n{chapters}\n"
    )
    return {
        readme: fresh,
        architecture: drawn,
        coming: listed,
        guide: metrics,
        ROOT / "docs" / "algorithms.md": page,
        ROOT / "docs" / "choosing.md": choosing(),
    }


def stale(fresh: dict[Path, str]) -> list[Path]:
    """The files that are not there, or say something else."""
    return [
        path
        for path, text in fresh.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(flags: list[str]) -> int:
    unknown = set(flags) - {"--check", "--quick"}
    if unknown:
        sys.exit(f"unknown: {' '.join(sorted(unknown))}; there are --check and --quick")
    fresh = pages() | ({} if "--quick" in flags else lab_docs.texts(lab_docs.fresh_pages()))
    old = stale(fresh)
    if "--check" in flags:
        names = ", ".join(path.relative_to(ROOT).as_posix() for path in old)
        sys.exit(f"stale: {names}; run python scripts/docs.py" if names else 0)
    for path in old:
        path.write_text(fresh[path], encoding="utf-8")
    # A page of the lab that says something else has another picture.
    other = [p.stem for p in old if p.parent == lab_docs.PAGES and p.stem != "README"]
    lab_docs.pages(other, lab_docs.PAGES)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
