"""The jobs from end to end on a tiny model: data in, run directory out, and what a user did
wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from logpi.demos import preferences as rlhf_demo
from logpi.envs.data import RowsTask
from logpi.errors import UserError
from logpi.jobs import prefer, reward_model, rl, sft
from logpi.policies.causal_lm import CausalLM
from logpi.policies.reward_model import RewardModel
from logpi.rollouts.demonstrations import Demonstrations
from logpi.runs.metrics import read_metrics
from logpi.updates.sgd import SGD
from tests.tiny import tiny_model, tiny_tokenizer

QUIET = dict(save_every=100, warmup=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A model, and a data set in which sums are preferred right."""
    path = tmp_path_factory.mktemp("preferences")
    CausalLM(tiny_model("llama"), tiny_tokenizer(chat_template=None)).save(path / "base")
    for split, start in (("train", 0), ("test", 60)):
        rows = [
            {"prompt": f"{i}+1=", "chosen": str(i + 1), "rejected": f"{i} or so"}
            for i in range(start, start + 24)
        ]
        if split == "train":
            rows.append({"prompt": "1+1=", "chosen": "2", "rejected": "2"})
        (path / "pairs").mkdir(exist_ok=True)
        (path / "pairs" / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_prefer_learns_and_says_what_it_dropped(home, capsys):
    out = home / "dpo"
    prefer.Prefer(
        model=str(home / "base"),
        data=str(home / "pairs"),
        steps=12,
        pairs=8,
        lr=2e-3,
        out=out,
        options={"beta": 0.5},
        eval_every=6,
        **QUIET,
    ).run()
    records = read_metrics(out)
    held_out = [r["eval/rewards/accuracies"] for r in records if "eval/rewards/accuracies" in r]
    assert next(r["eval/loss"] for r in records if "eval/loss" in r) == pytest.approx(
        0.6931, abs=1e-3
    )
    assert held_out[-1] > 0.9
    said = capsys.readouterr().err
    assert "1 dropped" in said and "computed once" in said
    assert (out / "curves.png").exists() and CausalLM.load(out / "model").context == 256


def test_kto_with_lora_from_pairs(home):
    out = home / "kto"
    prefer.Prefer(
        model=str(home / "base"),
        data=str(home / "pairs"),
        objective="kto",
        steps=8,
        pairs=8,
        lr=2e-2,
        lora=2,
        out=out,
        eval_every=0,
        **QUIET,
    ).run()
    records = [r for r in read_metrics(out) if "loss" in r]
    assert records[-1]["loss"] < records[0]["loss"] == pytest.approx(0.5, abs=1e-3)
    assert (out / "model" / "adapter" / "adapter_model.safetensors").exists()


def test_the_whole_lane(home, capsys):
    """Reward model on pairs, then PPO against it with a critic that begins as it, gold measured
    beside it."""
    rm = home / "rm"
    reward_model.TrainRewardModel(
        model=str(home / "base"),
        data=str(home / "pairs"),
        steps=12,
        pairs=8,
        lr=3e-3,
        out=rm,
        eval_every=0,
        **QUIET,
    ).run()
    told = json.loads((rm / "held_out.json").read_text())
    assert told["accuracy"] > 0.9 and 0 <= told["calibration"]["error"] <= 0.5
    assert (rm / "scores.png").exists()
    good, bad = RewardModel.load(rm / "model").scores([[1, 5, 6], [1, 6, 5]])
    assert torch.isfinite(good - bad)
    out = home / "ppo"
    capsys.readouterr()
    rl.RL(
        model=str(home / "base"),
        task="addition(digits=1)",
        rewards=(f"model:{rm / 'model'}", "number:0"),
        algorithm="ppo",
        options={"beta": 0.05, "kl_target": 4, "value_clip": 0.2, "epochs": 2},
        critic=str(rm / "model"),
        steps=2,
        prompts=4,
        num_generations=2,
        max_completion_length=6,
        eval_items=6,
        out=out,
        **QUIET,
    ).run()
    said = capsys.readouterr().err
    for role in ("policy", "critic", "reference", "reward rm", "total"):
        assert f"\n{role}" in said, said
    last = [r for r in read_metrics(out) if "kl_coef" in r][-1]
    assert {"rewards/rm/mean", "rewards/number/mean", "kl_sequence", "value/loss"} <= last.keys()
    assert any("eval/number" in r and "eval/rm" in r for r in read_metrics(out))


@pytest.mark.parametrize(("name", "start"), [("dpo", 0.6931), ("kto", 0.5)])
def test_online_is_the_same_objective_on_samples(home, name, start):
    out = home / f"online-{name}"
    rl.RL(
        model=str(home / "base"),
        task="addition(digits=1)",
        rewards=("soft_overlong(8, cache=8)",),
        algorithm=name,
        options={"beta": 0.2},
        steps=3,
        prompts=6,
        num_generations=4,
        lora=2,
        lr=1e-3,
        max_completion_length=8,
        eval_items=4,
        out=out,
        **QUIET,
    ).run()
    first = next(r for r in read_metrics(out) if "rewards/accuracies" in r)
    if name == "kto":
        assert first["kto/z0"] == pytest.approx(0, abs=1e-5) and 0 < first["loss"] <= start + 1e-4
        return
    assert first["loss"] == pytest.approx(0.6931 * (1 - first["frac_reward_zero_std"]), abs=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"objective": "ppo"}, "no preference objective"),
        ({"data": "nowhere.jsonl"}, "no such file"),
        ({"load_in_4bit": True, "lora": 4}, "4-bit"),
        ({"load_in_4bit": True}, "say what learns, with lora=16"),
        ({"options": ("beta=0",)}, "beta must be positive"),
        ({"max_length": 2}, "nothing can be learned"),
        ({"options": ("minibatches=4",), "pairs": 2}, "4 minibatches of pairs=2 would part them"),
    ],
)
def test_mistakes_are_one_line(home, change, words):
    given = {
        "model": str(home / "base"),
        "data": str(home / "pairs"),
        "out": home / "never",
        **change,
    }
    with pytest.raises(UserError, match=words):
        prefer.Prefer(**given).run()
    assert not (home / "never").exists()


