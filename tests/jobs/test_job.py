"""Jobs from Python: words or objects, whole or step by step, and going on from the same script."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

import logpi
from logpi.cli import main
from logpi.envs.control.make import make_vector_environment
from logpi.envs.control.spaces import stack
from logpi.errors import UserError
from logpi.jobs.gym_parts import resolved
from logpi.jobs.options.fingerprint import recorded
from logpi.policies.small import small_policy
from tests.tiny import tiny_model, tiny_tokenizer

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(6) for b in range(5)]
PAIRS = [{"prompt": f"say {i}", "chosen": f"{i}", "rejected": f"{(i + 1) % 10}"} for i in range(60)]
SMALL: dict[str, Any] = {"save_every": 2, "device": "cpu"}
RL: dict[str, Any] = {
    "prompts": 2,
    "num_generations": 2,
    "max_completion_length": 4,
    "eval_items": 3,
    "eval_every": 0,
    **SMALL,
}


def short(completions: list[str], **_: Any) -> list[float]:
    """Pays short completions."""
    return [1.0 / (1 + len(text)) for text in completions]


def words() -> dict[str, Any]:
    return {"model": tiny_model(), "tokenizer": tiny_tokenizer()}


def rl(path: Path, **more: Any) -> logpi.RL:
    given = {**words(), "task": ROWS, "rewards": [short], "out": path, "steps": 3, **RL}
    return logpi.RL(**{**given, **more})


# --- whole ---


def test_objects_train_and_come_back(tmp_path: Path) -> None:
    result = rl(tmp_path / "run", beta=0, learning_rate=1e-3).run()
    assert (tmp_path / "run" / "tokenizer" / "tokenizer.json").is_file()
    assert result.path == tmp_path / "run" and result.outcome.step == 3
    steps, rewards = result.metrics["reward"]
    assert steps.tolist() == [1, 2, 3] and ((rewards > 0) & (rewards <= 1)).all()
    assert result.first and result.last and result.best["eval/pass@1"] >= 0
    assert len(result.policy.generate(["1+1=", "2+2="], max_tokens=2)) == 2
    saved = json.loads((result.path / "arguments.json").read_text())["arguments"]
    assert saved["task"]["object"] == "list of 30 rows" and saved["lr"] == 1e-3
    assert saved["rewards"][0]["object"] == "function short" and saved["options"] == {"beta": 0}
    again = logpi.open_run(result.path).policy()
    for mine, theirs in zip(
        result.policy.model.parameters(), again.model.parameters(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_a_cell_that_is_run_again_makes_the_next_run(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    given = words()
    for n in (1, 2):
        job = logpi.RL(**given, task=ROWS, rewards=[short], **{**RL, "steps": 1})
        assert job.run().path == Path(f"runs/rl-{n}")
    texts = [{"prompt": r["prompt"], "completion": r["answer"]} for r in ROWS]
    assert logpi.SFT(**given, task=texts, steps=1, rows=2, **SMALL).run().outcome.step == 1
    assert logpi.RewardModel(**given, data=PAIRS, steps=1, pairs=2, **SMALL).run()


async def judged(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    return [float(a in c) for a, c in zip(answer, completions, strict=True)]


def test_rewards_of_every_kind_and_an_algorithm_as_a_value(tmp_path: Path) -> None:
    algorithm = logpi.algorithm("dapo", high=0.3)
    job = rl(tmp_path / "run", rewards=[(short, 0.5), judged, "number:0"], algorithm=algorithm)
    result = job.run()
    assert {f"rewards/{n}/mean" for n in ("short", "judged", "number")} <= set(result.metrics)
    assert job.rollout.keep is algorithm.keep  # type: ignore[attr-defined]


def test_supervised_and_preferences_and_a_reward_model(tmp_path: Path) -> None:
    texts = [{"prompt": r["prompt"], "completion": r["answer"]} for r in ROWS]
    sft = logpi.SFT(**words(), task=texts, steps=2, rows=4, out=tmp_path / "sft", **SMALL).run()
    assert "loss" in sft.metrics
    pairs: dict[str, Any] = {"data": PAIRS, "steps": 2, "pairs": 4, "eval_items": 4, **SMALL}
    model = sft.path / "model"
    dpo = logpi.Prefer(model=str(model), out=tmp_path / "dpo", beta=0.2, **pairs).run()
    assert "eval/rewards/accuracies" in dpo.last
    scored = logpi.RewardModel(**words(), out=tmp_path / "rm", **pairs).run()
    assert 0 <= scored.last["eval/accuracy"] <= 1
    paid = rl(tmp_path / "rl", rewards=[f"model:{scored.path / 'model'}"], steps=1).run()
    assert paid.outcome.step == 1


def test_a_policy_trains_on_in_the_next_job(tmp_path: Path) -> None:
    policy = small_policy("0123456789+= say", width=16, layers=1, heads=2)
    texts = [{"prompt": r["prompt"], "completion": r["answer"]} for r in ROWS]
    tuned = logpi.SFT(model=policy, task=texts, steps=1, rows=2, out=tmp_path / "sft", **SMALL)
    learned = tuned.run().policy
    pairs: dict[str, Any] = {"data": PAIRS, "steps": 1, "pairs": 4, "eval_items": 4, **SMALL}
    before = [p.clone() for p in learned.model.model.parameters()]
    logpi.RewardModel(model=learned, out=tmp_path / "rm", **pairs).run()
    after = learned.model.model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    logpi.Prefer(model=learned, out=tmp_path / "dpo", **pairs).run()
    scored = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm" / "model")
    assert scored.config.num_labels == 1


def test_evaluate(tmp_path: Path) -> None:
    measured = logpi.Evaluate(
        **words(), task=ROWS, samples=2, items=4, max_completion_length=3, out=tmp_path / "e"
    ).run()
    assert 0 <= measured.numbers["pass@1_low"] <= measured.numbers["pass@1"] <= 1
    assert "pass@1" in str(measured)


def test_a_critic_of_its_own_shares_no_weights_with_an_object(tmp_path: Path) -> None:
    job = rl(tmp_path / "run", algorithm="ppo", critic="policy", steps=1)
    job.run()
    learns = job.learner.policy
    trunks = {p.data_ptr() for p in learns.critic.parameters()}  # type: ignore[attr-defined]
    assert not trunks & {p.data_ptr() for p in job.policy.parameters()}


# --- step by step ---


def test_leaving_the_loop_stops_with_a_model_and_goes_on(tmp_path: Path) -> None:
    job = rl(tmp_path / "run", steps=5)
    with pytest.raises(UserError, match="has not begun"):
        _ = job.policy
    for step in job:
        assert step.samples and "reward" in step.metrics
        if step.number == 3:
            break
    assert job.result.outcome.step == 3 and (tmp_path / "run/model/config.json").exists()
    rest = [s.number for s in rl(None, steps=5, resume=tmp_path / "run")]  # type: ignore[arg-type]
    assert rest == [4, 5]
    straight = rl(tmp_path / "straight", steps=5)
    straight.run()
    one, other = (logpi.open_run(tmp_path / n).metrics["reward"] for n in ("run", "straight"))
    assert one.values.tolist() == other.values.tolist()


def test_another_learning_rate_in_the_loop(tmp_path: Path) -> None:
    job = rl(tmp_path / "run", steps=3, lr=1e-3, warmup=0)
    rates = []
    for step in job:
        rates.append(step.metrics["lr"])
        job.learner.lr = 1e-4
    assert rates == pytest.approx([1e-3, 1e-4, 1e-4])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"rewards": [judged]}, "rewards"),
        ({"task": ROWS[1:]}, "task"),
        ({"num_generations": 3}, "num_generations 2, not 3"),
        ({"model": tiny_model(seed=1)}, "model"),
    ],
)
def test_another_object_is_refused_at_resume(
    tmp_path: Path, change: dict[str, Any], line: str
) -> None:
    rl(tmp_path / "run", steps=1).run()
    with pytest.raises(UserError, match=line):
        rl(None, steps=2, resume=tmp_path / "run", **change).run()  # type: ignore[arg-type]


def test_the_command_line_says_how_a_run_of_objects_goes_on(tmp_path: Path) -> None:
    from logpi.jobs.options.run import read

    rl(tmp_path / "run", steps=1).run()
    with pytest.raises(UserError, match="begun from Python with an object as its .*resume=PATH"):
        read(logpi.RL, ["--resume", str(tmp_path / "run")], "rl", "")


def test_going_on_takes_what_is_left_out_from_the_run(tmp_path: Path) -> None:
    rl(tmp_path / "run", steps=1, lr=1e-3).run()
    objects: dict[str, Any] = {**words(), "task": ROWS, "rewards": [short]}
    job = logpi.RL(**objects, resume=tmp_path / "run", steps=2)
    assert (job.lr, job.prompts, job.steps) == (1e-3, 2, 2)
    assert job.run().outcome.step == 2
    with pytest.raises(UserError, match="begun with objects: give the same rewards again"):
        logpi.RL(**words(), task=ROWS, resume=tmp_path / "run")
    with pytest.raises(UserError, match="a run of `logpi rl`"):
        logpi.Gym(resume=tmp_path / "run")
    with pytest.raises(UserError, match="no run"):
        logpi.Gym(resume=tmp_path / "nothing")


def test_adapters_are_a_number_or_a_peft_configuration(tmp_path: Path) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    job = rl(tmp_path / "run", peft_config=config, steps=1)
    trained = [n for n, p in job.run().policy.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in n for n in trained)
    # the names in a set have another order in another process
    code = "from peft import LoraConfig; from logpi.jobs.options.fingerprint import recorded;"
    code += "print(recorded(LoraConfig(r=2, target_modules=['q_proj', 'v_proj'])))"
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert prints == {f"{recorded(config)}\n"}
    assert recorded(config) != recorded(LoraConfig(r=3, target_modules=["q_proj", "v_proj"]))


def test_fingerprints_tell_objects_apart() -> None:
    def made(k: int) -> Any:
        return lambda completions: [k for _ in completions]

    prints = [recorded(x)["fingerprint"] for x in (made(1), made(1), made(2), ROWS, ROWS[1:])]
    assert prints[0] == prints[1] and len(set(prints)) == 4
    models = [recorded(tiny_model(seed=s))["fingerprint"] for s in (0, 0, 1)]
    assert models[0] == models[1] != models[2]


# --- how a job shows itself ---


def test_a_job_prints_what_was_chosen() -> None:
    job = logpi.RL(model=tiny_model(), task=ROWS, rewards=[short, "number:0.1"], beta=0, seed=3)
    assert repr(job) == (
        "RL(model=<LlamaForCausalLM>, task=<list of 30 rows>, rewards=[short, 'number:0.1'],"
        " seed=3, options={'beta': 0})"
    )
    assert repr(logpi.SFT(model="m", task="rows.jsonl")) == "SFT(model='m', task='rows.jsonl')"


def test_help_names_options_with_defaults_and_what_they_do() -> None:
    parameters = inspect.signature(logpi.RL).parameters
    assert list(parameters)[:3] == ["model", "task", "rewards"]
    assert parameters["steps"].default == 200 and "settings" in parameters
    assert "settings" not in inspect.signature(logpi.SFT).parameters
    text = logpi.RL.__init__.__doc__ or ""
    assert "\n    steps: updates\n" in text and "one of 'constant', 'linear', 'cosine'" in text


def test_other_libraries_names_are_understood() -> None:
    scored = logpi.RewardModel(model="m", train_dataset="d", center_rewards_coefficient=0.1)
    assert repr(scored) == "RewardModel(model='m', data='d', centre=0.1)"
    prefer = logpi.Prefer(model="m", train_dataset=PAIRS, processing_class="t", lora_r=8)
    assert (prefer.data, prefer.tokenizer, prefer.lora) == (PAIRS, "t", 8)
    gym = logpi.Gym(n_envs=4, learning_rate=1e-3, n_epochs=3, total_timesteps=512)
    assert gym.steps == 512
    preset, chosen = resolved(gym)
    assert (preset.envs, preset.lr, preset.epochs, chosen) == (4, 1e-3, 3, {})


def test_options_come_from_a_file_and_keywords_win(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: m\nalgorithm: dapo\nhigh: 0.3\nlr: 1e-5\nrewards: number\n")
    job = logpi.RL(config=file, lr=1e-4, low=0.1)
    assert (job.model, job.lr, job.rewards, job.config) == ("m", 1e-4, ("number",), None)
    assert job.options == {"high": 0.3, "low": 0.1}
    file.write_text("algorithm: dapoo\nhigh: 0.3\n")
    with pytest.raises(UserError, match="dapo"):
        logpi.RL(model="m", config=file)


def test_what_only_commands_do_is_refused_with_a_line() -> None:
    with pytest.raises(UserError, match="config='runs/rl-1/arguments.json'"):
        logpi.RL(model="m", repeat="runs/rl-1")
    with pytest.raises(UserError, match="one seed"):
        logpi.Gym(seeds=2).run()


# --- what cannot be right ---


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"surrogat": "Clip"}, "RL has no option 'surrogat'; did you mean surrogate"),
        ({"stepz": 3}, "RL has no option 'stepz'; did you mean steps"),
        ({"steps": 0}, "steps: must be at least 1"),
        ({"steps": "many"}, "steps: 'many' is not a whole number"),
        ({"steps": [1]}, "steps: .* is not a whole number"),
        ({"target_kl": 0.1}, "RL has no option 'target_kl': in SB3"),
        ({"algorithm": "grpo", "max_kl": 0.1}, "RL has no option 'max_kl'"),
        ({"algorithm": logpi.algorithm("grpo"), "beta": 1}, "has its own settings"),
        ({"algorithm": "gropo", "beta": 0}, "did you mean grpo"),
        ({"epsilon": 0.1, "low": 0.1}, "which is given too"),
        ({"lr": 1e-3, "learning_rate": 1e-3}, "lr and learning_rate are the same option"),
        ({"callbacks": []}, "no option 'callbacks': .*for step in job"),
        ({"overlong_prompts": "dorp"}, "overlong_prompts: .*did you mean drop"),
    ],
)
def test_a_wrong_keyword_is_one_line(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        logpi.RL(model="m", **given)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"rewards": [3]}, "reward"),
        ({"task": 3}, "task"),
        ({"task": [{"question": 1}]}, "row 1|prompt"),
        ({"model": 3}, "model"),
        ({"tokenizer": None}, "tokenizer"),
        ({"trackers": [3]}, "tracker"),
    ],
)
def test_a_wrong_object_is_one_line_before_work(
    tmp_path: Path, given: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError, match=line) as error:
        rl(tmp_path / "run", **given).run()
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_messages_name_flags_or_keywords(tmp_path: Path, capsys: Any) -> None:
    small_policy("0123456789+=").save(tmp_path / "model")
    model = str(tmp_path / "model")
    with pytest.raises(UserError, match="prompt: num_generations must be at least 2, not 1"):
        logpi.RL(model=model, task="addition", num_generations=1).run()
    with pytest.raises(UserError, match="for each item: samples=8"):
        logpi.Evaluate(model=model, pass_at=8)
    words = ["--model", model, "--task", "addition", "--num-generations", "1"]
    assert main(["rl", *words]) == 2
    assert "--num-generations must be" in capsys.readouterr().err


# --- control ---


class Network(torch.nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(torch.nn.Linear(inputs, 8), torch.nn.Tanh(), torch.nn.Linear(8, outputs))


class Recorder:
    def __init__(self) -> None:
        self.steps: list[int] = []

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.steps.append(step)


def test_gym_takes_an_environment_a_network_and_a_tracker(tmp_path: Path) -> None:
    tracker = Recorder()
    job = logpi.Gym(
        env=lambda: gymnasium.make("CartPole-v1"),
        network=Network,
        trackers=[tracker],
        steps=256,
        n_steps=16,
        envs=2,
        evaluations=0,
        eval_episodes=2,
        out=tmp_path / "run",
    )
    result = job.run()
    assert "<td>eval/reward</td>" in result._repr_html_()
    assert isinstance(result.policy.actor_net, Network) and set(tracker.steps) == set(range(9))
    action = result.policy.act(gymnasium.make("CartPole-v1").reset(seed=0)[0])
    assert int(action) in (0, 1)


class Mixed(gymnasium.Env):
    """A room's number, a position and an angle; the reward is 1 for the room's number."""

    observation_space = gymnasium.spaces.Dict(
        {
            "room": gymnasium.spaces.Discrete(3),
            "place": gymnasium.spaces.Tuple(
                (gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.MultiDiscrete([2, 4]))
            ),
        }
    )
    action_space = gymnasium.spaces.Discrete(3)

    def _observed(self) -> dict[str, Any]:
        place = (
            self.np_random.uniform(-1, 1, 2).astype("float32"),
            self.np_random.integers(0, 2, 2),
        )
        self.room = int(self.np_random.integers(3))
        return {"room": self.room, "place": place}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self._observed(), {}

    def step(self, action: Any) -> Any:
        reward = float(action == self.room)
        return self._observed(), reward, False, bool(self.np_random.random() < 0.1), {}


@pytest.mark.parametrize("env", [Mixed, "FrozenLake-v1"])
def test_act_takes_what_the_environment_gives(tmp_path: Path, env: Any) -> None:
    short = {"steps": 64, "n_steps": 8, "epochs": 1, "minibatches": 1, "eval_episodes": 1}
    policy = logpi.Gym(env=env, out=tmp_path / "run", **short).run().policy
    envs = make_vector_environment(env, 4, False)
    envs.begin(lambda i: i)
    raw = [observation for observation, _ in envs._raw]
    encoded = policy.kind.to_env(policy.kind.mode(policy.actor()(envs.obs)))
    assert np.array_equal([policy.encode(x) for x in raw], envs.obs)
    assert [policy.act(x) for x in raw] == policy.act(envs.obs).tolist() == encoded.tolist()
    batch = stack(envs.observation, raw)
    assert policy.act(batch).tolist() == encoded.tolist()


def test_gym_of_words_gives_its_policy_back(tmp_path: Path) -> None:
    result = logpi.Gym(steps=256, n_steps=16, envs=2, eval_episodes=2, out=tmp_path / "r").run()
    policy = logpi.open_run(result.path).policy()
    observation = gymnasium.make("CartPole-v1").reset(seed=0)[0]
    assert policy.act(observation) == result.policy.act(observation)


def test_an_algorithm_as_a_value_keeps_its_numbers(tmp_path: Path) -> None:
    algorithm = logpi.algorithm("ppo", gamma=0.5, epochs=3)
    job = logpi.Gym(algorithm=algorithm, steps=64, n_steps=16, envs=2, evaluations=0)
    setup = job.setup()
    learned = setup.learner.algorithm
    assert learned.objective.advantage.gamma == 0.5  # type: ignore[attr-defined]
    assert learned.update.gradient_steps.epochs == 3  # type: ignore[attr-defined]


def test_an_optimiser_of_torch(tmp_path: Path) -> None:
    job = rl(tmp_path / "run", steps=1, optimizer=lambda p: torch.optim.SGD(p, lr=0.5))
    for step in job:
        assert isinstance(job.learner.optimizer, torch.optim.SGD)
        assert step.metrics["lr"] == 0.5


def test_a_model_has_a_card(tmp_path: Path) -> None:
    result = rl(tmp_path / "run", steps=1, algorithm="dr_grpo").run()
    card = (result.path / "model" / "README.md").read_text()
    assert "list of 30 rows" in card and "dr_grpo" in card and "eval/pass@1" in card


def test_a_reward_models_card_loads_a_classifier(tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": PAIRS, "steps": 1, "pairs": 2, "eval_items": 2, **SMALL}
    result = logpi.RewardModel(**words(), out=tmp_path / "rm", **given).run()
    card = (result.path / "model" / "README.md").read_text()
    assert "AutoModelForSequenceClassification.from_pretrained" in card
    assert "AutoModelForCausalLM" not in card
