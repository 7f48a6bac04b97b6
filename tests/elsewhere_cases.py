"""Everything with a model runs on a device that is not the CPU, and says there what it says here:
`pytest tests/elsewhere_cases.py`.

The device is simulated (`elsewhere.py`), so its figures are the CPU's, up to the rounding of the
paths that are the CPU's own; with LOGPI_DEVICE=cuda it is a real one. `test_elsewhere.py` runs
these in a process of their own.
"""

from tests import elsewhere  # first: autograd must know the device before it runs

# isort: split
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import logpi
from logpi.cli import main
from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling
from logpi.envs.data import RowsTask
from logpi.envs.tasks import Addition
from logpi.errors import UserError
from logpi.evaluation.beam_search import BeamSearch
from logpi.evaluation.evaluator import Evaluator
from logpi.evaluation.scorers import ContinuationScorer, RewardScorer, SelfCertainty
from logpi.jobs import evaluate, prefer, reward_model, rl, sft
from logpi.jobs.options.run import read
from logpi.learner import Learner, Trust
from logpi.objectives.policy_gradient import PolicyGradient, TruncatedIS
from logpi.policies.causal_lm import CausalLM
from logpi.policies.lora import AdapterOff, Merging, add_lora
from logpi.policies.reward_model import RewardModel, WithCritic
from logpi.rewards import rewards
from logpi.rewards.model import ModelReward
from logpi.rollouts.collate import collate
from logpi.rollouts.demonstrations import Demonstrations
from logpi.rollouts.preference_pairs import Preferences, read_pairs
from logpi.rollouts.text_rollout import TextRollout
from logpi.runs.metrics import read_metrics
from logpi.types import Batch, Collected, Trajectory
from logpi.updates.adamw import AdamW
from tests.rollouts.test_turns import Env, echo
from tests.rollouts.test_turns import model as talkative
from tests.rollouts.test_turns import rollout as conversations
from tests.tiny import KINDS, tiny_model, tiny_tokenizer

THERE = os.environ.get("LOGPI_DEVICE", elsewhere.NAME)
PLACES = ("cpu", THERE)
QUIET = {"save_every": 100, "warmup": 1}


def mostly(names: Iterable[str], quick: Sequence[str]) -> list[Any]:
    """Parameters of a test, those that are not `quick` only where slow tests run too."""
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in names]


def policy(place: str, kind: str = "llama", **options: Any) -> CausalLM:
    return CausalLM(tiny_model(kind).to(place), tiny_tokenizer(), **options)


def same(made: Callable[[str], Any], atol: float = 1e-5) -> Any:
    """What `made` makes on either device is the same; returns the CPU's."""
    here, there = (_plain(made(place)) for place in PLACES)
    torch.testing.assert_close(there, here, atol=atol, rtol=1e-5)
    return here


def _plain(found: Any) -> Any:
    """Tensors and numbers only, on the CPU."""
    if isinstance(found, torch.Tensor):
        return found.detach().cpu()
    if isinstance(found, dict):
        return {k: _plain(v) for k, v in found.items()}
    return [_plain(x) for x in found] if isinstance(found, list | tuple) else found


