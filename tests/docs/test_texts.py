"""docs/texts*.md, the reading companion: its Python prints what the page says, its commands print
the lines that are shown, and the errata's numbers stand in the sections they name. What is marked
slow is not run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _script():
    spec = importlib.util.spec_from_file_location("texts", ROOT / "scripts" / "texts.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


texts = _script()
PAGES = {page.name: page.read_text("utf-8") for page in texts.PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_the_python_of_a_page_prints_what_it_shows(name: str) -> None:
    assert texts.played(PAGES[name]) == PAGES[name], "run: python scripts/texts.py"


@pytest.mark.parametrize("name", PAGES)
def test_commands_print_the_lines_that_are_shown(name: str) -> None:
    shown = [line for _, lines in texts.consoles(PAGES[name]) for line in lines]
    assert len(shown) > 5
    assert not texts.missing(PAGES[name])


def test_a_line_that_no_command_prints_is_found() -> None:
    page = "```console\n$ logpi lab clip\nPPO clip 0.2  stopped\n```\n"
    assert texts.missing(page) == ["$ logpi lab clip: PPO clip 0.2  stopped"]


def test_stale_python_is_rewritten() -> None:
    page = "```pycon\n>>> for k in (1, 2):\n...     print(k)\n7\n>>> k = 3\n```\n"
    fresh = "```pycon\n>>> for k in (1, 2):\n...     print(k)\n1\n2\n>>> k = 3\n```\n"
    assert texts.played(page) == fresh == texts.played(fresh)


def test_every_erratum_has_its_number_in_the_section_it_names() -> None:
    index = texts.INDEX.read_text("utf-8")
    assert not texts.unshown(index)
    assert [bool(numbers) for _, _, numbers in texts.errata(index)].count(False) <= 1
    assert texts.unshown(index.replace("`1.0772`", "`1.0773`"))


def test_what_is_shown_is_counted() -> None:
    index = texts.INDEX.read_text("utf-8")
    assert texts.counted() in index, "run: python scripts/texts.py"
