"""Descriptions in a notebook: Markdown with LaTeX, from the same composition as the text."""

from __future__ import annotations

import re

import pytest

from logpi import algorithm, describe
from logpi.algorithms import TABLE
from logpi.algorithms.description import latex


@pytest.mark.parametrize("name", TABLE)
def test_every_row_is_plain_latex(name: str) -> None:
    """Nothing that LaTeX does not know is left, and every brace is closed."""
    e = algorithm(name, **({"beta": 0.1} if name in ("ppo", "grpo") else {})).objective.explain()
    for text in (e.goal, *e.where):
        shown = latex(text)
        assert shown.isascii(), shown
        depth = 0
        for c in re.sub(r"\\[{}]", "", shown):
            depth += (c == "{") - (c == "}")
            assert depth >= 0
        assert depth == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Σₜ wₜ log π(aₜ|sₜ) Âₜ", r"\sum _{t} w_{t} \log \pi (a_{t}|s_{t}) \hat A _{t}"),
        ("V̂ₜ + 1e-06", r"\hat V_{t} + 1\cdot 10^{-6}"),
        (
            "ρ = (π(y|x) / π_old(y|x))^(1/|y|)",
            r"\rho = (\pi (y|x) / \pi _{\text{old}}(y|x))^{1/|y|}",
        ),
        ("s(y⁺) − ½ h²", r"s(y^{+}) - \tfrac12 h^{2}"),
        ("mean r of all, once", r"\text{ mean } r \text{ of all, once }"),
    ],
)
def test_equations(text: str, shown: str) -> None:
    assert latex(text) == shown


def test_a_description_is_the_text_and_shows_as_markdown() -> None:
    shown = describe("dapo")
    assert isinstance(shown, str) and shown.splitlines()[2].startswith("  maximise")
    page = shown._repr_markdown_()
    assert (
        page.startswith("**dapo**: DAPO") and "| surrogate | `Clip(low=0.2, high=0.28)` |" in page
    )
    assert shown._repr_latex_() in page and "SoftOverlong" in page
