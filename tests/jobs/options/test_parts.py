"""An algorithm's parts by word from every door: flags, keywords, files, a saved run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import logpi
from logpi.cli import main
from logpi.errors import UserError
from logpi.jobs.gym import Gym
from logpi.jobs.gym_parts import make_algorithm, resolved
from logpi.jobs.options.run import read
from logpi.jobs.options.saved import from_json, to_json
from logpi.jobs.rl import RL
from logpi.jobs.rl_parts import algorithm_of
from logpi.ops.advantages import GAE, GroupNorm, NStep, RewardToGo
from logpi.ops.weights import FixedLength, TokenMean
from logpi.runs.trust import code_named
from logpi.updates.sgd import Actions, Groups

WORDS = ["--advantage", "GroupNorm(ddof=0)", "--weight", "TokenMean"]


def method_of(*words: str):
    p, settings = resolved(a := read(Gym, words, "gym", ""))
    return make_algorithm(a.algorithm, p, settings)


def test_flags_keywords_and_files_name_the_same_parts(tmp_path: Path) -> None:
    flags = read(RL, ["--model", "m", *WORDS], "rl", "")
    words = logpi.RL(model="m", advantage="GroupNorm(ddof=0)", weight="TokenMean")
    objects = logpi.RL(model="m", advantage=GroupNorm(ddof=0), weight=TokenMean())
    file = tmp_path / "c.yaml"
    file.write_text("model: m\nadvantage: GroupNorm(ddof=0)\nweight: TokenMean\n")
    written = read(RL, ["--config", str(file)], "rl", "")
    expected = logpi.algorithm("grpo", advantage="GroupNorm(ddof=0)", weight="TokenMean")
    for job in (flags, words, objects, written):
        assert algorithm_of(job) == expected
        assert algorithm_of(from_json(RL, json.loads(json.dumps(to_json(job))))) == expected


def test_a_part_of_a_user_s_file_is_code_that_a_run_names() -> None:
    job = logpi.RL(model="m", advantage="mine.py:Mine(k=2)")
    assert code_named(to_json(job)) == ["--options advantage=mine.py:Mine(k=2)"]


def test_a_weight_of_one_s_own_says_what_it_divides_by() -> None:
    """The job's length is for the row's own weight."""
    job = logpi.RL(model="m", algorithm="dr_grpo", max_completion_length=64)
    assert algorithm_of(job).objective.weight == FixedLength(64)
    job = logpi.RL(model="m", algorithm="dr_grpo", weight="TokenMean", max_completion_length=64)
    assert algorithm_of(job).objective.weight == TokenMean()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--advantage", "GAE"], "GAE needs a critic"),
        (["--weight", "TokenMaen"], "did you mean TokenMean?"),
        (["--surrogate", "Clip(low=x)"], "low must be a number"),
    ],
)
def test_describe_says_what_is_wrong_in_a_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", "grpo", *words]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


def test_describe_and_the_list_of_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "grpo", *WORDS]) == 0
    out = capsys.readouterr().out
    assert "but with  advantage=GroupNorm(eps=1e-06, ddof=0)\n            weight=TokenMean()" in out
    assert "std over G\n" in out
    assert main(["algorithms", "--parts"]) == 0
    out = capsys.readouterr().out
    assert "--advantage" in out and "  GroupNorm(eps=1e-06, ddof=1)\n      Return in" in out


def test_gym_keeps_the_preset_s_numbers_for_the_new_part() -> None:
    """RL-Zoo's PPO on CartPole has gamma=0.98 and lam=0.8."""
    assert method_of("--advantage", "NStep(n=5)").objective.advantage == NStep(5, 0.98)
    assert method_of("--advantage", "GAE(gamma=1)").objective.advantage == GAE(1, 0.8)
    assert method_of("--advantage", "NStep(5)", "--gamma", "0.9").objective.advantage.gamma == 0.9
    with pytest.raises(ValueError, match="lam is a setting of GAE"):
        method_of("--advantage", "NStep(n=5)", "--lam", "0.9")


def test_gym_samples_as_the_parts_need() -> None:
    """Fragments become whole episodes, with rows that stay whole, where no critic bootstraps."""
    p, _ = resolved(read(Gym, ["--advantage", "RewardToGo", "--updates", "3"], "gym", ""))
    assert p.updates == 3 and p.source == "ours"
    whole = method_of("--advantage", "RewardToGo", "--updates", "3")
    assert whole.update.shuffle == Groups() and isinstance(whole.objective.advantage, RewardToGo)
    assert method_of("--advantage", "NStep").update.shuffle == Actions()
    assert method_of("--weight", "SequenceMean").update.shuffle == Groups()


def test_an_option_s_other_name_is_meant_too() -> None:
    with pytest.raises(UserError, match=r"no option 'objectiv'; did you mean objective\?"):
        logpi.Prefer(model="m", data="d", objectiv="dpo")
