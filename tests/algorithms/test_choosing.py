"""What one has decides the method: rows that there are, and commands that can be given."""

from __future__ import annotations

import shlex

import pytest

from logpi import algorithm
from logpi.algorithms import TABLE, learning_from
from logpi.algorithms.choosing import SITUATIONS
from logpi.cli import main
from logpi.jobs.gym import Gym
from logpi.jobs.options.run import read
from logpi.jobs.prefer import Prefer
from logpi.jobs.rl import RL
from logpi.jobs.rl_parts import algorithm_of
from logpi.jobs.sft import SFT
from logpi.types import Data

JOBS = {"rl": RL, "gym": Gym, "prefer": Prefer, "sft": SFT}


@pytest.mark.parametrize("word", SITUATIONS)
def test_every_entry_is_of_the_table_and_its_command_can_be_given(word: str) -> None:
    s = SITUATIONS[word]
    names = [s.row, *(name for name, _ in s.others)]
    assert set(names) <= set(TABLE) and len(set(names)) == len(names)
    _, job, *words = shlex.split(s.command)
    given = read(JOBS[job], words, job, "")
    assert job == "sft" or given.algorithm == s.row
    if job == "rl":
        assert algorithm_of(given).name == s.row


def test_a_claim_on_memory_and_groups_is_true_of_the_row() -> None:
    lean = algorithm(SITUATIONS["memory"].row).objective
    assert not lean.needs_critic and not lean.needs_reference
    assert not algorithm("rloo", beta=0).objective.needs_reference
    assert algorithm(SITUATIONS["one-sample"].row).objective.min_group == 1
    assert algorithm("ppo").objective.needs_critic
    for word, data in (("pairs", Data.PAIRS), ("labels", Data.LABELS)):
        assert SITUATIONS[word].row in learning_from(data)


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algorithms", "--for", "pairs"]) == 0
    out = capsys.readouterr().out
    assert "Take dpo: " in out and "  ipo " in out and "logpi prefer" in out
    with pytest.raises(SystemExit):
        main(["algorithms", "--for", "verifer"])
    assert "--for: unknown value 'verifer'; did you mean verifier?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["algorithms", "--help"])
    assert "--for TEXT" in capsys.readouterr().out
    assert main(["algorithms", "--situation", "pairs"]) == 0
    assert capsys.readouterr().out == out
