"""Which section of the texts a row comes from: every heading is one of the reading companion."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from logpi import describe
from logpi.algorithms import TABLE
from logpi.algorithms.texts import SECTIONS, sections

DOCS = Path(__file__).parents[2] / "docs"


def headings() -> dict[str, set[str]]:
    """Author -> headings of the companion's page."""
    pages = {"Ju": "texts-ju.md", "Liu": "texts-liu.md", "Chan": "texts-chan.md"}
    if not all((DOCS / page).exists() for page in pages.values()):
        pytest.skip("the reading companion is not there")
    found = {}
    for author, page in pages.items():
        lines = re.findall(r"^#+ (.+)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
        found[author] = set(lines)
    return found


def test_every_section_is_a_heading_of_the_companion() -> None:
    known = headings()
    for row, named in SECTIONS.items():
        assert row in TABLE
        for section in named:
            author, _, title = section.text.partition(", ")
            wanted = [section.heading] if author != "Chan" else [title, section.heading]
            assert set(filter(None, wanted)) <= known[author], (row, section)


def test_describe_names_them() -> None:
    assert '  texts     Ju, Maths for Policy Gradient Methods, "2.5 Prox' in describe("ppo")
    assert "Chan, PPO is REINFORCE plus five fixes" in describe("ppo")
    assert "texts  " not in describe("kto") and sections("kto") == ""
    assert "*Texts*: Liu" in describe("dapo")._repr_markdown_()
