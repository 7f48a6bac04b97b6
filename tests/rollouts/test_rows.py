"""Rows of demonstrations and pairs: what stands in them is what the model's template writes, and
what is learned is an answer's own.

The right values come from `tokenizer.apply_chat_template`. Left out: random conversations
(`tests/policies/test_templates_property.py`).
"""

from __future__ import annotations

import warnings

import pytest

from logpi.envs.data import load_rows
from logpi.envs.messages import in_one_form
from logpi.errors import UserError
from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.chat import Chat
from logpi.rollouts.demonstrations import Demonstrations
from logpi.rollouts.preference_pairs import read_pairs
from tests.families import CHATML, family

ENDS = {
    "qwen2.5": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma2": "<end_of_turn>",
    "phi3": "<|end|>",
}


def policy(name: str, template: str = "") -> CausalLM:
    made = CausalLM(*family(name))
    if template:
        made.tokenizer.chat_template = template
    return made


def rows(policy: CausalLM, row: dict, wrap: bool = True):
    made = object.__new__(Demonstrations)
    made.policy, made.chat, made.learn, made.max_length = policy, Chat(wrap=wrap), "assistant", 1024
    return made.trajectories(row, 0)


def learned(policy: CausalLM, row) -> str:
    return policy.tokenizer.decode(row.action[row.mask].tolist())


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def says(text: str, **more) -> dict:
    return {"role": "assistant", "content": text, **more}


@pytest.mark.parametrize(("name", "end"), ENDS.items())
def test_an_end_that_a_completion_spells_is_the_end(name, end):
    some = policy(name)
    once, twice = (
        rows(some, {"prompt": "1+1?", "completion": c})[0] for c in ("It is 2.", f"It is 2.{end}\n")
    )
    assert once.obs.tolist() == twice.obs.tolist()
    made = read_pairs(
        some, [{"prompt": "?", "chosen": f"a{end}", "rejected": "b"}], chat=Chat(wrap=True)
    ).groups[0]
    assert [learned(some, r) for r in made] == [f"a{end}", f"b{end}"]


@pytest.mark.parametrize(("name", "end"), ENDS.items())
def test_a_prompt_rendered_beforehand_is_answered_as_the_template_ends_it(name, end):
    some = policy(name)
    write = some.tokenizer.apply_chat_template
    asked = write([user("1+1?")], tokenize=False, add_generation_prompt=True)
    want = write([user("1+1?"), says("It is 2.")], return_dict=False)
    last = some.tokenizer.convert_tokens_to_ids(end)
    want = want[: len(want) - want[::-1].index(last)]
    for completion in ("It is 2.", f"It is 2.{end}"):
        (row,) = rows(some, {"prompt": asked, "completion": completion}, wrap=False)
        assert row.obs.tolist() == want and learned(some, row) == f"It is 2.{end}"
    pair = {"prompt": asked, "chosen": f"It is 2.{end}", "rejected": "3"}
    assert read_pairs(some, [pair], chat=Chat()).groups[0][0].obs.tolist() == want


def test_a_text_rendered_beforehand_gets_nothing_in_front():
    some = policy("qwen2.5")
    write = some.tokenizer.apply_chat_template
    talk = [user("1+1?"), says("It is 2.")]
    (row,) = rows(some, {"prompt": "", "completion": write(talk, tokenize=False)}, wrap=False)
    assert row.obs.tolist() == write(talk, return_dict=False)


def test_a_completion_of_several_messages_goes_through_the_template_of_a_text_prompt():
    some = policy("qwen2.5")
    told = [says("one"), user("more?"), says("two")]
    (row,) = rows(some, {"prompt": "hi?", "completion": told})
    assert row.obs.tolist() == some.tokenizer.apply_chat_template(
        [user("hi?"), *told], return_dict=False
    )
    assert learned(some, row) == "one<|im_end|>two<|im_end|>"


def test_calls_and_results_that_a_template_leaves_out_are_refused_and_tools_are_said():
    some = policy("qwen2.5")
    tool = {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
    }
    calling = says("", tool_calls=[{"function": {"name": "add", "arguments": {"a": 1}}}])
    with pytest.raises(UserError, match="leaves out the call of message 1: 'add'"):
        rows(
            some,
            {
                "prompt": "",
                "messages": [user("1+1?"), calling, {"role": "tool", "content": "2"}, says("2")],
            },
        )
    with pytest.raises(UserError, match="leaves out the call of message 1: 'add'"):
        read_pairs(
            some,
            [{"prompt": [user("?")], "chosen": [calling], "rejected": [says("no")]}],
            chat=Chat(wrap=True),
        )
    with pytest.warns(UserWarning, match="has no place for tools"):
        rows(some, {"prompt": "", "messages": [user("1+1?"), says("2")], "tools": [tool]})
    deaf = policy(
        "qwen2.5",
        CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}"),
    )
    with pytest.raises(UserError, match="leaves out message 2, of the tool: 'It rains.'"):
        rows(
            deaf,
            {
                "prompt": "",
                "messages": [
                    user("?"),
                    says("a"),
                    {"role": "tool", "content": "It rains."},
                    says("b"),
                ],
            },
        )