def batch() -> Batch:
    """Two groups of three rows with a tool's reply in one, on the CPU."""
    generator, rows = torch.Generator().manual_seed(1), []
    for i, (prompt, answer) in enumerate([(4, 5), (4, 3), (4, 7), (6, 2), (6, 4), (6, 6)]):
        start = 5 + torch.arange(prompt) * (1 + i // 3)
        tokens = torch.cat([start, torch.randint(5, 90, (answer,), generator=generator)])
        mask = torch.arange(len(tokens) - 1) >= prompt - 1
        mask[prompt + 1 : prompt + 2] &= i != 2
        reward = torch.zeros(len(mask))
        reward[-1] = float(i % 3)
        rows.append(
            Trajectory(tokens, tokens[1:], mask, reward, torch.zeros(len(mask)), i % 2 == 0, i // 3)
        )
    return collate(rows)


def test_what_a_gpu_refuses_is_refused():
    x, index = torch.arange(6.0, device=THERE), torch.tensor([1, 2])
    for wrong in (
        lambda: x + torch.ones(6),
        lambda: x.index_select(0, index),
        lambda: torch.where(x > 1, x, torch.zeros(6)),
        lambda: x.masked_fill(torch.ones(6, dtype=torch.bool), 0),
        lambda: torch.stack([x[0], torch.tensor(1.0)]),
        lambda: x.__setitem__(index, torch.ones(2)),
        lambda: x.numpy(),
        lambda: torch.randn(3, device=THERE, generator=torch.Generator()),
    ):
        with pytest.raises((RuntimeError, TypeError), match=r"same device|generator|numpy"):
            wrong()
    assert (
        (x + torch.tensor(1.0)).tolist() == [1, 2, 3, 4, 5, 6]
        and x[index].tolist() == [1, 2]
        and float(x[2]) == 2.0
    )


@pytest.mark.parametrize("kind", mostly(KINDS, ("llama", "gemma2")))
def test_evaluation_and_its_gradients(kind):
    def made(place):
        learns = policy(place, kind, critic=True)
        now = learns.evaluate(batch())
        assert now.logp.device.type == torch.device(place).type and now.value is not None
        (now.logp.sum() + now.value.sum() + 0.1 * now.entropy.sum()).backward()
        grads = {k: p.grad for k, p in learns.named_parameters() if p.grad is not None}
        return [now.logp, now.entropy, now.value, grads]

    same(made, 5e-5)  # of sums over all tokens; each is good to 1e-5


@pytest.mark.parametrize("kind", mostly(KINDS, ("llama", "gemma2")))
def test_decoding(kind):
    sampling = Sampling(max_tokens=12, stop=("7", "ab"), top_k=20)
    asked = [
        Request([5, 6, 7], 3),
        Request([5, 6, 8, 9], 2, greedy=True),
        Request([5, 6, 7, 11], 2),
    ]

    def made(place):
        found = Engine(policy(place, kind), slots=4).generate(
            asked, sampling, torch.Generator().manual_seed(3)
        )
        assert all(c.tokens.device.type == "cpu" for one in found for c in one)
        return [
            [c.tokens, c.logp, torch.tensor(("eos", "stop", "length").index(c.stop))]
            for one in found
            for c in one
        ]

    same(made)


@pytest.mark.filterwarnings("ignore:.*runs padded")
def test_models_that_keep_their_attention():
    """Padded; they draw by the device's own generator, which is the CPU's on the simulated one."""

    def made(place):
        model = tiny_model("llama")
        model._supports_attention_backend = False
        learns = CausalLM(model.to(place), tiny_tokenizer(), critic=True)
        asked = [Request([5, 6, 7], 2, greedy=THERE != elsewhere.NAME)]
        [rows] = Engine(learns).generate(
            asked, Sampling(max_tokens=6), torch.Generator().manual_seed(3)
        )
        now = learns.evaluate(batch())
        return [now.logp, now.value, [[c.tokens, c.logp] for c in rows]]

    same(made)


def test_conversations():
    """An environment that replies: caches go on, rows leave and come back."""

    def made(place):
        learns = talkative()
        learns.to(place)
        batch = conversations(learns, Env(echo), slots=5)().batch
        now = learns.evaluate(batch)
        torch.testing.assert_close(
            now.logp.cpu()[batch.mask], batch.logp[batch.mask], atol=2e-5, rtol=0
        )
        return [batch.obs, batch.mask, batch.reward, batch.logp]

    same(made)


def odd(prompts, completions, **_):
    """1 for completions of an odd number of characters: random policies get both."""
    return [float(len(c) % 2) for c in completions]


def learned(
    place: str, learns: Any, algorithm: Any, rollout: Any = None, steps: int = 2, **options: Any
) -> Any:
    """Reports and weights after some updates; the optimiser's ε damps what rounding does to
    gradients near 0."""
    sampler = learns.policy if isinstance(learns, WithCritic) else learns
    rollout = rollout or TextRollout(
        sampler,
        Engine(sampler, slots=6),
        Addition(),
        rewards(odd),
        prompts=3,
        num_generations=4,
        seed=1,
        sampling=Sampling(max_tokens=8),
        algorithm=algorithm,
    )
    learner = Learner(learns, algorithm, AdamW(1e-2, eps=1e-2), total=steps, **options)
    reports = []
    for _ in range(steps):
        collected = rollout()
        assert collected.batch.obs.device.type == "cpu"
        report = learner.update(collected.batch)
        reports.append({k: torch.tensor(v) for k, v in report.items() if not k.startswith("gap_")})
        assert learner.advantage is not None and learner.advantage.device.type == "cpu"
        learner.release()
    return [reports, {k: v for k, v in learns.state_dict().items() if isinstance(v, torch.Tensor)}]


ALGORITHMS = {
    "grpo": ("grpo", {"beta": 0.04}),
    "ppo": (
        "ppo",
        {"beta": 0.05, "kl_target": 2.0, "epochs": 2, "minibatches": 2, "value_clip": 0.2},
    ),
    "gspo": ("gspo", {}),
    "remax": ("remax", {}),
    "rloo": ("rloo", {"beta": 0}),
    "dapo": ("dapo", {}),
    "trpo": ("trpo", {}),
    "cut": ("grpo", {"beta": 0, "micro_tokens": 40}),
    "online": ("kto", {"sampled": True}),
}


@pytest.mark.parametrize("case", mostly(ALGORITHMS, ("grpo", "ppo", "cut")))
def test_algorithms_learn_the_same(case):
    name, options = ALGORITHMS[case]
    made = logpi.algorithm(name, **options)

    def run(place):
        critic = made.objective.needs_critic
        return learned(
            place, policy(place, critic=critic), made, refresh=1 if case == "grpo" else 0
        )

    same(run, 5e-5)


def test_a_sampler_of_other_numerics_is_corrected():
    made = logpi.algorithm("grpo", beta=0)
    assert isinstance(made.objective, PolicyGradient)
    made = replace(made, objective=replace(made.objective, correction=TruncatedIS()))
    same(lambda place: learned(place, policy(place), made, trust=Trust(sampler=False)), 5e-5)


def test_weights_of_16_bits():
    """On masters of 32 bits, from the same rows: decoders that round otherwise would sample
    others."""
    made, rows = logpi.algorithm("grpo", beta=0.04), batch()
    with torch.no_grad():
        rows = replace(rows, logp=policy("cpu").to(torch.bfloat16).evaluate(rows).logp)

    def run(place):
        learns = policy(place)
        learns.to(torch.bfloat16)
        return learned(
            place,
            learns,
            made,
            lambda: Collected(rows),
            trust=Trust(sampler=False, tolerance=0.1, mean=True),
        )

    same(run, 3e-2)


def test_a_critic_with_a_trunk_of_its_own(tmp_path):
    policy("cpu").save(tmp_path)

    def run(place):
        critic = RewardModel.load(tmp_path, device=place)
        return learned(place, WithCritic(policy(place), critic), logpi.algorithm("ppo", epochs=2))

    same(run, 5e-5)


def test_adapters_with_the_policy_itself_as_reference(tmp_path):
    def run(place):
        learns = policy(place)
        torch.manual_seed(5)
        add_lora(learns, 2, 4.0)
        found = learned(
            place, learns, logpi.algorithm("grpo", beta=0.1), reference=AdapterOff(learns)
        )
        Merging(learns).save(tmp_path / place)
        return [found, CausalLM.load(tmp_path / place, device=place).evaluate(batch()).logp]

    same(run, 5e-5)


def test_checkpointed_layers():
    same(
        lambda place: learned(
            place, policy(place, gradient_checkpointing=True), logpi.algorithm("grpo", beta=0)
        ),
        5e-5,
    )


def test_demonstrations():
    def run(place):
        learns = policy(place, chunk=2**10)
        return learned(
            place, learns, logpi.algorithm("sft"), Demonstrations(learns, Addition(), rows=6)
        )

    same(run, 5e-5)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("logpi.runs.plots.curves", lambda *a: None)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A model, a data set in which sums are preferred right, and its demonstrations."""
    path = tmp_path_factory.mktemp("elsewhere")
    (path / "odd.py").write_text(
        "def odd(prompts, completions, **_): return [len(c) % 2 for c in completions]"
    )
    CausalLM(tiny_model("qwen2"), tiny_tokenizer(chat_template=None)).save(path / "base")
    judge = RewardModel.load(path / "base")
    torch.nn.init.normal_(judge.model.score.weight)
    judge.save(path / "judge")
    for split, start in (("train", 0), ("test", 60)):
        rows = [
            {"prompt": f"{i}+1=", "chosen": str(i + 1), "rejected": f"{i} or so"}
            for i in range(start, start + 12)
        ]
        for name, keep in (("pairs", {}), ("texts", {"completion": "2"})):
            (path / name).mkdir(exist_ok=True)
            (path / name / f"{split}.jsonl").write_text(
                "".join(json.dumps(r | keep) + "\n" for r in rows)
            )
    return path


@pytest.mark.parametrize("name", mostly(("dpo", "simpo", "reward_model"), ("dpo", "reward_model")))
def test_pairs(home, name):
    def run(place):
        learns = (
            RewardModel.load(home / "base", device=place)
            if name == "reward_model"
            else policy(place, "qwen2")
        )
        made = logpi.algorithm(name, **({"recorded": True} if name == "dpo" else {}))
        rollout = Preferences(
            read_pairs(learns, RowsTask(str(home / "pairs")).rows("train")).groups, size=6
        )
        if name == "dpo":
            rollout.record(learns)
        return learned(place, learns, made, rollout)

    same(run, 5e-5)


def test_evaluation_and_search_with_every_scorer(home):
    rows = Addition().rows("test")[:4]
    judge = rewards(f"model:{home / 'judge'}").parts[0].function
    assert isinstance(judge, ModelReward)

    def made(place):
        learns = policy(place, "qwen2")
        engine, sampling = Engine(learns, slots=8), Sampling(max_tokens=8)
        scored = SelfCertainty(learns)
        numbers, records = Evaluator(
            learns, engine, rows, rewards(odd), sampling, 4, scorer=scored
        )()
        rollouts = ContinuationScorer(
            learns, engine, rewards(odd), 2, sampling, torch.Generator().manual_seed(1)
        )
        judged = RewardScorer(rewards(replace(judge, device=place)))
        beam = [
            [f.best.tokens, torch.tensor(f.score)]
            for scorer in (scored, rollouts, judged)
            for f in BeamSearch(learns, engine, scorer, 4, 2, "1", max_tokens=8)(
                rows, torch.Generator().manual_seed(2)
            )
        ]
        return [
            {k: torch.tensor(v) for k, v in numbers.items() if "time" not in k},
            [torch.tensor(r["scores"]) for r in records if "scores" in r],
            beam,
        ]

    same(made, 5e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_what_is_saved_there_loads_here(kind, tmp_path):
    there = policy(THERE, kind, critic=True)
    torch.nn.init.constant_(there.value_head.weight, 0.1)  # type: ignore[union-attr]
    there.save(tmp_path)
    here = CausalLM.load(tmp_path, critic=True)
    found, expected = here.evaluate(batch()), there.evaluate(batch())
    torch.testing.assert_close(
        _plain([found.logp, found.value]),
        _plain([expected.logp, expected.value]),
        atol=2e-5,
        rtol=1e-5,
    )
    again = CausalLM.load(tmp_path, critic=True, device=THERE)
    tied = again.model.get_output_embeddings().weight is again.model.get_input_embeddings().weight
    assert tied == (kind == "qwen2") and again.device.type == torch.device(THERE).type


# --- whole jobs ---


def numbers(run: Path) -> list[dict[str, Any]]:
    """What a run logged, but for times and what rounding decides (who wins before anything is
    learned); to be compared nearly."""
    left = ("time/", "step_time", "gap_", "rewards/accuracies")
    return [
        {
            k: torch.tensor(float(v))
            for k, v in r.items()
            if isinstance(v, int | float) and not k.startswith(left)
        }
        for r in read_metrics(run)
    ]


JOBS = {
    "sft": (sft.SFT, {"rows": 4, "eval_items": 4, "lr": 1e-3}),
    "prefer": (prefer.Prefer, {"pairs": 4, "lr": 1e-3}),
    "reward-model": (reward_model.TrainRewardModel, {"pairs": 4, "lr": 1e-3}),
    "rl": (
        rl.RL,
        {
            "task": "addition(digits=1)",
            "algorithm": "ppo",
            "options": ("beta=0.05",),
            "prompts": 2,
            "num_generations": 2,
            "max_completion_length": 6,
            "eval_items": 4,
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_jobs(home, job, tmp_path):
    arguments, given = JOBS[job]

    def made(place):
        own = dict(given)
        if job == "sft":
            own["task"] = str(home / "texts")
        elif job == "rl":
            rm = RewardModel.load(home / "base")
            torch.nn.init.constant_(rm.model.score.weight, 0.1)
            rm.save(home / "rm")
            own |= {"rewards": (f"model:{home / 'rm'}", "number:0"), "critic": str(home / "rm")}
        else:
            own["data"] = str(home / "pairs")
        out = tmp_path / place
        arguments(model=str(home / "base"), out=out, device=place, steps=3, **QUIET, **own).run()
        return numbers(out)

    same(made, 2e-4)


def test_eval_on_the_command_line(home, tmp_path, capsys):
    def made(place):
        words = [
            "--model",
            str(home / "base"),
            "--task",
            "addition(digits=1)",
            "--items",
            "4",
            "--samples",
            "2",
            "--device",
            place,
        ]
        more = [
            "--judge",
            f"model:{home / 'judge'}",
            "--max-completion-length",
            "6",
            "--out",
            str(tmp_path / place),
            "--json",
        ]
        assert evaluate.main([*words, *more]) == 0
        return {
            k: torch.tensor(float(v))
            for k, v in json.loads(capsys.readouterr().out).items()
            if "time" not in k
        }

    same(made, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["compute", "step-labels", "chat", "lab"])
def test_commands(home, command, tmp_path, capsys, monkeypatch):
    """The other commands that load a model say the same."""
    model = ["--model", str(home / "base")]
    few = [
        *model,
        "--task",
        "addition(digits=1)",
        "--max-completion-length",
        "8",
        "--temperature",
        "1",
    ]
    words = {
        "compute": [
            *few,
            "--items",
            "3",
            "--samples",
            "2",
            "--beams",
            "4",
            "--step",
            "1",
            "--scorer",
            f"model:{home / 'judge'}",
        ],
        "step-labels": [
            *few,
            "--rewards",
            f"{home / 'odd.py'}:odd",
            "--prompts",
            "6",
            "--step",
            "",
            "--gap",
            "0.01",
        ],
        "chat": [*model, "--max-completion-length", "8"],
        "lab": [
            "step-values",
            *model,
            "--prompt",
            "1+2=",
            "--response",
            "3",
            "--answer",
            "3",
            "--samples",
            "4",
            "--max-tokens",
            "8",
        ],
    }[command]

    def said(place):
        monkeypatch.setattr("sys.stdin", io.StringIO("1+2=\n4+5=\n"))
        out = [] if command in ("chat", "lab") else ["--out", str(tmp_path / place)]
        assert main([command, *words, "--device", place, *out]) == 0
        made = (tmp_path / place).glob("*.jsonl")
        return capsys.readouterr().out, [
            p.read_text() for p in sorted(made) if p.stem in ("train", "test")
        ]

    here, there = map(said, PLACES)
    assert here == there


@pytest.mark.parametrize("dtype", mostly(("float32", "bfloat16"), ("float32",)))
def test_a_run_goes_on_there_bit_for_bit_and_also_here(home, dtype, tmp_path, monkeypatch):
    given = {
        "model": str(home / "base"),
        "task": "addition(digits=1)",
        "rewards": (f"{home / 'odd.py'}:odd",),
        "algorithm": "ppo",
        "options": ("beta=0.05", "epochs=2", "minibatches=2"),
        "steps": 3,
        "prompts": 2,
        "num_generations": 4,
        "eval_items": 2,
        "max_completion_length": 6,
        "eval_every": 0,
        "refresh_reference": 2,
        "lr": 1e-3,
        "warmup": 1,
        "save_every": 2,
        "dtype": dtype,
    }
    update, places = Learner.update, []

    def watched(self, batch):
        places.append(next(self.policy.parameters()).device.type)
        if len(places) == 3 and dies:
            raise RuntimeError("the power went off")
        return update(self, batch)

    monkeypatch.setattr(Learner, "update", watched)
    dies = False
    rl.RL(out=tmp_path / "whole", device=THERE, **given).run()
    there = torch.device(THERE).type
    for name, words, after in (("there", [], there), ("here", ["--device", "cpu"], "cpu")):
        places, dies = [], True
        with pytest.raises(RuntimeError, match="power"):
            rl.RL(out=tmp_path / name, device=THERE, **given).run()
        dies = False
        read(rl.RL, ["--resume", str(tmp_path / name), *words], "rl", "").run()
        assert places == [there] * 3 + [after]
    models = [
        (tmp_path / n / "model" / "model.safetensors").read_bytes()
        for n in ("whole", "there", "here")
    ]
    if THERE == elsewhere.NAME:  # a GPU adds in no fixed order
        assert models[0] == models[1] != models[2]
        assert numbers(tmp_path / "whole") == numbers(tmp_path / "there")
    for name in (
        ("there", "here") if dtype == "float32" else ()
    ):  # in 16 bits another rounding samples other tokens
        torch.testing.assert_close(
            numbers(tmp_path / name), numbers(tmp_path / "whole"), atol=1e-3, rtol=1e-3
        )
    with pytest.raises(UserError, match="nothing else but .*--device"):
        read(rl.RL, ["--resume", str(tmp_path / "here"), "--lr", "9"], "rl", "")