def test_the_demonstration_prints_every_lane(tmp_path, capsys):
    """A few steps of each stage; a second call measures again and trains nothing."""
    few = [
        "--sft-steps",
        "3",
        "--reward-steps",
        "2",
        "--ppo-steps",
        "1",
        "--dpo-steps",
        "2",
        "--pairs",
        "64",
    ]
    for _ in range(2):
        assert rlhf_demo.main([*few, "--out", str(tmp_path / "demo")]) == 0
        table = capsys.readouterr().out
        lanes = [" ".join(line.split()) for line in table.splitlines() if line.startswith("→")]
        for lane in (
            "→ reward model → PPO policy, critic, reference, reward",
            "→ the same without KL policy, critic, reward",
            "→ DPO policy",
        ):
            assert any(line.startswith(lane) for line in lanes), table


def test_sft_of_plain_text_with_lora_measures_perplexity(home, tmp_path):
    """All tokens of a text are learned, the first too (behind the end token, where a tokenizer has
    no beginning)."""
    (tmp_path / "texts").mkdir()
    for split in ("train", "test"):
        rows = [json.dumps({"text": "abcabcabc"[i % 3 :]}) + "\n" for i in range(6)]
        (tmp_path / "texts" / f"{split}.jsonl").write_text("".join(rows))
    out = tmp_path / "sft"
    sft.SFT(
        model=str(home / "base"),
        task=str(tmp_path / "texts"),
        steps=30,
        rows=6,
        lr=2e-2,
        lora=4,
        out=out,
        eval_items=6,
        loss="all",
        **QUIET,
    ).run()
    found = [r["eval/perplexity"] for r in read_metrics(out) if "eval/perplexity" in r]
    assert found[0] > 20 and found[-1] < 4
    policy = CausalLM.load(out / "model")
    one = Demonstrations(policy, RowsTask(str(tmp_path / "texts")), rows=1)().batch
    assert int(one.mask.sum()) == one.mask.shape[1] and int(one.obs[0, 0]) == policy.eos_ids[-1]


