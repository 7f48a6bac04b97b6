"""LoRA: starts as the same function, off again is the same function, merged is what it was; only it
learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from logpi.algorithms import algorithm
from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling
from logpi.jobs.options.learning import LoraArguments
from logpi.jobs.options.model_size import parameters
from logpi.learner import Learner
from logpi.policies.causal_lm import CausalLM
from logpi.policies.lora import AdapterOff, Merging, add_lora, refuse_4bit
from logpi.policies.reward_model import RewardModel
from logpi.rollouts.collate import collate
from logpi.rollouts.preference_pairs import Preferences, read_pairs
from logpi.updates.adamw import AdamW
from tests.tiny import tiny_model, tiny_tokenizer

ROWS = [
    {"prompt": f"{i}+1=", "chosen": f"{i + 1}", "rejected": f"{i + 2}, or so"} for i in range(4)
]


@pytest.fixture
def policy():
    return CausalLM(tiny_model("llama"), tiny_tokenizer())


def trained(policy):
    """A policy whose adapter has moved, and the pairs."""
    before = {n: p.detach().clone() for n, p in policy.named_parameters()}
    groups = read_pairs(policy, ROWS).groups
    batch = collate([t for g in groups for t in g])
    fresh = policy.evaluate(batch)
    count = add_lora(policy, rank=2, alpha=4)
    torch.testing.assert_close(policy.evaluate(batch).logp, fresh.logp)
    learner = Learner(policy, algorithm("dpo", beta=0.5), AdamW(0.05), reference=AdapterOff(policy))
    rollout = Preferences(groups, size=4)
    reports = [learner.update(rollout().batch) for _ in range(4)]
    return before, batch, fresh, count, reports


def test_only_the_adapter_learns_and_off_is_the_reference(policy):
    before, batch, fresh, count, reports = trained(policy)
    assert 0 < count < 0.2 * sum(p.numel() for p in before.values())
    assert (
        reports[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
        and reports[-1]["loss"] < reports[0]["loss"]
    )
    for name, value in policy.named_parameters():
        plain = name.replace(".base_layer", "")
        if "lora_" not in name:
            torch.testing.assert_close(value, before[plain], rtol=0, atol=0)
    assert (policy.evaluate(batch).logp - fresh.logp).abs().max() > 1e-2
    torch.testing.assert_close(AdapterOff(policy).evaluate(batch).logp, fresh.logp.detach())
    assert (
        sum(p.requires_grad for p in policy.parameters()) == 2 * 7 * 2
    )  # A and B of 7 layers in 2 blocks


def test_merged_export_is_a_plain_directory(policy, tmp_path):
    _, batch, *_ = trained(policy)
    here = policy.evaluate(batch).logp
    Merging(policy).save(tmp_path / "m")
    torch.testing.assert_close(
        policy.evaluate(batch).logp, here, rtol=0, atol=0
    )  # saving changed nothing
    torch.testing.assert_close(
        CausalLM.load(tmp_path / "m").evaluate(batch).logp, here, atol=1e-5, rtol=1e-5
    )


def test_the_adapter_itself_loads_in_peft(policy, tmp_path):
    from peft import PeftModel

    CausalLM(tiny_model("llama"), tiny_tokenizer()).save(tmp_path / "base")
    _, batch, *_ = trained(policy)
    Merging(policy).save(tmp_path / "m")
    base = CausalLM.load(tmp_path / "base")
    with base.plain_attention():
        wrapped = PeftModel.from_pretrained(base.model, str(tmp_path / "m" / "adapter"))
        ids = batch.obs[:1, :4]
        found = wrapped(input_ids=ids).logits
    with policy.plain_attention():
        torch.testing.assert_close(found, policy.model(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


def test_the_engine_samples_with_the_adapter(policy):
    trained(policy)
    (found,) = Engine(policy, slots=2).generate(
        [Request([1, 5, 6], 1, greedy=True)], Sampling(max_tokens=5)
    )
    with policy.plain_attention(), torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([[1, 5, 6]])).logits[0, -1]
    assert found[0].tokens[0] == logits.argmax()


def test_a_reward_models_head_stays_trainable(policy, tmp_path):
    policy.save(tmp_path / "base")
    model = RewardModel.load(tmp_path / "base")
    add_lora(model, rank=2)
    assert model.model.score.weight.requires_grad
    Merging(model).save(tmp_path / "rm")
    rows = [[1, 5, 9, 2]]
    torch.testing.assert_close(RewardModel.load(tmp_path / "rm").scores(rows), model.scores(rows))


def test_checkpoints_hold_what_learns(policy):
    """Not the frozen weights, which are where the run began; and a policy with other adapters takes
    them."""
    trained(policy)
    state = policy.state_dict()
    assert state and all("lora_" in name for name in state)
    other = CausalLM(tiny_model("llama"), tiny_tokenizer())
    add_lora(other, rank=2, alpha=4)
    other.load_state_dict(state)
    batch = collate([t for g in read_pairs(policy, ROWS).groups for t in g])
    torch.testing.assert_close(
        other.evaluate(batch).logp, policy.evaluate(batch).logp, rtol=0, atol=0
    )


def test_four_bits_are_refused_with_the_reason(monkeypatch):
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="need a GPU"):
            refuse_4bit()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("logpi.policies.lora.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install .*\[qlora\]'$"):
        refuse_4bit()
    with pytest.raises(ValueError, match="say what learns, with --lora"):
        LoraArguments(load_in_4bit=True).bits()


@pytest.fixture
def four_bit(tmp_path, monkeypatch) -> Path:
    """A directory to be read in 4 bits. Bitsandbytes runs on a CPU, slowly, if widths are multiples
    of 64; its kernel for inference there computes in bfloat16 and repacks the weights, so it is
    left out."""
    pytest.importorskip("bitsandbytes", reason="4 bits: pip install bitsandbytes")
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    shape = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    CausalLM(tiny_model("llama", **shape), tiny_tokenizer()).save(tmp_path / "base")
    return tmp_path / "base"


def test_four_bits_learn_switch_off_resume_and_merge(four_bit, tmp_path):
    """The whole way of QLoRA: NF4 under adapters, the reference with them off, a checkpoint, and a
    plain directory out."""
    small = CausalLM.load(four_bit, four_bit=True)
    kinds = {type(p).__name__ for p in small.parameters()}
    assert parameters(small) == parameters(CausalLM.load(four_bit))
    assert (
        small.packed
        and "Params4bit" in kinds
        and small.model.get_output_embeddings().weight.dtype == torch.float32
    )
    _, batch, fresh, _, reports = trained(small)
    assert reports[-1]["loss"] < reports[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
    torch.testing.assert_close(AdapterOff(small).evaluate(batch).logp, fresh.logp.detach())
    again = CausalLM.load(four_bit, four_bit=True)
    add_lora(again, rank=2, alpha=4)
    again.load_state_dict(small.state_dict())
    here = small.evaluate(batch).logp.detach()
    torch.testing.assert_close(again.evaluate(batch).logp, here, rtol=0, atol=0)
    Merging(small).save(tmp_path / "m")
    plain = CausalLM.load(tmp_path / "m")
    assert "Params4bit" not in {type(p).__name__ for p in plain.parameters()}
    torch.testing.assert_close(plain.evaluate(batch).logp, here, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(small.evaluate(batch).logp, here, rtol=0, atol=0)


def test_a_reward_model_of_four_bits_keeps_its_head_plain(four_bit, tmp_path):
    model = RewardModel.load(four_bit, four_bit=True)
    add_lora(model, rank=2)
    assert type(model.model.score) is torch.nn.Linear and model.model.score.weight.requires_grad
    Merging(model).save(tmp_path / "rm")
    rows = [[1, 5, 9, 2]]
    torch.testing.assert_close(
        RewardModel.load(tmp_path / "rm").scores(rows), model.scores(rows), atol=1e-4, rtol=1e-4
    )


def test_a_config_of_pefts_chooses_layers_rank_and_scale(policy, tmp_path):
    from peft import LoraConfig

    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], use_rslora=True)
    batch = collate([t for g in read_pairs(policy, ROWS).groups for t in g])
    before = policy.evaluate(batch).logp
    assert add_lora(policy, config=config) == 2 * 4 * (32 + 32 + 32 + 16)
    assert config.base_model_name_or_path is None
    torch.testing.assert_close(policy.evaluate(batch).logp, before)
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    here = policy.evaluate(batch).logp
    Merging(policy).save(tmp_path / "m")
    again = CausalLM.load(tmp_path / "m").evaluate(batch).logp
    torch.testing.assert_close(again, here, atol=1e-5, rtol=1e-5)
    assert (here - before).abs().max() > 1e-2


def test_a_saved_adapter_names_its_base(tmp_path):
    import json

    CausalLM(tiny_model("llama"), tiny_tokenizer()).save(tmp_path / "base")
    policy = CausalLM.load(tmp_path / "base")
    add_lora(policy, rank=2)
    Merging(policy).save(tmp_path / "m")
    saved = json.loads((tmp_path / "m" / "adapter" / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == str(tmp_path / "base") and saved["r"] == 2


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"lora_dropout": 0.1}, "LoraConfig.lora_dropout=0.1. is not supported"),
        ({"use_dora": True}, "LoraConfig.use_dora=True. is not supported"),
        ({"bias": "all"}, "LoraConfig.bias='all'. is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'. is not supported"),
        ({"r": 8, "modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_what_is_not_lora_alone_is_refused(policy, settings, problem):
    from peft import LoraConfig

    with pytest.raises(ValueError, match=problem):
        add_lora(policy, config=LoraConfig(**settings))
    assert all(p.requires_grad for p in policy.parameters())


def test_a_job_takes_a_config(policy):
    from peft import LoraConfig

    arguments = LoraArguments(lora=LoraConfig(r=3, target_modules=["o_proj"]))  # pyright: ignore
    assert isinstance(arguments.adapt(policy), Merging)
    assert sum(p.requires_grad for p in policy.parameters()) == 2 * 2


def test_an_adapted_output_layer_is_sampled_from(policy):
    from peft import LoraConfig

    add_lora(policy, config=LoraConfig(r=2, target_modules=["lm_head"]))
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "lora_B" in name:
                p.normal_(std=2.0, generator=torch.Generator().manual_seed(1))
    prompt, sampling = [1, 5, 6], Sampling(max_tokens=20)
    ((found,),) = Engine(policy, slots=2).generate([Request(prompt, 1, greedy=True)], sampling)
    ids = torch.tensor([[*prompt, *found.tokens.tolist()]])
    logits = policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    assert torch.equal(found.tokens, logits.argmax(-1))
