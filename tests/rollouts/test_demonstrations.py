"""What is learned of a conversation, under templates that mark their turns, that do not, and that
rewrite history; and that examples in one forward do not see each other."""

from __future__ import annotations

import json

import pytest
import torch

from logpi.algorithms import algorithm
from logpi.envs.data import RowsTask
from logpi.errors import UserError
from logpi.learner import Learner
from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.chat import Chat
from logpi.rollouts.chat_rows import token_rows
from logpi.rollouts.demonstrations import Demonstrations
from logpi.updates.adamw import AdamW
from tests.tiny import TEMPLATE, tiny_model, tiny_tokenizer

ASK = "{% if add_generation_prompt %}assistant:{% endif %}"
ENDED = "{% for m in messages %}{{ m.role }}:{{ m.content }}<eos>\n{% endfor %}" + ASK
MARKED = (
    "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' %}{% generation %}{{ m.content"
    " }}<eos>{% endgeneration %}{% else %}{{ m.content }}<eos>{% endif %}\n{% endfor %}" + ASK
)
# what was thought is forgotten as soon as a further question is asked
FORGETS = (
    "{% for m in messages %}{{ m.role }}:{% if m.role == 'assistant' and not loop.last %}"
    "{{ m.content.split('/')[-1] }}{% else %}{{ m.content }}{% endif %}<eos>\n{% endfor %}" + ASK
)
OTHERWISE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>{% endfor %}" + ASK
TALK = [
    {"role": "user", "content": "1+1"},
    {"role": "assistant", "content": "hm/2"},
    {"role": "user", "content": "and 1"},
    {"role": "assistant", "content": "so/3"},
]


def policy(template: str | None = ENDED) -> CausalLM:
    return CausalLM(tiny_model("llama"), tiny_tokenizer(template))


def learned(policy, found) -> list[str]:
    """The stretches that are an answer's, as text."""
    out, open_ = [], False
    for token, own in zip(found.ids, found.own, strict=True):
        if own and not open_:
            out.append([])
        if own:
            out[-1].append(token)
        open_ = own
    return [policy.tokenizer.decode(x) for x in out]


@pytest.mark.parametrize("template", [ENDED, MARKED])
def test_every_answer_is_learned_and_nothing_else(template):
    p = policy(template)
    (found,) = token_rows(p, TALK)
    assert learned(p, found) == ["hm/2<eos>", "so/3<eos>"]
    whole = p.tokenizer.apply_chat_template(TALK, return_dict=False)
    assert found.ids == list(whole)
    (final,) = token_rows(p, TALK, last=True)
    assert learned(p, final) == ["so/3<eos>"] and final.ids == found.ids


def test_a_template_that_rewrites_history_gives_a_row_for_each_answer():
    """Each row is what a sampler would read and write."""
    p = policy(FORGETS)
    with pytest.warns(UserWarning, match="rewrites earlier turns"):
        first, second = token_rows(p, TALK)
    assert (learned(p, first), learned(p, second)) == (["hm/2<eos>"], ["so/3<eos>"])
    for found, asked in ((first, TALK[:1]), (second, TALK[:3])):
        prompt = p.render(asked)
        assert (
            found.ids[: len(prompt)] == prompt
            and not any(found.own[: len(prompt)])
            and found.own[len(prompt)]
        )
    assert "hm/" not in p.tokenizer.decode(second.ids)
    assert len(token_rows(p, TALK, last=True)) == 1


def test_an_answer_that_the_template_writes_otherwise_is_learned_as_it_stands():
    p = policy(OTHERWISE)
    with pytest.warns(UserWarning, match="learned as they stand"):
        first, second = token_rows(p, TALK)
    assert (learned(p, first), learned(p, second)) == (["hm/2<eos>"], ["so/3<eos>"])
    for found, asked in ((first, TALK[:1]), (second, TALK[:3])):
        prompt = p.render(asked)
        assert found.ids[: len(prompt)] == prompt and found.own[len(prompt)]