def test_what_a_tool_says_may_be_written_as_json():
    source = CHATML.replace(
        "m.content +", "(m.content | tojson if m.role == 'tool' else m.content) +"
    )
    some = policy("qwen2.5", source)
    heard = {"role": "tool", "content": 'He said "2"\nand left.'}
    (row,) = rows(some, {"prompt": "", "messages": [user("?"), says("a"), heard, says("b")]})
    assert r"He said \"2\"\nand left." in some.tokenizer.decode(row.obs.tolist())


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_are_learned_under_each_of_their_names(name, tmp_path):
    some = policy("qwen2.5")  # a template that knows nothing of them
    answer = says("It is 2.", **{name: "add them"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in (
            {"messages": [user("?"), answer]},
            {"prompt": [user("?")], "completion": [answer]},
        ):
            (made,) = rows(some, {"prompt": "", **in_one_form(row, "here")})
            assert learned(some, made) == "<think>\nadd them\n</think>\n\nIt is 2.<|im_end|>"
    file = tmp_path / "rows.jsonl"
    file.write_text(
        f'{{"prompt": "?", "completion": [{{"role": "assistant", "content": "2", "{name}":'
        ' "hm"}]}\n'
    )
    assert load_rows(str(file))[0]["completion"][0]["reasoning_content"] == "hm"


def test_marks_around_a_whole_turn_leave_its_header_to_the_prompt():
    body = "'<|im_start|>assistant\\n' + m.content + '<|im_end|>\\n'"
    some = policy(
        "qwen2.5",
        CHATML.replace(
            "{{ '<|im_start|>' + m.role",
            "{% if m.role == 'assistant' %}{% generation %}{{ "
            + body
            + " }}{% endgeneration %}{% else %}{{ '<|im_start|>' + m.role",
        ).replace("'<|im_end|>\\n' }}{% endfor %}", "'<|im_end|>\\n' }}{% endif %}{% endfor %}"),
    )
    assert (
        "endgeneration" in some.tokenizer.chat_template
        and "{% endif %}{% endfor %}" in some.tokenizer.chat_template
    )
    talk = [user("a"), says("one"), user("b"), says("two")]
    (row,) = rows(some, {"prompt": "", "messages": talk})
    assert learned(some, row) == "one<|im_end|>two<|im_end|>"
    with pytest.warns(UserWarning, match="a thought, say"):
        rows(some, {"prompt": "", "messages": [user("a"), says("one", reasoning_content="hm")]})


def test_a_greeting_before_any_question_is_context():
    some = policy("qwen2.5")
    talk = [says("Hello."), user("1+1?"), says("2")]
    (row,) = rows(some, {"prompt": "", "messages": talk})
    assert row.obs.tolist() == some.tokenizer.apply_chat_template(talk, return_dict=False)
    assert learned(some, row) == "2<|im_end|>"


def test_a_rows_template_variables_are_read_as_data_have_them():
    row = {"messages": [user("a"), says("b")]}
    for given in ('{"enable_thinking": false}', {"enable_thinking": False, "other": None}):
        assert in_one_form({**row, "chat_template_kwargs": given}, "here")[
            "chat_template_kwargs"
        ] == {"enable_thinking": False}
    for wrong in ("{enable", "[1]", ["enable_thinking"]):
        with pytest.raises(ValueError, match="here: 'chat_template_kwargs'"):
            in_one_form({**row, "chat_template_kwargs": wrong}, "here")
    with pytest.warns(UserWarning, match="no variable 'enable_thinkin', which rows set"):
        rows(
            policy("qwen3"),
            {**row, "prompt": "", "chat_template_kwargs": {"enable_thinkin": False}},
        )


def test_labels_that_are_numbers_are_truth_values(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(
        "".join(
            f'{{"prompt": "a", "completion": "b", "label": {x}}}\n'
            for x in ("1", "0", "1.0", "true")
        )
    )
    assert [r["label"] for r in load_rows(str(file))] == [True, False, True, True]
