"""Descriptions: Markdown with LaTeX from the same composition as the text, and no line about what
the composition does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest

from logpi import Algorithm, PolicyGradient, algorithm, describe
from logpi.algorithms import NAMES, TABLE, options
from logpi.algorithms.description import changes, divergences, latex
from logpi.algorithms.parts import AXES
from logpi.ops.advantages import GAE, GroupNorm
from logpi.ops.ratios import SequenceRatio
from logpi.ops.surrogates import Clip, ClippedScore
from logpi.ops.weights import FixedLength, GroupTokenMean, SequenceMean, TokenMean


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


# --- a description follows the composition ---

# A word that a line may have, and what the algorithm then is.
SPOKEN = {
    r"^(?!Ju).*\bk1\b": lambda o: o.kl is None or o.kl.estimator.name == "k1",
    r"\bk2 in": lambda o: o.kl is None or o.kl.estimator.name in ("k2", "k3"),
    r"\bk3\b": lambda o: o.kl is None or o.kl.estimator.name == "k3",
    r"in the reward\b": lambda o: o.kl is None or o.kl.place == "reward",
    r"[Aa]dvantages are whitened": lambda o: o.whiten,
    r"n-step returns|generalised|\bQ from": lambda o: isinstance(o.advantage, GAE),
    r"product ratio": lambda o: o.ratio == SequenceRatio(mean=False),
    r"std has no ε": lambda o: isinstance(o.advantage, GroupNorm),
    r"padded width|MAX_TOKENS": lambda o: isinstance(o.weight, FixedLength),
    r"common code takes the mean": lambda o: isinstance(o.weight, GroupTokenMean),
    r"aggregates": lambda o: isinstance(o.weight, SequenceMean),
    r"error is not clipped": lambda o: o.value_clip is None and o.needs_critic,
    r"\bclips at": lambda o: isinstance(o.surrogate, Clip) and o.surrogate.low != 10,
    r"distance from 1": lambda o: isinstance(o.surrogate, ClippedScore),
}
PARTS = {axis: AXES[axis].parts for axis in ("advantage", "ratio", "surrogate", "weight")}
ROWS = [n for n in NAMES if isinstance(algorithm(n).objective, PolicyGradient)]


def variants(name: str) -> Iterator[Algorithm]:
    """A row with each part of each axis, each placement of the penalty, and its switches."""
    own = {o.name for o in options(name)}
    row = algorithm(name).objective
    assert isinstance(row, PolicyGradient)
    for axis, parts in PARTS.items():
        for part, kind in parts.items():
            # what reads an action's own probabilities, or chooses actions, needs their own ratio
            surrogate = kind if axis == "surrogate" else row.surrogate
            ratio = kind if axis == "ratio" else row.ratio
            if (surrogate.of_actions or row.top_entropy < 1) and not ratio.by_action:
                continue
            word = "FixedLength(8)" if part == "FixedLength" else part
            yield algorithm(name, value_coef=0.5, **{axis: word})
    for estimator in ("k1", "k2", "k3"):
        for place in ("reward", "loss"):
            yield algorithm(name, kl=f"KL(0.1, {estimator}, {place})")
            if "beta" in own:
                yield algorithm(name, beta=0.1, kl_estimator=estimator, kl_place=place)
    for switch in ({"whiten": True}, {"whiten": False}, {"value_clip": 0.2}, {"low": 10.0}):
        if set(switch) <= own:
            yield algorithm(name, **switch)


@cache
def lines_of(name: str) -> tuple[tuple[PolicyGradient, tuple[str, ...]], ...]:
    """What is said of each variant of a row."""
    made = ((a.objective, divergences(a)) for a in variants(name))
    return tuple((o, lines) for o, lines in made if isinstance(o, PolicyGradient))


@pytest.mark.parametrize("name", ROWS)
def test_no_line_speaks_of_what_is_no_longer_there(name: str) -> None:
    for o, lines in lines_of(name):
        # The penalty's own line compares it with other estimators.
        penalty = () if o.kl is None else o.kl.differs
        for line in set(lines) - set(penalty):
            for word, true in SPOKEN.items():
                assert true(o) or not re.search(word, line), (line, o)


@pytest.mark.parametrize("name", ROWS)
def test_every_line_of_a_row_is_printed_for_the_row_itself(name: str) -> None:
    """But for those about a penalty that the row does not have."""
    a = algorithm(name)
    dropped = [str(d) for d in a.differs if str(d) not in divergences(a)]
    assert not dropped
    assert all("[" not in line.split()[0] for line in divergences(a))


def test_the_words_of_the_test_above_are_all_used() -> None:
    lines = {line for name in ROWS for _, lines in lines_of(name) for line in lines}
    assert all(any(re.search(word, line) for line in lines) for word in SPOKEN)


def test_a_line_goes_with_its_part_and_its_option() -> None:
    def text(name: str, **chosen: object) -> str:
        return "\n".join(divergences(algorithm(name, **chosen)))

    assert "TRL's GRPOTrainer" in text("grpo") and "forward KL" in text("grpo")
    assert "TRL's GRPOTrainer" not in text("grpo", weight="TokenMean")
    assert "forward KL" not in text("grpo", kl_estimator="k2") + text("grpo", beta=0)
    assert "k3" not in describe("grpo", kl_estimator="k1")
    assert "kl_estimator=k2 for the paper's" in text("reinforce_plus_plus_baseline")
    assert "k2" not in text("reinforce_plus_plus_baseline", beta=0.1, kl_estimator="k2")
    assert "no KL (`logpi lab kl`)" in text("rloo", kl_estimator="k3")
    assert "Ju's KL is k1" in text("grpo_sequence") and "whitened" in text("orz")
    assert "Ju's" not in text("grpo_sequence", kl_estimator="k1") + text("grpo_sequence", beta=0)
    assert "authors'" in text("ipo") and "authors'" not in text("ipo", length_normalised=False)
    assert "critic" not in describe("ppo", advantage="RewardToGo").split("but with")[1]


def test_a_replaced_value_is_described_as_it_is() -> None:
    a = algorithm("grpo")
    a = replace(a, objective=replace(a.objective, weight=TokenMean()))
    assert "TRL's GRPOTrainer" not in describe(a)
    assert list(changes(a)) == ["weight=TokenMean()"] and not list(changes(algorithm("grpo")))
    assert list(changes(algorithm("ppo", epochs=2, keep="DropUniform"))) == [
        "epochs=2",
        "keep=DropUniform()",
    ]
    assert list(changes(algorithm("dpo", recorded=True))) == ["recorded=True"]
    assert not list(changes(Algorithm(a.objective)))


def test_a_penalty_that_does_nothing_is_warned_of() -> None:
    warned = [
        (estimator, place)
        for estimator in ("k1", "k2", "k3")
        for place in ("reward", "loss")
        if "warning" in describe("grpo", kl_estimator=estimator, kl_place=place)
    ]
    assert warned == [("k1", "loss")]
    assert "warning" not in describe("ppo") + describe("ppo", beta=0.1)
    assert "**Warning**: k1 in" in describe("grpo", kl_estimator="k1")._repr_markdown_()
