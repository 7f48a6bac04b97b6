"""Families of models: learner, sampler and `transformers` say the same, row by row, whatever stands
beside a row."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling
from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.collate import collate
from logpi.types import Batch, Trajectory
from tests.policies.architectures import QUICK, REST, architecture
from tests.tiny import tiny_tokenizer

PROMPT = 10
NEAR = 1e-3  # nats


def policy_of(name: str) -> CausalLM:
    model = architecture(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some run padded, and say so
        return CausalLM(model, tiny_tokenizer())


def rows(*lengths: int) -> list[torch.Tensor]:
    """Rows of tokens, the first two and the last with the same prompt."""
    g = torch.Generator().manual_seed(0)
    made = [torch.randint(4, 60, (n,), generator=g) for n in lengths]
    made[-1][:PROMPT] = made[0][:PROMPT]
    return made


def batch(tokens: list[torch.Tensor]) -> Batch:
    return collate(
        [
            Trajectory(
                t,
                t[1:],
                torch.arange(len(t) - 1) >= PROMPT - 1,
                *(torch.zeros(len(t) - 1),) * 2,
                True,
                i,
            )
            for i, t in enumerate(tokens)
        ]
    )


def alone(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of a row's actions as a fresh copy of the model finds them, which has read
    nothing else."""
    with torch.no_grad():
        logits = copy.deepcopy(model)(input_ids=tokens[None], use_cache=False).logits[0].float()
    return logits.log_softmax(-1)[PROMPT - 1 : -1].gather(1, tokens[PROMPT:, None])[:, 0]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in REST)])
def test_learner_and_sampler_are_transformers(name):
    untouched = architecture(name)
    policy, tokens = policy_of(name), rows(20, 60, 33)
    with torch.no_grad():
        beside = policy.evaluate(batch(tokens)).logp[:, PROMPT - 1 :]
        by_itself = policy.evaluate(batch(tokens[:1])).logp[0, PROMPT - 1 :]
    for found, row in zip(beside, tokens, strict=True):
        wanted = alone(untouched, row)
        torch.testing.assert_close(found[: len(wanted)], wanted, atol=NEAR, rtol=0)
    torch.testing.assert_close(beside[0, : len(by_itself)], by_itself, atol=NEAR, rtol=0)
    requests = [
        Request(tokens[0][:PROMPT].tolist(), 2),
        Request(tokens[0][:PROMPT].tolist(), greedy=True),
    ]
    sampled = Engine(policy, slots=2).generate(
        requests, Sampling(max_tokens=36), torch.Generator().manual_seed(0)
    )
    for completion in [c for some in sampled for c in some]:
        row = torch.cat([tokens[0][:PROMPT], completion.tokens])
        torch.testing.assert_close(completion.logp, alone(untouched, row), atol=NEAR, rtol=0)
    ((greedy,),) = sampled[1:]
    whole = torch.cat([tokens[0][:PROMPT], greedy.tokens])
    with torch.no_grad():
        logits = copy.deepcopy(untouched)(input_ids=whole[None], use_cache=False).logits[
            0, PROMPT - 1 : -1
        ]
    lead = logits.max(-1).values - logits.gather(1, greedy.tokens[:, None])[:, 0]
    assert float(lead.max()) < NEAR, "greedy takes the likeliest token"


def test_rows_that_begin_within_the_short_frequencies_end_there():
    with pytest.warns(UserWarning, match="what begins within 32 tokens is sampled up to there"):
        policy = CausalLM(architecture("Phi3 longrope"), tiny_tokenizer())
    untouched, (text,) = architecture("Phi3 longrope"), rows(60)
    asked = [Request(text[:n].tolist()) for n in (10, 31, 32, 50)]
    policy.model.get_output_embeddings().weight.data[
        2
    ] = untouched.get_output_embeddings().weight.data[2] = 0.0
    found = Engine(policy, slots=4).generate(
        asked, Sampling(max_tokens=40), torch.Generator().manual_seed(0)
    )
    length = [len(r.prompt) + len(c.tokens) for r, (c,) in zip(asked, found, strict=True)]
    assert length[0] <= 32 and length[1] == 32, "cut off where other frequencies begin"
    assert length[2] > 60 and length[3] > 60, "these begin beyond"
    for request, (completion,) in zip(asked, found, strict=True):
        row = torch.cat([torch.tensor(request.prompt), completion.tokens])
        wanted = alone(untouched, row)[len(request.prompt) - PROMPT :]
        torch.testing.assert_close(completion.logp, wanted, atol=NEAR, rtol=0)


def test_a_copy_of_a_model_with_such_frequencies_is_as_good():
    policy, tokens = policy_of("Llama dynamic"), rows(20, 60)
    other = copy.deepcopy(policy)
    with torch.no_grad():
        torch.testing.assert_close(
            other.evaluate(batch(tokens)).logp, policy.evaluate(batch(tokens)).logp
        )


def test_learned_positions_end():
    policy = policy_of("GPT2")
    assert policy.fitting(100) == 100
    with pytest.warns(UserWarning, match="cut after 256 tokens, not 1024"):
        assert policy.fitting(1024) == 256
    with pytest.raises(
        ValueError, match="a row of 299 tokens: the model has no more than 256 positions"
    ):
        policy.evaluate(batch(rows(300)))


@pytest.mark.parametrize("name", ["Bert", "Roberta", "XLNet", "Electra"])
def test_what_sees_what_follows_is_refused(name):
    import transformers as hf

    settings = getattr(hf, f"{name}Config")
    config = settings(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        d_model=32,
        n_layer=2,
        n_head=2,
        d_inner=32,
    )
    torch.manual_seed(0)
    model = hf.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    with pytest.raises(ValueError, match="not a causal language model: it looks at what follows"):
        CausalLM(model, tiny_tokenizer())
