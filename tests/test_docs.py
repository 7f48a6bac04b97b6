"""The documentation is true: command lines parse, options, links and names exist, Python runs.

Read are README, CONTRIBUTING, CHANGELOG and docs/, but for docs/log: its entries are of their day.
The README's Python runs, in order and in one namespace; so does a block of another page that has
the comment `<!-- runs -->` above it. Of the other blocks the imports run. Left out: whether a
command does what the page says.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from logpi.algorithms import TABLE
from logpi.algorithms import options as settings
from logpi.commands import COMMANDS
from logpi.commands.launch import read as launch
from logpi.demos.r1 import _anew as without_stage
from logpi.errors import UserError
from logpi.jobs.options.command_line import CommandLine, parse
from logpi.jobs.options.fields import option_fields
from logpi.jobs.options.preset import flags_of_gym
from logpi.jobs.sweep import arguments as sweep

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if p.parent.name != "log"),
]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
BLOCK = re.compile(r"^(<!-- runs -->\n+)?```([^\n]*)\n(.*?)^```", re.M | re.S)
# Of programs that are not ours and of our scripts; what the guide says is refused.
OTHER_OPTIONS = {"--stdin", "--check", "--quick", "--torch", "--batch-size"}
# Of torchrun, accelerate, Ray, SLURM and other libraries, as far as `_`.
OTHER_OPTIONS |= {"--shutdown-timeout", "--nproc-per-node", "--max-restarts", "--num", "--actor"}
OTHER_OPTIONS |= {"--vllm", "--head", "--address", "--relative", "--max-num-seqs", "--peer"}
OTHER_OPTIONS |= {"--outfile", "--outtype"}


def blocks(page: str, *languages: str) -> Iterator[tuple[bool, str]]:
    """(marked as running, text) of each block in one of these languages."""
    for mark, language, text in BLOCK.findall(TEXTS[page]):
        if language in languages:
            yield bool(mark), text


def inline(page: str) -> list[str]:
    """What stands in back quotes outside blocks."""
    return re.findall(r"`([^`\n]+)`", BLOCK.sub("", TEXTS[page]))


# --- commands ---


def command_lines() -> Iterator[tuple[str, str]]:
    """(page, line) of each `logpi …` in a block, continuations joined, comments off."""
    for page in TEXTS:
        for _, text in blocks(page, "", "sh", "bash", "console"):
            for line in text.replace("\\\n", " ").splitlines():
                line = re.sub(r"\s+# .*", "", line).strip()
                command = re.match(r"(?:\$ |[A-Z_]+=\S+ )*(logpi .*)", line)
                if command and "…" not in line:
                    yield page, command[1]


LINES = sorted(set(command_lines()))


def test_there_are_command_lines() -> None:
    assert len(LINES) > 40


@pytest.mark.parametrize(("page", "line"), LINES, ids=[f"{p}: {text[:60]}" for p, text in LINES])
def test_command_lines_parse(page: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command's own parser; nothing is run."""
    _, command, *words = shlex.split(line)
    if command in ("--help", "--version"):
        return
    assert command in COMMANDS, f"there is no `logpi {command}`"
    options = COMMANDS[command].declaration()
    if isinstance(options, dict):
        assert words and words[0] in options, f"there is no `{' '.join([command, *words[:1]])}`"
        options = options[words.pop(0)].arguments
    if command == "launch":
        launch(words)
        return
    if command == "sweep" and "--resume" not in words:
        sweep(words)
        return
    if command == "r1":
        words = without_stage(words)[0]
    read = parse
    if "--resume" in words or "--repeat" in words:
        # What must be given is in the run.
        read = lambda cls, argv, prog: CommandLine(cls, prog).options(argv)  # noqa: E731
    try:
        read(options, words, f"logpi {command}")
    except (SystemExit, UserError) as error:
        assert getattr(error, "code", 1) == 0, f"{line}\n{capsys.readouterr().err or error}"


def option_words() -> set[str]:
    """Every option of every command and every setting of an algorithm, in all spellings."""
    words: set[str] = set()
    for entry in COMMANDS.values():
        table = entry.declaration()
        classes = [c.arguments for c in table.values()] if isinstance(table, dict) else [table]
        for field in (f for cls in classes for f in option_fields(cls)):
            words |= {*field.words, field.flag.replace("--", "--no-", 1)}
            if field.flags is flags_of_gym:
                words |= {w for f in flags_of_gym({"env": "CartPole-v1"}) for w in f.words}
    names = {name for row in TABLE for o in settings(row) for name in (o.name, *o.aliases)}
    return (
        words
        | {"--help", "--version", "--from"}
        | {f"--{name.replace('_', '-')}" for name in names}
    )


@pytest.mark.parametrize("page", TEXTS)
def test_options_exist(page: str) -> None:
    texts = [t for t in inline(page) if not t.startswith("python ")]
    words = {w for text in texts for w in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)}
    unknown = words - option_words() - OTHER_OPTIONS
    assert not unknown


# --- links and names ---


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings: `## The table` is #the-table."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", [*TEXTS, "docs/log/index.md"])
def test_links_lead_somewhere(page: str) -> None:
    here = ROOT / page
    text = BLOCK.sub("", here.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (here.parent / name) if name else here
        assert there.exists(), f"{page}: {target}"
        assert not anchor or there.suffix != ".md" or anchor in anchors(there), f"{page}: {target}"


def resolves(name: str) -> bool:
    """Is it a module, or something in one?"""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


@pytest.mark.parametrize("page", [p for p in TEXTS if p != "CHANGELOG.md"])
def test_python_names_exist(page: str) -> None:
    names = {n for text in inline(page) for n in re.findall(r"\blogpi(?:\.[A-Za-z_]\w*)+", text)}
    assert not {n for n in names if not resolves(n)}


@pytest.mark.parametrize("page", [p for p in TEXTS if p != "CHANGELOG.md"])
def test_files_exist(page: str) -> None:
    """`logpi/ops/kl.py`, `tests/families.py`: what a page names of this repository is there."""
    tops = "logpi|tests|docs|benchmarks|examples|scripts"
    names = {t for text in inline(page) for t in re.findall(rf"\b(?:{tops})/[\w./-]+\.\w+", text)}
    outputs = {"benchmarks/results/control.png"}
    assert not {n for n in names - outputs if not (ROOT / n).exists()}


# --- Python ---


def python_of(page: str) -> Iterator[tuple[bool, str]]:
    for marked, text in blocks(page, "python"):
        yield marked or page == "README.md", text


@pytest.mark.parametrize("page", [p for p in TEXTS if any(blocks(p, "python"))])
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order and in one namespace, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "page"}
    for number, (runs, text) in enumerate(python_of(page)):
        tree = ast.parse(text)
        if not runs:
            tree.body = [s for s in tree.body if isinstance(s, ast.Import | ast.ImportFrom)]
        exec(compile(tree, f"{page}, block {number}", "exec"), names)
