"""Builds the documentation's site into build/site, strictly: a warning is an error.

    python scripts/docs_site.py            build, then check every link (scripts/docs_links.py)
    python scripts/docs_site.py --serve    build, and serve at http://127.0.0.1:8000

The pages are those of the repository: docs/, README, CONTRIBUTING, CHANGELOG, the notebooks of
examples/, and the API from docstrings (scripts/docs_api.py). They are laid out under build/docs,
where links between them become links of the site, and TeX becomes MathML. A new page in docs/ is
taken up by itself: `CHAPTERS` says where, and what it does not name comes under "More". Left out:
what pages say about the code, which scripts/docs.py writes.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import docs_api
import docs_links
import nbformat
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "docs"
PAGES, SITE = OUT / "docs", ROOT / "build" / "site"

# Heading of the navigation → pages or folders of the site, in a reader's order. A pattern may match
# nothing: pages come and go.
CHAPTERS: dict[str, tuple[str, ...]] = {
    "Start": ("index.md", "choosing.md", "guide.md", "models.md", "verifiers.md"),
    "Learn": ("texts.md", "texts*.md", "texts/*.md", "notebooks/*.md", "algorithms.md"),
    "Lab": ("lab/index.md", "lab/*.md"),
    "Training": (
        "control.md",
        "preferences.md",
        "distillation.md",
        "r1.md",
        "tools.md",
        "conversations.md",
        "environments.md",
        "tools_demo.md",
        "evaluation.md",
        "serving.md",
    ),
    "Scale": ("scale.md", "scale-*.md", "speed.md", "viewer.md"),
    "Results": ("results.md", "log/index.md", "log/*.md"),
    "Coming from": ("coming_from.md",),
    "API": ("api/index.md", "api/options.md", "api/core.md", "api/*.md"),
    "More": ("architecture.md", "contributing.md", "changelog.md", "*.md", "source/**"),
}
_CODE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2[^\S\n]*$|`[^`\n]+`", re.M | re.S)
_LINK = re.compile(r"(\]\(|(?:src|href)=\")([^)\s\"]+)(?=[)\"])")


# --- one page ---


def site_path(path: str) -> str:
    """Where a file of the repository stands in the site.

    >>> site_path("README.md"), site_path("docs/lab/README.md"), site_path("examples/2_grpo.ipynb")
    ('index.md', 'lab/index.md', 'notebooks/2_grpo.md')
    """
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/").replace("README.md", "index.md")
    if path.endswith(".ipynb"):
        return f"notebooks/{Path(path).stem}.md"
    if path.endswith(".md"):
        return path.lower()
    return f"source/{path}.md"


def linked(text: str, page: str, files: set[str]) -> str:
    """`text` of the repository's file `page` with links of the site. A link to a module leads to
    its place in the API; other files that it links to are added to `files`."""
    here = Path(site_path(page)).parent

    def one(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        there = os.path.normpath(Path(page).parent / target)
        if (ROOT / there).is_dir():
            there = next(f"{there}/{n}" for n in ("README.md", "index.md", "__init__.py")
                         if (ROOT / there / n).exists())  # fmt: skip
        if there.startswith("logpi/") and there.endswith(".py"):
            to, anchor = docs_api.place(there)
        else:
            to = site_path(there)
            files.add(there)
        path = os.path.relpath(to, here)
        return match[1] + path + (f"#{anchor}" if anchor else "")

    return outside_code(text, lambda prose: _LINK.sub(one, prose))


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """`change` applied to everything but code."""
    pieces, end = [], 0
    for match in _CODE.finditer(text):
        pieces += [change(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*pieces, change(text[end:])])


def mathml(text: str) -> str:
    r"""TeX between dollars as MathML, which browsers show without a script.

    >>> "<mi>x</mi>" in mathml("so $x$ is")
    True
    """

    def shown(match: re.Match[str], display: str) -> str:
        tex = " ".join(match[1].split()).replace(r"\lVert", r"\|").replace(r"\rVert", r"\|")
        element = convert(tex, display=display)
        # inside of a span: a line that begins with <math> would be a paragraph of its own
        return f"\n\n<div>{element}</div>\n\n" if display == "block" else f"<span>{element}</span>"

    def inline(match: re.Match[str]) -> str:
        # $5 or $6 is money, $16 \times 4$ is not
        money = match[1][0].isdigit() and "\\" not in match[1]
        return match[0] if money else shown(match, "inline")

    text = re.sub(r"\$\$(.+?)\$\$", lambda m: shown(m, "block"), text, flags=re.S)
    return re.sub(r"(?<![\\$\w])\$(?![\s.,])([^$]+?)(?<!\s)\$(?![\w$])", inline, text)


def lists(text: str) -> str:
    """A list straight below a line of text begins after an empty line: a code host reads it as a
    list, Python-Markdown only so."""
    item = r"(?:[-*] |\d+\. )"
    return re.sub(rf"^(?!\s|{item}|[|>#])(.+)\n(?={item})", r"\1\n\n", text, flags=re.M)


def markdown(path: str, text: str, files: set[str]) -> str:
    text = linked(text, path, files)
    # a diagram would need a script from elsewhere; the page says the same as text below it
    text = re.sub(r"^```mermaid\n.*?^```\n", "", text, flags=re.M | re.S)
    return outside_code(text, lambda prose: lists(mathml(prose)))


def notebook(path: str, files: set[str]) -> str:
    """A notebook with its outputs as Markdown; its pictures are written beside it."""
    pieces = []
    for number, cell in enumerate(nbformat.read(ROOT / path, as_version=4).cells):
        if cell.cell_type == "markdown":
            pieces.append(markdown(path, cell.source, files))
            continue
        pieces.append(f"```python\n{cell.source}\n```")
        for place, output in enumerate(cell.outputs):
            pieces.append(_output(output, Path(path).stem, f"{number}-{place}"))
    source = f"*This page is the notebook `{path}`; every figure in it is what the cell printed.*"
    return "\n\n".join([pieces[0], source, *pieces[1:]]) + "\n"


def _output(output: nbformat.NotebookNode, name: str, number: str) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        file = PAGES / "notebooks" / f"{name}-{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(data["image/png"]))
        return f"![What the cell draws]({file.name})"
    text = output.get("text") or data.get("text/plain", "")
    return f'<div class="output" markdown>\n\n````text\n{text.rstrip()}\n````\n\n</div>'


# --- the site ---


def lay_out() -> None:
    """Every page under build/docs."""
    shutil.rmtree(OUT, ignore_errors=True)
    files = {f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")}
    files |= {p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*") if p.is_file()}
    files |= {p.relative_to(ROOT).as_posix() for p in (ROOT / "examples").glob("*.ipynb")}
    for path, text in docs_api.pages().items():
        _write(path, text)
    done: set[str] = set()
    while todo := sorted(files - done):
        for path in todo:
            _page(path, files)
        done |= set(todo)
    (OUT / "zensical.toml").write_text(_configuration(), encoding="utf-8")


def _page(path: str, files: set[str]) -> None:
    """One file of the repository. What it links to is added to `files`."""
    source = ROOT / path
    if not source.exists():
        raise SystemExit(f"a page links to {path}, which is not there")
    if path.endswith(".ipynb"):
        _write(site_path(path), notebook(path, files))
    elif path.endswith(".md"):
        _write(site_path(path), markdown(path, source.read_text(encoding="utf-8"), files))
    elif path.startswith("docs/"):
        (PAGES / site_path(path)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, PAGES / site_path(path))
    else:
        language = {".py": "python", ".yaml": "yaml"}.get(source.suffix, "text")
        code = source.read_text(encoding="utf-8")
        _write(site_path(path), f"# {source.name}\n\n`{path}`\n\n````{language}\n{code}````\n")


def _write(path: str, text: str) -> None:
    (PAGES / path).parent.mkdir(parents=True, exist_ok=True)
    (PAGES / path).write_text(text, encoding="utf-8")


def _title(path: str) -> str:
    """The page's first heading."""
    match = re.search(r"^# (.+)$", (PAGES / path).read_text(encoding="utf-8"), re.M)
    return re.sub(r"[`*]", "", match[1]) if match else path


