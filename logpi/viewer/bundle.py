"""The page as one classic script: a browser loads no modules from a file.

    // chart.js                              modules["chart.js"] = (() => {
    import { h } from "./dom.js";       →    const { h } = modules["dom.js"];
    export function chart() { … }            function chart() { … }
                                             return { chart };
                                             })();

A module stands behind those that it imports. Left out: the data (`static_page.py`), and making
anything smaller.
"""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parent / "page"
FIRST = "main.js"
IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./([a-z_]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const) ([A-Za-z0-9_$]+))", re.MULTILINE)


def one_script(page: Path = PAGE) -> str:
    """All modules that the page needs, in one.

    Raises:
        ValueError: modules import each other in a circle.
    """
    texts: dict[str, str] = {}
    _collect(page, FIRST, texts, ())
    return '"use strict";\n(() => {\nconst modules = {};\n' + "\n".join(texts.values()) + "})();\n"


def _collect(page: Path, name: str, texts: dict[str, str], within: tuple[str, ...]) -> None:
    """Adds a module's text behind those of what it imports."""
    if name in within:
        raise ValueError(f"{name} imports itself: {' → '.join(within)}")
    source = (page / name).read_text(encoding="utf-8")
    for _, other in IMPORT.findall(source):
        if other not in texts:
            _collect(page, other, texts, (*within, name))
    body = IMPORT.sub(r'const \1 = modules["\2"];\n', source)
    exported = ", ".join(word for _, word in EXPORT.findall(source))
    body = EXPORT.sub(r"\1", body)
    texts[name] = f'modules["{name}"] = (() => {{\n{body}return {{ {exported} }};\n}})();\n'


def index_html(page: Path = PAGE) -> str:
    """The frame of the page, which loads its data and the one script instead of modules."""
    text = (page / "index.html").read_text(encoding="utf-8")
    module = '<script src="page/main.js" type="module"></script>'
    data, script = (
        f'<script src="{p}" defer></script>' for p in ("data/index.js", "page/logpi.js")
    )
    return text.replace(module, f"{data}\n{script}")
