"""Parts by word: the same values as the objects, and one line for a mistake."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from logpi import SGD, algorithm
from logpi.algorithms import TABLE, options
from logpi.algorithms.parts import AXES, axis_of, given_in, read_part
from logpi.errors import UserError
from logpi.objectives.policy_gradient import PolicyGradient, TruncatedIS
from logpi.ops.advantages import GAE, GroupNorm, NStep, RewardToGo
from logpi.ops.gates import BinaryTV
from logpi.ops.kl import KL, k2
from logpi.ops.ratios import SequenceRatio, TokenRatio
from logpi.ops.selection import CountAsFailure, MixedOutcomes
from logpi.ops.surrogates import Clip, DualClip
from logpi.ops.weights import FixedLength, SequenceSum, TokenMean
from logpi.updates.trust_region import TrustRegion

FILE = '''
from dataclasses import dataclass
from typing import ClassVar

from logpi.ops.advantages import Advantage
from logpi.ops.time import own


@dataclass(frozen=True)
class Scaled(Advantage):
    """The reward, scaled."""

    k: float = 1.0
    equation: ClassVar[str] = "Â = k r"
    source: ClassVar[str] = "me"

    def __call__(self, batch, value=None):
        return own(self.k * batch.reward, batch.mask)


@dataclass(frozen=True)
class Silent(Advantage):
    """Has no equation."""

    def __call__(self, batch, value=None):
        return batch.reward


ready = Scaled(3.0)


def maker(k=2):
    return Scaled(k)


def other():
    return 3
'''


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / f"parts_{tmp_path.name}.py"
    path.write_text(FILE)
    return str(path)


WORDS = [
    ("advantage", "GroupNorm(ddof=0)", GroupNorm(ddof=0)),
    ("advantage", "group_norm(0.1)", GroupNorm(0.1)),
    ("advantage", "RewardToGo(gamma=0.5)", RewardToGo(0.5)),
    ("ratio", "SequenceRatio(mean=false)", SequenceRatio(mean=False)),
    ("surrogate", "Clip(low=0.1, high=0.3)", Clip(0.1, 0.3)),
    ("surrogate", "Clip(low=inf, high=none)", Clip(float("inf"))),
    ("surrogate", "dual-clip", DualClip()),
    ("weight", "SequenceSum", SequenceSum()),
    ("weight", "FixedLength(256)", FixedLength(256)),
    ("kl", "KL(0.1, k2, loss)", KL(0.1, k2, "loss")),
    ("kl", "none", None),
    ("correction", "TruncatedIS(cap=3)", TruncatedIS(3)),
]


@pytest.mark.parametrize(("axis", "word", "part"), WORDS, ids=str)
def test_a_word_is_the_part_that_it_names(axis: str, word: str, part: object) -> None:
    made = algorithm("grpo", **{axis: word})
    assert made == algorithm("grpo", **{axis: part})
    assert getattr(made.objective, axis) == part


def test_updates_and_choices_of_rows_have_words_too() -> None:
    made = algorithm("grpo", update="SGD(epochs=3)", minibatches=2, keep="MixedOutcomes(4)")
    assert made.update == SGD(epochs=3, minibatches=2) and made.keep == MixedOutcomes(4)
    made = algorithm("ppo", update="TrustRegion(max_kl=0.1)", truncation="CountAsFailure(-1)")
    assert made.update == TrustRegion(max_kl=0.1) and made.truncation == CountAsFailure(-1)


@pytest.mark.parametrize("name", TABLE)
def test_every_part_of_every_row_is_a_word_that_is_itself(name: str) -> None:
    """A part prints itself as the word that names it."""
    for option in options(name):
        if option.axis and option.default is not None and option.name not in ("update", "critic"):
            assert option.read(str(option.default)) == option.default, option


def test_every_field_that_is_a_part_has_an_axis() -> None:
    """A new axis of the objective gets words, or this fails."""
    parts = [f for f in fields(PolicyGradient) if "bool" not in str(f.type)]
    numbers = {"value_coef", "value_clip", "entropy_coef", "top_entropy"}
    assert all(axis_of(str(f.type)) for f in parts if f.name not in numbers)
    assert axis_of("float | None") is None and axis_of("bool") is None


def test_an_axis_lists_the_parts_of_its_module_with_a_line_each() -> None:
    for axis in AXES.values():
        for word, text in axis.lines():
            assert word.split("(")[0] in axis.parts and text.endswith(".") and "\n" not in text
    assert {"GAE", "NStep", "Uniform"} <= set(AXES["advantage"].parts)
    assert set(AXES["update"].parts) == {"SGD", "TrustRegion"}


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"weight": "TokenMaen"}, "no weight is called 'TokenMaen'; did you mean TokenMean?"),
        ({"weight": "GroupNorm"}, "no weight is called 'GroupNorm'; there are: FixedLength"),
        ({"weight": GroupNorm()}, "weight must be a word or a Weight, not GroupNorm"),
        ({"weight": TokenMean}, "weight must be a word or a Weight"),
        ({"advantage": 3}, "advantage must be a word or an Advantage, not 3"),
        ({"weight": "FixedLength"}, "missing a required argument: 'length'"),
        ({"weight": "FixedLength(0)"}, "length above 0"),
        ({"weight": "FixedLength(lenght=3)"}, "no option 'lenght'; did you mean length?"),
        ({"weight": "FixedLength(many)"}, "length must be a whole number, not 'many'"),
        ({"surrogate": "Clip(low=-1)"}, "low is a distance"),
        ({"surrogate": "Clip(1, 2, 3)"}, "too many positional arguments"),
        ({"surrogate": "Clip(low=[1])"}, "low must be a number"),
        ({"surrogate": "Clip(low=1"}, "cannot read"),
        ({"surrogate": "__import__('os').getcwd()"}, "cannot read"),
        ({"advantage": "GroupNorm(ddof=2)"}, "ddof 0 or 1"),
        ({"advantage": "GAE"}, "GAE needs a critic, and nothing trains one"),
        ({"kl": "KL(0.1, k4)"}, "estimator is one of k1, k2, k3, reverse, forward, jsd, not 'k4'"),
        ({"kl": "KL(0.1, k1, lost)"}, '"reward", "action" or "loss"'),
        ({"correction": "TruncatedIS(0)"}, "above 0"),
        ({"correction": "MaskedIS", "correction_cap": 2}, "the correction is MaskedIS(low=0.5"),
        ({"keep": "MixedOutcomes(0)"}, "at least 1"),
        ({"beta": 0.1, "kl": "KL(0.2)"}, "beta is a setting of KL, in whose place kl puts"),
    ],
    ids=str,
)
def test_a_wrong_word_is_one_line(chosen: dict, says: str) -> None:
    with pytest.raises(ValueError) as error:
        algorithm("grpo", **chosen)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_row_s_own_settings_hold_for_the_part_in_the_place_of_its_own() -> None:
    """They were given for the axis; what the new part has not is said, never dropped."""
    assert algorithm("ppo", gamma=0.9, advantage="NStep(n=2)").objective.advantage == NStep(2, 0.9)
    assert algorithm("ppo", gamma=0.9, advantage=RewardToGo()).objective.advantage.gamma == 0.9
    assert algorithm("ppo", advantage="RewardToGo").objective.advantage == RewardToGo()
    assert algorithm("dapo", high=0.5, surrogate="Clip(0.1)").objective.surrogate == Clip(0.1, 0.5)
    for lost in ({"lam": 0.9, "advantage": "RewardToGo"}, {"gamma": 0.9, "advantage": "Uniform"}):
        with pytest.raises(ValueError, match="is a setting of GAE, in whose place"):
            algorithm("ppo", **lost)
    with pytest.raises(ValueError, match="max_completion_length is a setting of FixedLength"):
        algorithm("dr_grpo", max_completion_length=7, weight="TokenMean")


@pytest.mark.parametrize(
    ("row", "ratio", "surrogate"),
    [("dppo", SequenceRatio(), Clip()), ("gspo", TokenRatio(), BinaryTV())],
)
def test_parts_fit_each_other_not_those_that_they_replace(row, ratio, surrogate) -> None:
    o = algorithm(row, ratio=ratio, surrogate=surrogate).objective
    assert (o.ratio, o.surrogate) == (ratio, surrogate)


def test_options_of_a_value_are_set_on_the_part_beside_them() -> None:
    a = algorithm("ppo")
    made = algorithm(a, lam=0.5, advantage="GAE(gamma=0.9)", value_coef=1.0)
    assert made.objective.advantage == GAE(0.9, 0.5)


def test_what_a_word_gives() -> None:
    advantage = AXES["advantage"]
    assert given_in(advantage, "GAE") == set() and given_in(advantage, "GAE(0.9)") == {"gamma"}
    assert given_in(advantage, "GAE(0.9, lam=1)") == {"gamma", "lam"} == given_in(advantage, GAE())


def test_a_part_of_the_user_s_own_file(file: str) -> None:
    made = algorithm("reinforce", advantage=f"{file}:Scaled(k=2.5)").objective.advantage
    assert (type(made).__name__, made.k) == ("Scaled", 2.5)
    assert algorithm("grpo", advantage=f"{file}:Scaled").objective.min_group == 1
    assert read_part(AXES["advantage"], f"{file}:ready").k == 3.0
    assert read_part(AXES["advantage"], f"{file}:maker(k=4)").k == 4
    assert given_in(AXES["advantage"], f"{file}:Scaled(2)") == {"k"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Scaledd", "did you mean Scaled?"),
        ("Scaled(q=1)", "no option 'q'"),
        ("Scaled(k=x)", "k must be a number"),
        ("Silent", "has no equation"),
        ("ready(1)", "takes no settings"),
        ("other", ":other names is no Advantage but "),
    ],
)
def test_a_user_s_part_that_is_none_is_one_line(file: str, name: str, says: str) -> None:
    with pytest.raises((UserError, ValueError)) as error:
        algorithm("grpo", advantage=f"{file}:{name}")
    assert says in str(error.value) and "\n" not in str(error.value)