def navigation() -> dict[str, list[str]]:
    """Heading → pages. Every page stands once, under the first heading that asks for it by name,
    or by a pattern."""
    every = sorted(p.relative_to(PAGES).as_posix() for p in PAGES.rglob("*.md"))
    named = {p for patterns in CHAPTERS.values() for p in patterns if "*" not in p}
    chapters, taken = {}, set()
    for heading, patterns in CHAPTERS.items():
        chapters[heading] = pages = []
        for pattern in patterns:
            depth = pattern.count("/")
            for page in every:
                fits = fnmatch(page, pattern) and (page.count("/") == depth or "**" in pattern)
                if fits and page not in taken and (page == pattern or page not in named):
                    taken.add(page)
                    pages.append(page)
    if lost := [p for p in every if p not in taken]:
        raise SystemExit(f"no chapter of the site takes {', '.join(lost)}")
    return chapters


def _configuration() -> str:
    """zensical.toml with the navigation."""
    chapters = []
    for heading, pages in navigation().items():
        titles = [(("logpi" if p == "index.md" else _title(p)), p) for p in pages]
        entries = ", ".join(f"{{{_quoted(t)} = {_quoted(p)}}}" for t, p in titles)
        chapters.append(f"    {{{_quoted(heading)} = [{entries}]}},")
    nav = "\n".join(["nav = [", *chapters, "]"])
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    for path in ("../../scripts/docs_strings.py", "../.."):
        text = text.replace(f'["{path}"]', f"[{_quoted(str((OUT / path).resolve()))}]")
    return text.replace("[project]\n", f"[project]\n{nav}\n", 1)


def _quoted(text: str) -> str:
    """As a string of TOML."""
    return json.dumps(text, ensure_ascii=False)


def build() -> int:
    """0, or the number of something that failed."""
    lay_out()
    zensical = str(Path(sys.executable).with_name("zensical"))
    command = [zensical, "build", "--strict", "--clean", "-f", str(OUT / "zensical.toml")]
    if code := subprocess.run(command, cwd=OUT, check=False).returncode:
        return code
    shutil.rmtree(SITE, ignore_errors=True)
    shutil.move(OUT / "site", SITE)
    return docs_links.main([str(SITE)])


def main(words: list[str]) -> int:
    code = build()
    if "--serve" in words and not code:
        print("http://127.0.0.1:8000 (Ctrl-C ends it)", file=sys.stderr)
        serve = [sys.executable, "-m", "http.server", "8000", "-b", "127.0.0.1", "-d", str(SITE)]
        subprocess.run(serve, check=False)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