def online(home: Path, **changes) -> dict:
    return {
        "model": str(home / "base"),
        "task": "addition(digits=1)",
        "steps": 5,
        "prompts": 2,
        "num_generations": 2,
        "max_completion_length": 5,
        "eval_items": 2,
        "lr": 1e-3,
        **changes,
    }


# A job, its arguments, and the files of its model that must come out the same.
JOBS = {
    "prefer": (prefer.Prefer, lambda h: {"data": str(h / "pairs")}, []),
    "prefer with LoRA": (
        prefer.Prefer,
        lambda h: {"data": str(h / "pairs"), "lora": 2},
        ["adapter/adapter_model"],
    ),
    "reward model": (
        reward_model.TrainRewardModel,
        lambda h: {"data": str(h / "pairs")},
        [],
    ),
    "sft": (sft.SFT, lambda h: {"task": str(h / "texts"), "rows": 4, "micro_tokens": 20}, []),
    "rl with LoRA": (
        rl.RL,
        lambda h: online(h, algorithm="grpo", lora=2, options={"beta": 0.1}),
        ["adapter/adapter_model"],
    ),
    "ppo with a critic of its own": (
        rl.RL,
        lambda h: online(
            h, algorithm="ppo", critic="policy", options={"beta": 0.05, "kl_target": 2, "epochs": 2}
        ),
        ["critic/model"],
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_stopped_run_goes_on_bit_for_bit(home, tmp_path, monkeypatch, name):
    """N steps are k, a crash and N − k. Reference log-probabilities are computed again from the
    model that the run began with, not from the checkpoint."""
    (home / "texts").mkdir(exist_ok=True)
    (home / "texts" / "train.jsonl").write_text(
        "".join(json.dumps({"text": "abcab"[i % 3 :]}) + "\n" for i in range(9))
    )
    arguments, own, further = JOBS[name]
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    common = {
        "model": str(home / "base"),
        "steps": 5,
        "lr": 2e-3,
        "eval_every": 0,
        "warmup": 1,
        "save_every": 2,
    }
    common |= {"pairs": 8} if "pairs" in arguments.__dataclass_fields__ else {}
    common |= own(home)
    arguments(out=whole, **common).run()
    calls, step, last = [], SGD._step, 4 * (2 if "ppo" in name else 1)

    def dies(*args, **kwargs):
        calls.append(1)
        if len(calls) == last:
            raise OSError("as if the power went")
        return step(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(SGD, "_step", dies)
        arguments(out=torn, **common).run()
    arguments(out=torn, resume=torn, **common).run()
    kept = [
        [{k: v for k, v in r.items() if "time" not in k} for r in read_metrics(p)]
        for p in (whole, torn)
    ]
    assert kept[0] == kept[1]
    for file in ("model", *further):
        one, two = ((p / "model" / f"{file}.safetensors").read_bytes() for p in (whole, torn))
        assert one == two, file


def test_a_critic_of_its_own_is_saved_and_begins_another_run(home, tmp_path):
    """As a reward model beside the policy."""
    out = tmp_path / "ppo"
    pays = ("soft_overlong(4, cache=4)",)  # something, before anything was learned
    made = online(home, algorithm="ppo", critic="policy", steps=1, save_every=9, rewards=pays)
    rl.RL(out=out, **made).run()
    critic = RewardModel.load(out / "model" / "critic")
    assert critic.model.score.weight.abs().sum() > 0  # it began at 0
    rl.RL(
        out=tmp_path / "more",
        **made | {"model": str(out / "model"), "critic": str(out / "model" / "critic")},
    ).run()
