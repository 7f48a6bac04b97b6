"""The report of a lab command: tables that fit a terminal, the same as JSON, a picture, and one
sentence of what it shows.

Left out: what is in them (one module for each command). Matplotlib is imported only to draw a
picture.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from logpi.runs.plots import save

WIDTH = 100
Value = str | float | int | bool | None


@dataclass(frozen=True)
class ReportTable:
    """A table of text and numbers.

    Attributes:
        title: one line. columns: their names. rows: one value for each column.
        formats: how the numbers of each column are written; "" (also for columns beyond the last
            format): as Python writes them.
        note: text below the table, or "".
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    formats: tuple[str, ...] = ()
    note: str = ""

    def cells(self) -> list[list[str]]:
        """The values as text."""
        formats = (*self.formats, *[""] * (len(self.columns) - len(self.formats)))
        return [[_show(v, f) for v, f in zip(row, formats, strict=True)] for row in self.rows]

    def html(self) -> str:
        """The table for a notebook."""
        head = "".join(f"<th>{escape(x)}</th>" for x in self.columns)
        rows = ("".join(f"<td>{escape(x)}</td>" for x in row) for row in self.cells())
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        title = f"<caption>{escape(self.title)}</caption>"
        return f"<table>{title}<tr>{head}</tr>{body}</table>{note}"

    def text(self) -> str:
        """The table in monospace."""
        cells = self.cells()
        widths = [max(map(_width, column)) for column in zip(self.columns, *cells, strict=True)]
        columns = range(len(self.columns))
        right = [not any(isinstance(row[i], str) for row in self.rows) for i in columns]
        lines = [_line(self.columns, widths, right), "  ".join("─" * w for w in widths)]
        lines += [_line(row, widths, right) for row in cells]
        note = ["", *_wrap(self.note)] if self.note else []
        return "\n".join([*_wrap(self.title), "", *(x.rstrip() for x in lines), *note])

    def json(self) -> dict[str, Any]:
        rows = [dict(zip(self.columns, (_plain(v) for v in row), strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "note": self.note}


@dataclass(frozen=True)
class Report:
    """The result of one command.

    Attributes:
        name: of the command. question: in a sentence or two. tables: the answer in numbers.
        shown: the answer in a sentence. draw: makes the picture, a matplotlib figure.
    """

    name: str
    question: str
    tables: tuple[ReportTable, ...]
    shown: str
    draw: Callable[[], Any]

    def text(self) -> str:
        """For a terminal, at most 100 columns wide."""
        parts = [
            "\n".join(_wrap(self.question)),
            *(t.text() for t in self.tables),
            "\n".join(_wrap("Shown: " + self.shown)),
        ]
        return "\n\n".join(parts)

    def json(self) -> str:
        """The same as JSON; NaN and infinity are null."""
        value = {
            "command": self.name,
            "question": self.question,
            "tables": [t.json() for t in self.tables],
        }
        return json.dumps(value | {"shown": self.shown}, indent=2, ensure_ascii=False)

    def picture(self, path: str | Path) -> Path:
        """Draw into a PNG.

        Raises:
            UserError: matplotlib is not installed.
            RunError: the file cannot be written.
        """
        return save(self.draw(), path)


def _show(value: Value, form: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "−∞"
    text = format(value, form)
    if float(value) != 0 and form.endswith("f") and not float(text):
        # a number that rounds to 0 has no minus sign
        text = format(0.0, form)
    return text.replace("-", "−") if "e" not in text else text


def signed(x: Any, form: str = "g") -> str:
    """A number as text with a true minus sign, for sentences."""
    return _show(float(x), form)


def _plain(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _width(text: str) -> int:
    return sum(not unicodedata.combining(c) for c in text)


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = []
    for text, width, to_the_right in zip(row, widths, right, strict=True):
        fill = " " * (width - _width(text))
        cells.append(fill + text if to_the_right else text + fill)
    return "  ".join(cells)


def _wrap(text: str) -> list[str]:
    """Lines of at most `WIDTH` columns; line breaks in the text stay."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            if line and _width(line) + 1 + _width(word) > WIDTH:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return lines
