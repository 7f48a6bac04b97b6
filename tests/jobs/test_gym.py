"""`logpi gym` and `logpi play` as a user meets them."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec

import pytest
from safetensors.torch import load_file

from logpi.algorithms import NAMES, algorithm
from logpi.commands import play
from logpi.envs.control.grid_model import GridModel
from logpi.envs.control.presets import OTHERS, PRESETS, preset
from logpi.errors import UserError
from logpi.jobs import gym, gym_parts
from logpi.jobs.options.saved import from_json
from logpi.jobs.seed_report import interval
from logpi.runs.directory import read_arguments
from logpi.runs.metrics import is_time, read_metrics

SHORT = ["--eval-episodes", "2", "--evaluations", "1", "--save-every", "1"]


def train(path, *words):
    gym.main(["--out", str(path), *SHORT, *words])
    return path


def numbers(path):
    return [{k: v for k, v in r.items() if not is_time(k)} for r in read_metrics(path)]


# no samples, no teacher, no prompts in place of others, no groups of more than one, no returns ≥ 0
NOT_HERE = ("sft", "distill", "dapo", "dapo_forking", "reinforce_rej", "maxrl")


@pytest.mark.parametrize("name", [n for n in NAMES if n not in NOT_HERE])
def test_every_algorithm_trains_by_its_name(name, tmp_path):
    fragments = algorithm(name).objective.fragments
    assert fragments == (name in ("a2c", "ppo", "trpo", "orz"))
    size = ["--steps", "1024"] if fragments else ["--updates", "1"]
    options = [] if fragments else ["episodes=16", "envs=8"]
    train(
        tmp_path / "r",
        "--env",
        "logpi/GridWorld-v0",
        "--algorithm",
        name,
        *size,
        *(["--options", *options] if options else []),
    )
    assert (tmp_path / "r/model/policy.safetensors").exists() and (
        tmp_path / "r/curves.png"
    ).exists()


def test_an_algorithm_that_returns_do_not_fit_says_so(tmp_path):
    words = ["--env", "logpi/GridWorld-v0", "--algorithm", "maxrl", "--updates", "1"]
    with pytest.raises(UserError, match=r"returns must be at least 0, and one is -\d") as error:
        train(tmp_path / "r", *words, "--options", "episodes=16", "envs=8")
    assert "\n" not in str(error.value)


def test_play_draws_the_grid_world(tmp_path, capsys):
    path = train(
        tmp_path / "r",
        "--env",
        "logpi/GridWorld-v0",
        "--steps",
        "2048",
        "--env-options",
        "slip=0.1",
    )
    assert play.main([str(path), "--episodes", "2"]) == 0
    shown = capsys.readouterr().out
    assert "the likeliest move in every cell" in shown and "A" in shown and shown.count("seed") == 2


def test_play_prints_each_step(tmp_path, capsys):
    path = train(tmp_path / "r", "--env", "logpi/GridWorld-v0", "--steps", "2048")
    play.main([str(path), "--episodes", "1", "--lines", "100"])
    lines = [x for x in capsys.readouterr().out.splitlines() if " return " in x and "reward" in x]
    *_, last = lines
    total = 0.0
    for i, line in enumerate(lines, 1):
        step, move, *rest = line.replace("−", "-").split()
        total += float(rest[1])
        assert (int(step), move in "→↑←↓", float(rest[3])) == (i, True, total)
        chances = [float(x) for x in rest[4:] if x[0] in ".01"]
        assert len(chances) == 4 and abs(sum(chances) - 1) < 0.03
    play.main([str(path), "--episodes", "1", "--lines", "1"])
    shown = capsys.readouterr().out
    assert f"… and {len(lines) - 1} more steps (--lines {len(lines)})" in shown
    assert shown.count("reward") == 1 and last.split()[0] == str(len(lines))


def test_play_says_continuous_actions(tmp_path, capsys):
    pytest.importorskip("pygame")
    path = train(tmp_path / "r", "--env", "Pendulum-v1", "--steps", "1024", "--options", "epochs=1")
    play.main([str(path), "--episodes", "1", "--max-frames", "2", "--lines", "2"])
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert " ± " in first and "reward" in first and second.split()[0] == "2"


TERMINALS = {(3, 0): -5.0, (3, 1): 5.0}


@pytest.mark.parametrize("from_python", [False, True])
def test_a_grid_of_ones_own_is_saved_and_resumed(from_python, tmp_path):
    """Ends as a word, or as a mapping with cells as keys, which JSON does not have."""
    env = {
        "terminals": TERMINALS if from_python else "(3,0):-5,(3,1):5",
        "cost": -2,
        "start": "(1,1)",
    }
    settings = {"n_steps": 16, "envs": 4}
    common = {"env": "logpi/GridWorld-v0", "algorithm": "a2c", "options": settings}
    short = {"eval_episodes": 1, "evaluations": 0, "save_every": 1}
    job = gym.Gym(**common, **short, env_options=env, steps=256, out=tmp_path / "r")
    job.run()
    gym.Gym(resume=tmp_path / "r", steps=512).run()
    steps = [r["step"] for r in read_metrics(tmp_path / "r") if "reward" in r]
    assert steps == list(range(1, 9))
    _, saved = read_arguments(tmp_path / "r", "gym")
    grid = GridModel.of(**from_json(gym.Gym, saved).env_options)
    assert grid == GridModel(start=(1, 1), terminals=TERMINALS, cost=-2)


def test_play_writes_a_gif(tmp_path, capsys):
    pytest.importorskip("pygame")
    path = train(tmp_path / "r", "--steps", "1024", "--options", "epochs=1")
    play.main(
        [str(path), "--episodes", "1", "--max-frames", "4", "--video", str(tmp_path / "v.gif")]
    )
    assert (tmp_path / "v.gif").read_bytes()[:3] == b"GIF"
    with pytest.raises(UserError, match="a video is"):
        play.main(
            [str(path), "--episodes", "1", "--max-frames", "1", "--video", str(tmp_path / "v.avi")]
        )


@pytest.mark.parametrize(
    "env,name", [("CartPole-v1", "ppo"), ("Pendulum-v1", "trpo"), ("CartPole-v1", "grpo")]
)
def test_a_stopped_run_goes_on_to_the_same_bits(env, name, tmp_path):
    """With normalised observations and scaled rewards, whose statistics are in the checkpoint."""
    words = [
        "--env",
        env,
        "--algorithm",
        name,
        "--options",
        "normalize=true",
        "scale=true",
        "n_steps=40",
        "envs=2",
        "minibatches=2",
    ]
    words += (
        ["--steps", "480"]
        if algorithm(name).objective.fragments
        else ["episodes=8", "group=4", "minibatches=1", "--updates", "6"]
    )
    straight = train(tmp_path / "a", *words)
    stopped = train(tmp_path / "b", *words)
    newest = sorted((stopped / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest)
    shutil.rmtree(stopped / "model")
    before = len(numbers(stopped))
    gym.main(["--resume", str(stopped)])
    assert numbers(stopped) == numbers(straight) and len(numbers(stopped)) == before
    a, b = (load_file(p / "model/policy.safetensors") for p in (straight, stopped))
    assert all((a[k] == b[k]).all() for k in a)


@pytest.mark.slow
def test_several_seeds_side_by_side(tmp_path):
    gym.main(
        [
            "--out",
            str(tmp_path / "s"),
            *SHORT,
            "--env",
            "logpi/GridWorld-v0",
            "--steps",
            "1024",
            "--seeds",
            "2",
        ]
    )
    found = json.loads((tmp_path / "s/seeds.json").read_text())
    assert (
        len(found["final"]) == 2
        and (tmp_path / "s/curves.png").exists()
        and (tmp_path / "s/seed-1/model").exists()
    )


def test_the_interval_over_seeds():
    mean, half = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0 and half == pytest.approx(2.776 * 1.5811 / 5**0.5, rel=1e-3)


@pytest.mark.parametrize(
    "words,message",
    [
        (["--env", "CartPol-v1"], "did you mean CartPole-v1"),
        (["--options", "epochz=3"], "no option 'epochz'"),
        (["--algorithm", "dapo"], "use grpo"),
        (["--algorithm", "sft"], "demonstrations"),
        (["--algorithm", "reinforce", "--steps", "100"], "--updates"),
        (["--updates", "5"], "--steps"),
        (["--algorithm", "grpo", "--options", "group=1"], "group must be at least 2"),
        (
            ["--algorithm", "reinforce", "--options", "group=4"],
            "compares no episodes with each other: leave group out",
        ),
        (["--algorithm", "grpo", "--options", "episodes=9"], "multiple"),
        (["--algorithm", "grpo", "--vectorized"], "reset seed"),
        (["--options", "squash=true"], "Box"),
        (["--options", "lr=abc"], "lr must be a number"),
        (["--options", "envs=0"], "envs must be a whole number above 0"),
        (["--options", "hidden=64"], "hidden must be widths"),
        (["--algorithm", "trpo", "--options", "max_kl=-1"], "above 0 nats"),
        (["--algorithm", "pp0"], "unknown algorithm"),
        (["--env", "Pendulum-v1", "--algorithm", "dppo"], "continuous actions have densities"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(words, message, tmp_path):
    with pytest.raises(UserError, match=message) as found:
        gym.main(["--out", str(tmp_path / "r"), *words])
    assert "\n" not in str(found.value) and not (tmp_path / "r").exists()


@pytest.mark.skipif(find_spec("ale_py") is not None, reason="the package is there")
def test_ids_that_only_an_extra_registers_name_it():
    with pytest.raises(UserError, match="atari"):
        gym.main(["--env", "ALE/Pong-v5"])


def test_an_uninstalled_environment_names_what_to_install(monkeypatch):
    import gymnasium

    from logpi.envs.control.make import make_env

    def missing(*_, **__):
        raise gymnasium.error.DependencyNotInstalled(
            'Box2D is not installed, you can install it by run `pip install "swig"`'
        )

    monkeypatch.setattr(gymnasium, "make", missing)
    with pytest.raises(UserError, match=r"pip install 'gymnasium\[box2d\]'"):
        make_env("LunarLander-v3")


def test_presets_are_consistent():
    from logpi.jobs.gym_parts import make_algorithm

    for (env, name, *_), p in [*PRESETS.items(), *OTHERS.items()]:
        assert p.steps >= p.envs * p.n_steps and (p.envs * p.n_steps) % p.minibatches == 0, (
            env,
            name,
        )
        make_algorithm(name, p, {})
        assert p.source
    with pytest.raises(UserError, match="no setting"):
        preset("CartPole-v1", "ppo", nsteps=3)
    assert (
        preset("HalfCheetah-v5", "ppo").plain
        and not preset("HalfCheetah-v5", "ppo", "cleanrl", lr=1e-3).plain
    )
    with pytest.raises(UserError, match="there are: cleanrl, wide"):
        preset("CartPole-v1", "ppo", "clenrl")
    assert preset("CartPole-v1", "ppo", max_grad_norm=None, lr=1, hidden=[], relu=True).hidden == ()


def test_a_named_setting_is_chosen_among_the_options():
    chosen, rest = gym_parts.resolved(
        gym.Gym(options={"settings": "cleanrl", "lr": 1e-3, "gamma": 0.9})
    )
    assert (chosen.envs, chosen.lr, rest) == (4, 1e-3, {"gamma": 0.9})


OWN = """
from logpi import SGD, Algorithm, PolicyGradient
from logpi.ops.advantages import GAE, RewardToGo
from logpi.ops.surrogates import Clip
from logpi.ops.weights import SequenceSum


