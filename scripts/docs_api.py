"""The API pages of the site: a page for each folder of the package, a line for each public name,
and every option of every job.

mkdocstrings fills the pages in when the site is built; what is here names the modules. Left out:
commands and demonstrations, which have no API, and modules in which nothing is public.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import logpi
from docs import first_sentence

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "logpi"
# Folders without an API of their own.
WITHOUT = ("commands", "demos")
JOBS = ("RL", "SFT", "Prefer", "RewardModel", "Gym", "Evaluate")


@cache
def modules() -> dict[str, list[Path]]:
    """Folder, or "core" for the first level → its modules with something public."""
    folders: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).parts
        folder = parts[0] if len(parts) > 1 else "core"
        if folder not in WITHOUT and path.name != "__main__.py" and public(path):
            folders.setdefault(folder, []).append(path)
    return folders


def public(path: Path) -> bool:
    """Whether a module defines a class or a function that has a docstring and no underscore."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (n for n in tree.body if isinstance(n, kinds))
    return any(ast.get_docstring(n) for n in nodes if not n.name.startswith("_"))


def dotted(path: Path) -> str:
    """`logpi/ops/kl.py` is logpi.ops.kl."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def place(path: str) -> tuple[str, str]:
    """The page and the anchor of a module's file."""
    file = ROOT / path
    for folder, files in modules().items():
        if file in files:
            return f"api/{folder}.md", dotted(file)
    folder = file.relative_to(PACKAGE).parts[0]
    return (f"api/{folder}.md", "") if folder in modules() else ("api/index.md", "")


def pages() -> dict[str, str]:
    """Path in the site → Markdown."""
    texts = {"api/index.md": _index(), "api/options.md": _options()}
    for folder, files in modules().items():
        name = "logpi" if folder == "core" else f"logpi.{folder}"
        about = PACKAGE / folder / "__init__.py" if folder != "core" else PACKAGE / "__init__.py"
        entries = "\n".join(f"::: {dotted(path)}\n" for path in files)
        texts[f"api/{folder}.md"] = f"# {name}\n\n{first_sentence(about)}\n\n{entries}"
    return texts


def _index() -> str:
    lines = ["# API", "", "What `import logpi` gives:", "", "| name | what it is |", "|---|---|"]
    for name in logpi.__all__:
        if not name.startswith("__"):
            lines.append(f"| {_link(name)} | {_first_line(getattr(logpi, name))} |")
    lines += ["", "The folders, a page each:", "", "| folder | what it is |", "|---|---|"]
    for folder in modules():
        if folder == "core":
            lines.append("| [logpi](core.md) | the modules of the first level |")
            continue
        text = first_sentence(PACKAGE / folder / "__init__.py")
        lines.append(f"| [logpi.{folder}](api/{folder}.md) | {text} |".replace("(api/", "("))
    return "\n".join([*lines, "", "[Every option of every job](options.md)", ""])


def _link(name: str) -> str:
    thing: Any = getattr(logpi, name)
    module = import_module(thing.__module__)
    page, _ = place(Path(str(module.__file__)).relative_to(ROOT).as_posix())
    anchor = f"{thing.__module__}.{thing.__name__}"
    return f"[`logpi.{name}`]({Path(page).name}#{anchor})"


def _first_line(thing: Any) -> str:
    text = (thing.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    return " ".join(text.split()).replace("|", "\\|")


def _options() -> str:
    """Every option of every job, with its default."""
    from logpi.jobs.options.shown import ordered

    lines = ["# Options of jobs", "", "From Python by keyword, on the command line as a flag."]
    for name in JOBS:
        job = getattr(logpi, name)
        lines += ["", f"## logpi.{name}", "", "| option | what it does |", "|---|---|"]
        for option in ordered(job):
            text = option.shown().replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| `{option.name}` | {text} |")
    return "\n".join([*lines, ""])
