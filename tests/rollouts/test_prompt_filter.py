"""Which prompts a policy can read: what the template refuses is named, what is too long is dropped,
cut or refused, and counted."""

from __future__ import annotations

import json

import pytest

import logpi
from logpi.engine.engine import Engine
from logpi.engine.sampling import Sampling
from logpi.envs.data import load_rows
from logpi.errors import UserError
from logpi.policies.causal_lm import CausalLM
from logpi.rewards import Rewards, Weighted
from logpi.rollouts.chat import Chat
from logpi.rollouts.prompt_filter import PromptFilter
from logpi.rollouts.text_rollout import TextRollout
from tests.tiny import tiny_model, tiny_tokenizer

STRICT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{% for"
    " m in messages %}{{ m.role }}:{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt"
    " %}assistant:{% endif %}"
)


def policy(template=STRICT, context=64) -> CausalLM:
    return CausalLM(tiny_model("llama", max_position_embeddings=context), tiny_tokenizer(template))


def written(tmp_path, rows):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return load_rows(str(tmp_path / "rows.jsonl"))


ROWS = [{"prompt": "1+1"}, {"prompt": "why " * 30}, {"prompt": "2+2"}]


def test_overlong_prompts_are_dropped_and_the_first_is_named(tmp_path, capsys):
    rows = written(tmp_path, ROWS)
    kept = PromptFilter(policy(), Chat(wrap=True)).check(rows, "prompts")
    assert [r["prompt"] for r in kept] == ["1+1", "2+2"]
    said = capsys.readouterr().err
    assert (
        "1 of 3 prompts dropped" in said
        and "rows.jsonl, line 2: its prompt is longer than the model's context of 64" in said
    )


def test_they_are_refused_or_cut_when_asked(tmp_path):
    rows, p = written(tmp_path, ROWS), policy()
    with pytest.raises(UserError, match="line 2: its prompt is longer"):
        PromptFilter(p, Chat(wrap=True), overlong="refuse").check(rows, "prompts")
    cut = PromptFilter(p, Chat(), overlong="cut")
    assert len(cut.check(rows, "prompts")) == 3
    whole, ids = Chat()(p, rows[1]["prompt"]), cut.ids(rows[1])
    assert len(ids) == 63 and ids == whole[-63:] and cut.fits(ids)
    with pytest.raises(UserError, match="and so are all 1 prompts"):
        PromptFilter(p, Chat()).check(rows[1:2], "prompts")


def test_what_stands_around_a_row_is_named_where_the_row_would_fit(tmp_path):
    """The row has 3 tokens and the template "Q: " + 70 x, one token a character."""
    rows, p = written(tmp_path, ROWS[:1]), policy(None)
    around = Chat(around="Q: {prompt}" + "x" * 70)
    told = (
        r"line 1: its prompt is longer than the model's context of 64 tokens: 3 of its 76 are the"
        r" row's own, the others the prompt template \(--prompt-template\)"
    )
    with pytest.raises(UserError, match=told + ", and so are all 1 prompts: shorten that, or"):
        PromptFilter(p, around).check(rows, "prompts")
    with pytest.raises(
        UserError, match=told + r" \(--overlong-prompts drop leaves such rows out\)"
    ):
        PromptFilter(p, around, overlong="refuse").check(rows, "prompts")
    with pytest.raises(
        UserError, match=told + ", and --overlong-prompts cut would cut what stands"
    ):
        PromptFilter(p, around, overlong="cut").check(rows, "prompts")
    with pytest.raises(UserError, match=r"3 of its 73 .* the system message \(--system\)"):
        PromptFilter(p, Chat(system="y" * 70)).check(rows, "prompts")


def test_the_announcement_of_tools_is_never_cut(tmp_path):
    """A row of 40 tokens, which would fit without its tools."""
    p = policy("{{ tools | tojson if tools else '' }}{{ messages[0].content }}")
    rows = [
        {
            "prompt": [{"role": "user", "content": "z" * 40}],
            "template_tools": [{"name": "b", "parameters": {}}],
        }
    ]
    cut = PromptFilter(p, Chat(), overlong="cut")
    with pytest.raises(
        UserError, match="40 of its 1[0-9][0-9] .*the announcement of the tools, and --o"
    ):
        cut.check(rows, "prompts")
    assert cut.check([{"prompt": rows[0]["prompt"]}], "prompts")


def test_a_prompt_exactly_as_long_as_the_context_leaves_no_room():
    p = policy(None)
    # One token a character.
    row = lambda n: {"prompt": "x" * n}  # noqa: E731
    fits = PromptFilter(p, Chat())
    assert fits.fits(fits.ids(row(63))) and not fits.fits(fits.ids(row(64)))
    assert len(fits.check([row(63), row(64)], "prompts")) == 1


def test_a_row_that_the_template_refuses_is_named_with_its_line(tmp_path):
    system = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "1+1"}]
    rows = written(tmp_path, [*ROWS[:1], {"prompt": system}])
    with pytest.raises(
        UserError,
        match=r"rows.jsonl, line 2: the chat template refuses these messages: no system role",
    ):
        PromptFilter(policy(), Chat(wrap=True)).check(rows, "prompts")
    with pytest.raises(UserError, match="line 2: the prompt has a system message of its own"):
        PromptFilter(policy(STRICT.partition("endif %}")[2]), Chat(wrap=True, system="you")).check(
            rows, "prompts"
        )


def test_a_rollout_passes_over_what_does_not_fit(tmp_path):
    class Task:
        name = "t"
        reward = Rewards((Weighted(lambda completions, **_: [float(len(c)) for c in completions]),))

        def rows(self, split="train", seed=0):
            return ROWS

    p = policy()
    rollout = TextRollout(
        p,
        Engine(p, slots=4),
        Task(),
        Task.reward,
        algorithm=logpi.algorithm("reinforce"),
        prompts=4,
        num_generations=1,
        sampling=Sampling(max_tokens=3),
        chat=Chat(wrap=True),
    )
    assert {s["prompt"] for s in rollout().samples} == {"1+1", "2+2"}
    Task.rows = lambda *_, **__: ROWS[1:2]
    with pytest.raises(UserError, match="cannot be found"):
        rollout()