def mine(lam: float = 0.9):
    \"\"\"A composition with a critic that bootstraps.\"\"\"
    objective = PolicyGradient(GAE(0.99, lam), surrogate=Clip(0.1), value_coef=0.5, whiten=True)
    return Algorithm(objective, SGD(epochs=3, minibatches=2, max_grad_norm=0.7))


rows = Algorithm(PolicyGradient(GAE(), weight=SequenceSum(), value_coef=0.5))
plain = Algorithm(PolicyGradient(RewardToGo()))
"""


def test_an_algorithm_of_ones_own_trains_on_fragments(tmp_path):
    """By what its parts are, not by its name; its own update is not the preset's."""
    (tmp_path / "mine.py").write_text(OWN)
    word = f"{tmp_path}/mine.py:mine"
    words = ["--algorithm", word, "--options", "lam=0.8", "n_envs=4", "num_steps=16"]
    a = gym.read(gym.Gym, [*words, "--steps", "640", "--out", "x"], "gym", "")
    p, made, rollout, _, updates = gym_parts.build(a)
    assert (type(rollout).__name__, updates, p.envs, p.n_steps) == ("Fragments", 10, 4, 16)
    steps = made.update
    assert (steps.epochs, steps.minibatches, steps.max_grad_norm) == (3, 2, 0.7)
    assert made.objective.advantage.lam == 0.8 and made.objective.advantage.gamma == 0.99
    train(tmp_path / "r", *words, "--steps", "640")
    assert sum("loss" in r for r in read_metrics(tmp_path / "r")) == 10


@pytest.mark.parametrize("name", ["rows", "plain"])
def test_an_algorithm_of_ones_own_that_needs_whole_episodes(name, tmp_path):
    """No critic bootstraps, or a row's length matters."""
    (tmp_path / f"{name}s.py").write_text(OWN)
    words = ["--algorithm", f"{tmp_path}/{name}s.py:{name}"]
    with pytest.raises(UserError, match="whole episodes"):
        train(tmp_path / "r", *words, "--steps", "640")
    train(tmp_path / "r", *words, "--updates", "1", "--options", "episodes=4", "envs=4")
    assert sum("loss" in r for r in read_metrics(tmp_path / "r")) == 1


def test_a_preset_loses_no_option():
    """The clip of CartPole's preset decays, as RL-Zoo has it; it was dropped without a word."""
    a = gym.read(gym.Gym, ["--out", "x"], "gym", "")
    made = gym_parts.make_algorithm("ppo", gym_parts.resolved(a)[0], {})
    assert type(made.objective.surrogate).__name__ == "DecayingClip"
