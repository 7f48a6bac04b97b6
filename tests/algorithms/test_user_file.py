"""Algorithms of the user's own: a function or a value in a file, and a value in Python."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from logpi import SGD, Algorithm, PolicyGradient, algorithm, describe
from logpi.algorithms import options
from logpi.errors import UserError
from logpi.ops.advantages import GAE, GroupCenter
from logpi.ops.surrogates import Clip
from logpi.ops.weights import TokenMean

FILE = '''
from logpi import SGD, Algorithm, PolicyGradient
from logpi.ops.advantages import GAE, GroupCenter
from logpi.ops.kl import KL
from logpi.ops.surrogates import Clip


def tight(clip: float = 0.05, beta: float = 0.1, epochs: int = 2):
    """Clipped steps, close to the reference (me, 2026).

    - A divergence.

    clip: how far the ratio may go
    """
    kl = KL(beta) if beta else None
    return Algorithm(PolicyGradient(GroupCenter(), surrogate=Clip(clip), kl=kl), SGD(epochs))


value = Algorithm(PolicyGradient(GAE(0.9, 0.8), surrogate=Clip(0.1), kl=KL(0.3)))
number = 3


def wrong():
    return 3


def needy(beta):
    return value
'''


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / f"mine_{tmp_path.name}.py"
    path.write_text(FILE)
    return str(path)


def test_a_function_of_a_file(file: str) -> None:
    made = algorithm(f"{file}:tight", clip=0.01, beta=0)
    assert made.objective == PolicyGradient(GroupCenter(), surrogate=Clip(0.01))
    assert (made.name, made.update) == ("tight", SGD(epochs=2))
    assert made.source == "Clipped steps, close to the reference (me, 2026)."
    assert str(made.differs[0]).startswith("A divergence.")
    assert describe(made).startswith("tight: Clipped steps")


def test_its_parameters_are_its_options(file: str) -> None:
    listed = {o.name: o for o in options(f"{file}:tight")}
    assert listed["clip"].default == 0.05 and listed["clip"].kind == "float"
    assert listed["clip"].help == "how far the ratio may go"
    made = algorithm(f"{file}:tight", ent_coef=0.1, minibatches=3, kl_target=2.0, epochs=5)
    assert made.update == SGD(epochs=5, minibatches=3)
    assert made.objective.entropy_coef == 0.1 and made.objective.kl.adapt.target == 2.0
    with pytest.raises(ValueError, match="tight has no option 'clap'; did you mean clip"):
        algorithm(f"{file}:tight", clap=0.1)
    with pytest.raises(ValueError, match="clip must be a number"):
        algorithm(f"{file}:tight", clip="wide")


def test_a_value_of_a_file(file: str) -> None:
    made = algorithm(f"{file}:value", gamma=0.5, low=0.3, beta=0.2, epochs=4)
    assert made.name == "value" and made.update == SGD(epochs=4)
    assert made.objective.advantage == GAE(0.5, 0.8) and made.objective.surrogate == Clip(0.3)
    assert made.objective.kl.coef == 0.2
    assert algorithm(f"{file}:value", beta=0).objective.kl is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("number", "neither an Algorithm nor a function"),
        ("wrong", "wrong returned int, not an Algorithm"),
        ("needy", "beta needs a default"),
        ("tigth", "did you mean tight"),
    ],
)
def test_what_is_no_algorithm_is_refused(file: str, name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        algorithm(f"{file}:{name}")


def test_settings_of_a_value() -> None:
    mine = Algorithm(PolicyGradient(GAE(), weight=TokenMean()), name="mine")
    made = algorithm(mine, lam=0.9, clip_range_vf=0.2, n_epochs=3)
    assert made == Algorithm(
        PolicyGradient(GAE(1.0, 0.9), weight=TokenMean(), value_clip=0.2), SGD(3), name="mine"
    )
    with pytest.raises(ValueError, match="mine has no option 'low'"):
        algorithm(mine, low=0.1)


def test_a_row_of_the_table_as_a_value_keeps_its_papers() -> None:
    grpo = algorithm("grpo")
    assert algorithm(grpo) == grpo
    assert algorithm(grpo, high=0.3) == algorithm("grpo", high=0.3)
    assert algorithm(algorithm("dpo"), beta=0.3) == algorithm("dpo", beta=0.3)
    assert algorithm(algorithm("kto"), beta=0.3) == algorithm("kto", beta=0.3)
    dual = replace(grpo, objective=algorithm("grpo", dual_clip=3.0).objective)
    assert algorithm(dual, c=4.0).objective.surrogate.c == 4.0


def test_every_listed_option_of_a_value_is_accepted() -> None:
    for name in ("grpo", "ppo", "trpo", "dpo", "kto", "reward_model"):
        a = algorithm(name)
        for option in options(a):
            assert algorithm(a, **{option.name: option.default}) == a
