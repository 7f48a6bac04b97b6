"""An algorithm's settings as flags, by logpi's names and by those of other libraries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from logpi.cli import main
from logpi.errors import UserError
from logpi.jobs.gym import Gym
from logpi.jobs.gym_parts import resolved
from logpi.jobs.options.run import read
from logpi.jobs.options.saved import from_json, to_json
from logpi.jobs.prefer import Prefer
from logpi.jobs.rl import RL


def rl(line: str) -> RL:
    return read(RL, ["--model", "m", *line.split()], "rl", "")


def gym(line: str) -> Gym:
    return read(Gym, line.split(), "gym", "")


def mistake(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        rl(line)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1
    return err.removeprefix("logpi rl: ").removesuffix(" (see logpi rl --help)\n")


def test_the_settings_of_a_row_are_flags_of_the_job() -> None:
    line = "--algorithm dapo --high 0.3 --epochs 2 --entropy-coef 0.01 --value-clip none --whiten"
    assert rl(line).options == {
        "high": 0.3,
        "epochs": 2,
        "entropy_coef": 0.01,
        "value_clip": None,
        "whiten": True,
    }
    assert rl("--beta 0").options == {"beta": 0.0}  # of the default algorithm, grpo
    assert rl("--no-whiten").options == {"whiten": False}
    prefer = read(Prefer, "--model m --data d --beta .2 --smoothing 0.1".split(), "prefer", "")
    assert prefer.options == {"beta": 0.2, "smoothing": 0.1}


def test_a_flag_wins_over_the_pairs_and_both_are_kept() -> None:
    assert rl("--options beta=0.1 high=0.4 --beta 0").options == {"beta": 0.0, "high": 0.4}
    assert rl("--options beta=0.1 --options high=0.4").options == {"beta": 0.1, "high": 0.4}


def test_a_recipe_s_settings_give_way_one_by_one() -> None:
    a = rl("--recipe r1-zero --beta 0 --lr 1e-5")
    assert a.options == {"low": 10, "beta": 0.0}
    assert (a.algorithm, a.lr, a.prompts) == ("grpo_r1", 1e-5, 32)


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--epsilon 0.1 --epsilon-high 0.3 --num-iterations 2", (0.1, 0.3, 2)),  # TRL
        ("--clip-ratio-low 0.1 --clip-ratio-high 0.3 --ppo-epochs 2", (0.1, 0.3, 2)),  # verl
        ("--clip-range 0.1 --high 0.3 --n_epochs 2", (0.1, 0.3, 2)),  # SB3
        ("--clip-coef 0.1 --high 0.3 --update-epochs 2", (0.1, 0.3, 2)),  # CleanRL
        ("--eps_clip 0.1 --high 0.3 --max_epochs 2", (0.1, 0.3, 2)),  # OpenRLHF
    ],
)
def test_other_libraries_names_are_the_same_settings(words: str, options: tuple) -> None:
    assert rl(words).options == dict(zip(("low", "high", "epochs"), options, strict=True))


def test_other_libraries_names_of_the_job() -> None:
    a = rl("--learning_rate 1e-4 --max-steps 7 --output_dir o --reward_funcs math --eval_steps 3")
    assert (a.lr, a.steps, a.out, a.rewards, a.eval_every) == (1e-4, 7, Path("o"), ("math",), 3)
    b = gym("--total-timesteps 500 --n-envs 2 --gae-lambda .9 --ent-coef 0.1 --learning-rate 1e-2")
    assert b.steps == 500
    assert b.options == {"envs": 2, "lam": 0.9, "entropy_coef": 0.1, "lr": 0.01}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--hihg 1 --algorithm dapo", "unknown option --hihg; did you mean --high?"),
        ("--beta 1 --algorithm dapo", "unknown option --beta"),  # DAPO has no KL
        ("--bta 1", "unknown option --bta; did you mean --beta?"),
        ("--beta fast", "--beta: 'fast' is not a number"),
        ("--beta inf", "--beta: must be finite, not inf"),
        ("--high 1 --algorithm daapo", "unknown algorithm 'daapo'; did you mean dapo?"),
        ("--batch-size 4", "unknown option --batch-size: say minibatches"),
        ("--target-kl 0.1", "in SB3 and CleanRL it ends an update's passes early"),
        ("--options high", "--options: an option is NAME=VALUE, not 'high'"),
    ],
)
def test_a_wrong_setting_is_one_line(
    line: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in mistake(line, capsys)


def test_gym_takes_the_preset_s_settings_and_the_algorithm_s() -> None:
    a = gym("--lr 1e-3 --hidden 32 16 --n-steps 64 --gamma 0.9 --no-linear --action-repeat 2")
    chosen, rest = resolved(a)
    assert (chosen.lr, chosen.hidden, chosen.n_steps) == (1e-3, (32, 16), 64)
    assert (chosen.linear, chosen.repeat, rest) == (False, 2, {"gamma": 0.9})
    assert resolved(gym("--settings cleanrl"))[0].steps == 500_000
    again = from_json(Gym, json.loads(json.dumps(to_json(a))))
    assert resolved(again) == (chosen, rest)


def test_a_run_keeps_its_settings(tmp_path: Path) -> None:
    (tmp_path / "arguments.json").write_text(
        json.dumps({"command": "rl", "arguments": to_json(rl("--beta 0"))})
    )
    assert read(RL, ["--resume", str(tmp_path)], "rl", "").options == {"beta": 0.0}
    with pytest.raises(UserError, match="keeps its own arguments: --beta, --high cannot change"):
        read(RL, ["--resume", str(tmp_path), "--beta", "1", "--high=0.2"], "rl", "")


def test_settings_of_an_older_run_are_a_list() -> None:
    saved = to_json(rl("")) | {"options": ["beta=0", "kl_estimator=k2"]}
    assert from_json(RL, saved).options == {"beta": 0, "kl_estimator": "k2"}


def test_help_of_a_named_algorithm_shows_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    def text(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main([*words, "--help"])
        assert stop.value.code == 0
        return " ".join(capsys.readouterr().out.split())

    plain, named = text("rl"), text("rl", "--algorithm", "dapo")
    assert "settings of" not in plain and "--entropy-coef" not in plain
    assert "settings of dapo:" in named and "--high X" in named and "(default: 0.28)" in named
    assert "must be given" in named  # --model is not asked for, as help is
    assert "--n-steps N" in text("gym") and "--lam X" not in text("gym")
    assert "GAE's λ" in text("gym", "--algorithm=a2c", "--env", "CartPole-v1")
    assert "settings of ipo:" in text("prefer", "--objective", "ipo")


def test_most_used_options_come_first_and_the_run_s_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["rl", "--help"])
    out = capsys.readouterr().out
    assert out.index("most used:") < out.index("--model") < out.index("\nmodel:")
    assert out.index("\nmodel:") < out.index("\nrun:") < out.index("--resume")


def test_describe_takes_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "dapo", "--high", "0.3"]) == 0
    assert "clip(ρₜ, 1−0.2, 1+0.3)" in capsys.readouterr().out