def test_what_is_refused():
    with pytest.raises(ValueError, match="no chat template"):
        token_rows(policy(None), TALK)
    with pytest.raises(ValueError, match="no answer"):
        token_rows(policy(), TALK[:1])
    strict = "{% if messages|length > 2 %}{{ raise_exception('too long') }}{% endif %}" + ENDED
    with pytest.raises(ValueError, match="refuses these messages: too long"):
        token_rows(policy(strict), TALK)


def test_a_template_without_end_tokens_gets_one_at_the_end():
    p = policy(TEMPLATE)
    (found,) = token_rows(p, TALK)
    assert learned(p, found) == ["hm/2\n", "so/3\n<eos>"]


def test_tokens_never_straddle_an_answers_beginning():
    """A merge across the border would teach tokens that no sampler could draw."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = ["<eos>", ":", "a", ":a", "b", "r", "s", "u", "\n"]
    core = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [(":", "a")]))
    core.decoder = decoders.Fuse()
    joined = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")
    p = CausalLM(tiny_model("llama"), joined)
    talk = [{"role": "user", "content": "r"}, {"role": "assistant", "content": "a"}]
    joined.chat_template = (
        "{% for m in messages %}{{ 'b' if m.role == 'assistant' else 'u' }}:{{ m.content }}<eos>"
        "{% endfor %}{% if add_generation_prompt %}b:{% endif %}"
    )
    (found,) = token_rows(p, talk)
    assert 3 in joined(":a")["input_ids"] and 3 not in found.ids
    assert learned(p, found) == ["a<eos>"]
    prompt = p.render(talk[:1])
    assert found.ids[: len(prompt)] == prompt


def rollout(p, tmp_path, rows, **options) -> Demonstrations:
    (tmp_path / "d").mkdir(exist_ok=True)
    for split in ("train", "test"):
        (tmp_path / "d" / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return Demonstrations(p, RowsTask(str(tmp_path / "d")), rows=len(rows), **options)


@pytest.mark.parametrize(
    ("learn", "expected"),
    [
        ("assistant", "hm/2<eos>so/3<eos>"),
        ("last", "so/3<eos>"),
        ("all", "ser:1+1<eos>\nassistant:hm/2<eos>\nuser:and 1<eos>\nassistant:so/3<eos>\n"),
    ],
)
def test_messages_from_a_file(tmp_path, learn, expected):
    p = policy()
    batch = rollout(p, tmp_path, [{"messages": TALK}], learn=learn)().batch
    assert p.tokenizer.decode(batch.action[batch.mask]) == expected
    assert bool(batch.terminated.all())


def test_text_is_no_question_even_to_a_model_with_a_template(tmp_path):
    p = policy()
    batch = rollout(p, tmp_path, [{"text": "once"}], chat=Chat(wrap=True, system="be kind"))().batch
    assert p.tokenizer.decode(batch.action[batch.mask]) == "once<eos>"
    assert "user" not in p.tokenizer.decode(batch.obs[0])


def test_of_a_completion_of_messages_only_the_assistants_are_learned(tmp_path):
    """Queries and answer are, what a tool said is not; tokens as in a rollout: nothing stands
    between the messages."""
    p = policy(None)
    told = [
        ("assistant", "<s>K</s>"),
        ("tool", "<i>K is L</i>"),
        ("assistant", "<s>L</s>"),
        ("tool", ""),
        ("assistant", "M"),
    ]
    completion = [{"role": role, "content": content} for role, content in told]
    batch = rollout(p, tmp_path, [{"prompt": "K?", "completion": completion}])().batch
    assert p.tokenizer.decode(batch.action[batch.mask]) == "<s>K</s><s>L</s>M<eos>"
    assert p.tokenizer.decode(batch.obs[0]).endswith("K?<s>K</s><i>K is L</i><s>L</s>M<eos>")
    last = rollout(
        p, tmp_path, [{"prompt": "K?", "completion": completion[:2]}]
    )().batch  # stopped while a tool spoke: no end
    assert (
        p.tokenizer.decode(last.action[last.mask]) == "<s>K</s>"
        and p.eos_ids[-1] not in last.obs[0].tolist()
    )


def test_rows_too_long_are_counted_and_bad_rows_refused_before_the_start(tmp_path):
    p = policy()
    long = {"prompt": "x" * 40, "completion": "y"}
    found = rollout(p, tmp_path, [{"prompt": "a", "completion": "b"}, long], max_length=20)()
    assert len(found.batch) == 1 and found.metrics["rows/too_long"] == 1
    with pytest.raises(UserError, match="none of 1 rows"):
        rollout(p, tmp_path, [long], max_length=20)()
    with pytest.raises(UserError, match=r"train.jsonl, line \d+: no completion to learn from"):
        rollout(p, tmp_path, [{"prompt": "a", "completion": "b"}, {"prompt": "a", "answer": "b"}])


def gradient(policy, batch, weight) -> list[torch.Tensor]:
    """Of the loss −Σ weight · log π."""
    policy.zero_grad()
    loss = -(weight * policy.evaluate(batch).logp)[batch.mask].sum()
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in policy.parameters() if p.grad is not None)]


@pytest.mark.parametrize("kind", ["llama", "gemma2"])  # gemma2: windows, capped scores
def test_examples_do_not_leak_into_each_other(tmp_path, kind, double):
    """Loss and gradient of a batch in one packed forward are the sums of those of its examples
    alone, to the float32 in which transformers computes norms; two of them open alike, and share
    that computation."""
    p = CausalLM(tiny_model(kind).double(), tiny_tokenizer(ENDED))
    rows = [
        {"messages": TALK},
        {"messages": TALK[:2]},
        {"prompt": "1+1", "completion": "two, or so"},
        {"text": "x" * 30},
    ]
    batch = rollout(p, tmp_path, rows)().batch
    weight = torch.rand(batch.mask.shape)
    together = gradient(p, batch, weight)
    alone = [
        gradient(p, part := batch.rows(torch.tensor([i])), weight[i : i + 1, : part.mask.shape[1]])
        for i in range(4)
    ]
    for whole, *parts in zip(together, *alone, strict=True):
        torch.testing.assert_close(whole, sum(parts), rtol=1e-5, atol=1e-6)


def test_no_token_of_a_neighbour_moves_an_example(tmp_path):
    """The derivative of one example's loss by what the other examples' tokens are is 0, exactly."""
    p, seen = policy(), []
    batch = rollout(p, tmp_path, [{"prompt": c * 4, "completion": c * 6} for c in "abc"])().batch

    def keep(module, given, embedded):
        embedded.retain_grad()
        seen.append((given[0] if given else None, embedded))

    p.evaluate(batch)  # a first evaluation also looks how the model is best run
    hook = p.model.get_input_embeddings().register_forward_hook(keep)
    p.evaluate(batch).logp[1][batch.mask[1]].sum().backward()
    hook.remove()
    ((ids, embedded),) = seen
    moved = embedded.grad.flatten(0, -2).abs().sum(-1) > 0
    assert ids.flatten()[moved].tolist() == batch.obs[1, :10].tolist() and len(moved) == 30


def test_micro_batches_change_memory_and_nothing_else(tmp_path):
    reports = []
    for tokens in (16_384, 30):
        p = CausalLM(tiny_model("llama"), tiny_tokenizer(ENDED))
        source = rollout(p, tmp_path, [{"messages": TALK}, {"messages": TALK[:2]}, {"text": "abc"}])
        learner = Learner(p, algorithm("sft", micro_tokens=tokens), AdamW(1e-3))
        reports.append([learner.update(source().batch) for _ in range(3)])
    for a, b in zip(*reports, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5) and a["grad_norm"] == pytest.approx(
            b["grad_norm"], rel=1e-4
        )
