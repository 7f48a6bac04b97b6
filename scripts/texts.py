"""The reading companion, docs/texts*.md: plays its Python, so that no number goes stale.

    python scripts/texts.py            writes what each `>>>` line prints now, and the counts
    python scripts/texts.py --check    says what is stale (exit code 1); it runs the commands too

A block of `pycon` is played as in `python`; the blocks of a page share one namespace. In a block
of `console` each `$ logpi …` is run, and every line below it must be a line of its output ("…"
stands for lines left out). `<!-- slow: 40 s -->` above a block: not run here. `<!-- count -->`
encloses the table of what is shown. Left out: whether the prose agrees with the numbers; but what
the errata have in back quotes in their last column, their section must have.
"""

from __future__ import annotations

import doctest
import io
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import torch

from logpi.cli import main as logpi

__all__ = [
    "INDEX",
    "PAGES",
    "anchor",
    "consoles",
    "counted",
    "errata",
    "missing",
    "played",
    "unshown",
]

DOCS = Path(__file__).resolve().parent.parent / "docs"
INDEX = DOCS / "texts.md"
PAGES = tuple(DOCS / f"texts-{name}.md" for name in ("ju", "liu", "chan"))
PLAYED = re.compile(r"^```pycon\n(.*?)^```\n", re.M | re.S)
CONSOLE = re.compile(r"^(<!-- slow[^\n]*-->\n)?```console\n(.*?)^```\n", re.M | re.S)
SECTION = re.compile(r"^#{2,4} (.+?)\n(.*?)(?=^#{2,4} |\Z)", re.M | re.S)
COUNT = re.compile(r"(<!-- count -->\n)(.*?)(<!-- /count -->)", re.S)


def played(text: str) -> str:
    """A page with what its Python prints now."""
    names: dict[str, object] = {"__name__": "__main__"}
    dtype = torch.get_default_dtype()
    try:
        return PLAYED.sub(lambda block: f"```pycon\n{_play(block[1], names)}```\n", text)
    finally:
        torch.set_default_dtype(dtype)


def _play(block: str, names: dict[str, object]) -> str:
    lines = []
    for example in doctest.DocTestParser().get_examples(block):
        source = example.source.rstrip("\n").split("\n")
        lines += [f">>> {source[0]}", *(f"... {line}".rstrip() for line in source[1:])]
        out = io.StringIO()
        with redirect_stdout(out), warnings.catch_warnings(action="ignore"):
            exec(compile(example.source, "<page>", "single"), names)
        lines += out.getvalue().rstrip("\n").split("\n") if out.getvalue() else []
    return "\n".join(lines) + "\n"


def consoles(text: str) -> Iterator[tuple[str, list[str]]]:
    """(command line, lines it must print) of each block that is not slow."""
    for slow, block in CONSOLE.findall(text):
        if slow:
            continue
        for part in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.M)[1:]:
            command, _, rest = part.partition("\n")
            yield command, [x for x in rest.split("\n") if x.strip() and x.strip() != "…"]


@cache
def _output(command: str) -> str:
    """What a command prints; of the lab's, what its page shows, which has a test of its own."""
    for page in (DOCS / "lab").glob("*.md"):
        text = page.read_text("utf-8").replace("\\\n", " ")
        for shown, printed in re.findall(r"^\$ ([^\n]*)\n(.*?)^```", text, re.M | re.S):
            if shown.split() == command.split():
                return printed
    out, error = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(error):
        code = logpi(shlex.split(command)[1:])
    return out.getvalue() if code == 0 else f"{out.getvalue()}{error.getvalue()}"


def missing(text: str) -> list[str]:
    """The lines of a page that their commands do not print."""
    wrong = []
    for command, wanted in consoles(text):
        # the width of columns may change with other rows
        printed = {" ".join(line.split()) for line in _output(command).split("\n")}
        wrong += [f"$ {command}: {x}" for x in wanted if " ".join(x.split()) not in printed]
    return wrong


def anchor(heading: str) -> str:
    """What GitHub calls a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def errata(index: str) -> Iterator[tuple[str, str, list[str]]]:
    """(page, anchor, what stands in back quotes in the last column) of each row of the errata."""
    for line in re.findall(r"^\| \d+ \|.*\|$", index, re.M):
        link = re.search(r"\]\((texts-\w+\.md)#([\w-]+)\)", line)
        assert link, f"no section is named: {line}"
        yield link[1], link[2], re.findall(r"`([^`]+)`", line.rsplit(" | ", 1)[1])


def unshown(index: str) -> list[str]:
    """The numbers of the errata that their section does not have."""
    sections = {
        (page.name, anchor(heading)): body
        for page in PAGES
        for heading, body in SECTION.findall(page.read_text("utf-8"))
    }
    return [
        f"errata, {page}#{place}: {number}"
        for page, place, numbers in errata(index)
        for number in numbers
        if number not in sections.get((page, place), "")
    ]


def counted() -> str:
    """The table of what each page has, as Markdown."""
    head = "| page | sections | with Python | with a command | by reference |"
    lines = [head, "|---|---|---|---|---|"]
    total = [0] * 4
    for page in PAGES:
        found = [body for _, body in SECTION.findall(page.read_text("utf-8")) if "**Says**" in body]
        python = sum("```pycon" in body for body in found)
        command = sum("```console" in body for body in found)
        bare = sum("```" not in body for body in found)
        numbers = [len(found), python, command, bare]
        total = [a + b for a, b in zip(total, numbers, strict=True)]
        lines.append(f"| [{page.stem}]({page.name}) | {' | '.join(map(str, numbers))} |")
    examples = sum(p.read_text("utf-8").count("\n>>> ") for p in PAGES)
    lines.append(f"| all | {' | '.join(map(str, total))} |")
    rows = len(list(errata(INDEX.read_text("utf-8"))))
    return "\n".join([*lines, "", f"{examples} lines of Python are played, {rows} errata shown."])


def _index() -> str:
    text = INDEX.read_text("utf-8")
    return COUNT.sub(lambda m: f"{m[1]}{counted()}\n{m[3]}", text)


def _main() -> int:
    check, wrong = "--check" in sys.argv, []
    for page in PAGES:
        text = page.read_text("utf-8")
        fresh = played(text)
        if check:
            wrong += [f"stale: {page.name}"] * (fresh != text) + missing(text)
        else:
            page.write_text(fresh, "utf-8")
    if check:
        wrong += [f"stale: {INDEX.name}"] * (_index() != INDEX.read_text("utf-8"))
        wrong += unshown(INDEX.read_text("utf-8"))
    else:
        INDEX.write_text(_index(), "utf-8")
    print("\n".join(wrong), end="\n" if wrong else "")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(_main())
