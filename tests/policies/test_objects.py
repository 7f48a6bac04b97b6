"""Models given as objects, or named by a user's file: what comes out, and what is refused in a
line."""

from __future__ import annotations

import pytest
import torch

from logpi.engine.language_model import LanguageModel
from logpi.policies.causal_lm import CausalLM
from logpi.policies.reward_model import RewardModel
from tests.policies.test_causal_lm import make_batch
from tests.tiny import tiny_model, tiny_tokenizer

FILE = """
from logpi.policies.causal_lm import CausalLM
from tests.tiny import tiny_model, tiny_tokenizer

def pair():
    return tiny_model("qwen3"), tiny_tokenizer()

def policy():
    return CausalLM(*pair())

class Policy(CausalLM):
    def __init__(self):
        super().__init__(*pair(), temperature=0.5)

ready = policy()

def nothing():
    return 7
"""


@pytest.fixture
def classifier():
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(**tiny_model().config.to_dict())
    config.num_labels = 1
    torch.manual_seed(0)
    return LlamaForSequenceClassification(config)


def test_a_model_and_its_tokenizer():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    policy = CausalLM.load(model, tokenizer=tokenizer, critic=True, temperature=0.7, device="auto")
    assert policy.model is model and policy.tokenizer is tokenizer
    assert policy.value_head is not None and policy.temperature == 0.7
    wanted = CausalLM(tiny_model(), tiny_tokenizer(), temperature=0.7).evaluate(make_batch()).logp
    assert torch.equal(policy.evaluate(make_batch()).logp, wanted)


def test_a_policy_is_itself_with_what_is_asked_for_on_it():
    policy = CausalLM(tiny_model(), tiny_tokenizer())
    settings = {"temperature": 1.0, "template_options": {}, "end_token": "", "device": "cpu"}
    assert CausalLM.load(policy, dtype="float32", **settings) is policy
    assert policy.value_head is None
    assert CausalLM.load(policy, critic=True, gradient_checkpointing=True) is policy
    assert policy.value_head is not None and policy.model.is_activation_checkpointing


def test_a_subclass_shares_the_policys_weights():
    policy = CausalLM(tiny_model(), tiny_tokenizer(), critic=True, temperature=0.5)
    model = LanguageModel.load(policy)
    assert type(model) is LanguageModel and model.temperature == 0.5
    assert [p.data_ptr() for p in model.parameters()] == [p.data_ptr() for p in policy.parameters()]
    assert LanguageModel.load(model) is model and CausalLM.load(model) is model


def test_a_users_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    batch = make_batch()
    wanted = CausalLM(tiny_model("qwen3"), tiny_tokenizer()).evaluate(batch).logp
    for name in ("pair", "policy", "ready"):
        assert torch.equal(CausalLM.load(f"{file}:{name}").evaluate(batch).logp, wanted), name
    assert CausalLM.load(f"{file}:Policy").temperature == 0.5
    with pytest.raises(ValueError, match="mine.py:nothing gives int, not a model: return a Causal"):
        CausalLM.load(f"{file}:nothing")
    with pytest.raises(Exception, match="did you mean policy"):
        CausalLM.load(f"{file}:polic")


def test_a_reward_model(classifier, tmp_path):
    model = RewardModel.load(classifier, tokenizer=tiny_tokenizer())
    assert model.model is classifier and RewardModel.load(model) is model
    model.save(tmp_path)
    rows = [[5, 6, 7], [8, 9]]
    assert torch.equal(RewardModel.load(tmp_path, trained=True).scores(rows), model.scores(rows))


def policy(**options) -> CausalLM:
    return CausalLM(tiny_model(), tiny_tokenizer(), **options)


@pytest.mark.parametrize(
    ("source", "options", "problem"),
    [
        (tiny_model, {}, "LlamaForCausalLM needs its tokenizer"),
        (lambda: torch.nn.Linear(2, 2), {"tokenizer": 1}, "Linear is no model of transformers"),
        (lambda: 7, {}, "a model is a path, a hub name or an object, not int"),
        (lambda: "dir", {"tokenizer": 1}, "dir is read with the tokenizer beside it"),
        (policy, {"tokenizer": 1}, "has a tokenizer of its own"),
        (policy, {"dtype": "bfloat16"}, "loaded already, in float32: leave dtype bfloat16 out"),
        (policy, {"four_bit": True}, "is loaded already, and not in 4 bits"),
        (policy, {"temperature": 0.5}, "was made with temperature=1.0: set temperature where"),
        (policy, {"end_token": "<eos>"}, "was made with end_token='': set end_token where"),
    ],
)
def test_bad_combinations_are_one_line(source, options, problem):
    with pytest.raises(ValueError, match=problem) as error:
        CausalLM.load(source(), **options)
    assert "\n" not in str(error.value)


def test_a_reward_model_is_no_policy(classifier):
    with pytest.raises(ValueError, match="LlamaForCausalLM is no reward model here"):
        RewardModel.load(tiny_model(), tokenizer=tiny_tokenizer(), trained=True)
    with pytest.raises(ValueError, match="cannot load a model from LlamaForSequenceClassification"):
        CausalLM.load(classifier, tokenizer=tiny_tokenizer())


def test_a_reward_model_to_be_trained_begins_as_a_causal_model_object():
    """Under a new head of zeros, on a copy of the trunk: the object itself is left as it was."""
    model = tiny_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    reward = RewardModel.load(model, tokenizer=tiny_tokenizer())
    assert not reward.model.score.weight.any()
    with torch.no_grad():
        for p in reward.parameters():
            p.add_(1.0)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert model.config is not reward.model.config
