"""Texts in, texts out: the same tokens as the engine's and as `transformers`' own `generate`."""

from __future__ import annotations

import copy

import pytest
import torch

from logpi.engine.engine import Engine
from logpi.engine.language_model import LanguageModel
from logpi.engine.sampling import Request, Sampling
from logpi.policies.causal_lm import CausalLM
from tests.tiny import KINDS, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel(tiny_model(), tiny_tokenizer())


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_text_is_transformers(kind):
    model = LanguageModel(tiny_model(kind), tiny_tokenizer())
    ids = torch.tensor([model.render("ab12")])
    wanted = tiny_model(kind).generate(ids, max_new_tokens=9, do_sample=False)[0, ids.shape[1] :]
    (text,) = model.generate("ab12", max_tokens=9, greedy=True)
    assert text == model.template.decode(wanted)


def test_shapes_and_seeds(model):
    one = model.generate(["ab", "cd"], max_tokens=5, seed=3)
    assert len(one) == 2 and all(isinstance(t, str) for t in one)
    many = model.generate(["ab", "cd"], max_tokens=5, n=3, seed=3)
    assert [len(texts) for texts in many] == [3, 3]
    assert many == model.generate(["ab", "cd"], max_tokens=5, n=3, seed=3, slots=1)
    requests = [Request(model.render(p), n=3) for p in ("ab", "cd")]
    rows = Engine(model).generate(
        requests, Sampling(max_tokens=5), torch.Generator().manual_seed(3)
    )
    assert many == [[model.template.decode(c.tokens) for c in row] for row in rows]


def test_an_answer_ends_before_a_stop_text(model):
    (whole,) = model.generate("ab", max_tokens=12, greedy=True)
    stop = whole[3:5]
    (cut,) = model.generate("ab", max_tokens=12, greedy=True, stop=stop)
    assert cut == whole[: whole.index(stop)]


def test_messages_and_chat(model):
    turns = [{"role": "user", "content": "hi"}]
    text = model.template.text([{"role": "system", "content": "be brief"}, *turns])
    wanted = model.generate(text, max_tokens=8, greedy=True)
    assert wanted == [model.chat("hi", system="be brief", max_tokens=8, greedy=True)]
    (answer,) = model.generate(turns, max_tokens=8, greedy=True)
    assert answer == model.chat(turns, max_tokens=8, greedy=True)
    assert [answer, answer] == model.generate([turns, turns], max_tokens=8, greedy=True)


def test_without_a_chat_template_chat_says_so():
    model = LanguageModel(tiny_model(), tiny_tokenizer(chat_template=None))
    with pytest.raises(ValueError, match="no chat template"):
        model.chat("hi")


def test_it_loads_learns_and_copies_as_a_policy(tmp_path, model):
    model.save(tmp_path)
    again = LanguageModel.load(tmp_path)
    assert type(again) is LanguageModel and isinstance(copy.deepcopy(again), CausalLM)
    assert again.generate("ab", greedy=True, max_tokens=5) == model.generate(
        "ab", greedy=True, max_tokens=5
    )
