"""What the environment says through chat templates that behave like the published ones
(tests/data/templates).

The law: prompt, turns and observations, each as the policy saw it, put together are what the
template itself makes of the whole conversation; and a template that would break the law is refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken

from logpi.engine.sampling import Request
from logpi.engine.turns import TurnEnd
from logpi.envs.tasks import task
from logpi.envs.tools import ToolEnvironment, tool
from logpi.errors import UserError
from logpi.policies.causal_lm import CausalLM
from logpi.policies.chat_template import ChatTemplate
from logpi.rollouts.chat import Chat
from logpi.rollouts.observations import CALL, Observations
from logpi.rollouts.prompt_filter import PromptFilter
from logpi.rollouts.tool_conversations import ToolConversations
from logpi.rollouts.turns import TurnLimits
from tests.tiny import tiny_model, tiny_tokenizer

TEMPLATES = Path(__file__).parent.parent / "data" / "templates"
HEADERS = (
    "<|im_start|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)
ENDS = {"ipython": "<|eot_id|>", "results": "<eos>"}
ASKED = {"role": "user", "content": "2+3?"}


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


TOOLS = [tool(add).schema]
HERMES = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>'
PYTHON = '{"name": "add", "parameters": {"a": 2, "b": 3}}'
MADE = {
    "id": CALL["id"],
    "type": "function",
    "function": {"name": "add", "arguments": {"a": 2, "b": 3}},
}
MISTRAL = f'[TOOL_CALLS] [{{"name": "add", "arguments": {{"a": 2, "b": 3}}, "id": "{CALL["id"]}"}}]'
SAID = {  # what a policy writes, and the message that the template would write so
    "hermes": (HERMES, {"content": HERMES}),
    "thinking": (f"<think>\nlook it up\n</think>\n\n{HERMES}", None),
    "ipython": (PYTHON, {"content": "", "tool_calls": [MADE]}),
    "results": (MISTRAL, {"content": "", "tool_calls": [MADE]}),
}


def tokenizer(name: str):
    made = tiny_tokenizer((TEMPLATES / f"{name}.jinja").read_text())
    end = ENDS.get(name, "<|im_end|>")
    made.add_tokens([AddedToken(x, special=True) for x in (*HEADERS, "<|im_end|>", "<|eot_id|>")])
    made.eos_token = end
    return made


def written(made, messages, ask=True) -> str:
    return made.apply_chat_template(
        messages, tools=TOOLS, tokenize=False, add_generation_prompt=ask
    )


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("closed", [True, False])
def test_turns_and_observations_are_what_the_template_makes_of_the_whole(name, closed):
    made = tokenizer(name)
    observe, end = (
        Observations(ChatTemplate(made), TOOLS),
        made.convert_tokens_to_ids(made.eos_token),
    )
    said, message = SAID[name]
    answered = {"role": "assistant", **(message or {"content": said})}
    text, messages = written(made, [ASKED]), [ASKED]
    for told in ("5", 'say "6"'):
        result = {"role": "tool", "content": told, "tool_call_id": CALL["id"]}
        text += (
            said
            + (made.eos_token if closed else "")
            + observe([result], end if closed else None).text
        )
        messages += [answered, result]
    assert text == written(made, messages)


@pytest.mark.parametrize("name", ["hermes", "thinking"])
def test_results_of_one_turn_share_a_users_turn(name):
    observe = Observations(ChatTemplate(tokenizer(name)), TOOLS)
    several = observe([{"role": "tool", "content": c} for c in "57"], None).text
    assert several.count("<|im_start|>user") == 1 and several.count("<tool_response>") == 2


def test_thoughts_that_a_further_question_would_drop_are_refused_and_those_that_stay_are_not():
    observe = Observations(ChatTemplate(tokenizer("thinking")), TOOLS)
    observe.check("tool")
    with pytest.raises(
        UserError,
        match=(
            r"after a 'user' message, it rewrites earlier turns \('<think>.*What the policy sees"
            r" later"
        ),
    ):
        observe.check("user")
    Observations(ChatTemplate(tokenizer("hermes")), TOOLS).check("user")


def test_tools_that_move_to_the_last_question_are_refused_with_it():
    observe = Observations(ChatTemplate(tokenizer("results")), TOOLS)
    observe.check(
        "tool"
    )  # by a call's structure: a result after plain words would break the template's alternation
    with pytest.raises(UserError, match=r"rewrites earlier turns \('AVAILABLE_TOOLS\]"):
        observe.check("user")


@pytest.mark.parametrize("name", [*SAID, "chatml"])
def test_no_template_lets_a_tool_write_control_tokens(name):
    made = tokenizer(name)
    observe = Observations(ChatTemplate(made), TOOLS, limit=300)
    told = [
        {
            "role": "tool",
            "content": "".join((*HEADERS, "<|im_end|>", "<|eot_id|>", "<eos>")) + "x" * 2_000,
        }
    ]
    clean = observe([{"role": "tool", "content": ""}], None)
    evil = observe(told, None)
    control = {
        made.convert_tokens_to_ids(t) for t in (*HEADERS, "<|im_end|>", "<|eot_id|>", "<eos>")
    }
    assert [i for i in evil.ids if i in control] == [i for i in clean.ids if i in control]
    assert evil.cut and len(evil.ids) <= 300


# --- a model whose template knows no tools ---


@pytest.mark.parametrize(
    ("style", "wrong", "call"),
    [
        ("hermes", '"two"', HERMES),
        (
            "xml",
            "two",
            "<tool_call>\n<function=add>\n<parameter=a>\n2\n</parameter>\n<parameter=b>\n3\n</parameter>\n</function>\n</tool_call>",
        ),
    ],
)
def test_a_model_without_a_place_for_tools_reads_of_them_in_the_system_message(style, wrong, call):
    made = tokenizer("chatml")
    network = tiny_model("llama")
    network.resize_token_embeddings(len(made))
    policy, row = CausalLM(network, made), {"prompt": "2+3?"}
    with pytest.raises(UserError, match="no place for tools"):
        ToolConversations(
            policy, ToolEnvironment((add,), style), TurnLimits(), Chat(wrap=True)
        ).prompt(row)
    conversations = ToolConversations(
        policy,
        ToolEnvironment((add,), style, native=False),
        TurnLimits(patience=1.0),
        Chat(wrap=True),
    )
    prompt = conversations.prompt(row)
    shown = made.decode(prompt)
    assert shown.startswith("<|im_start|>system\n# Tools") and '"name": "add"' in shown
    assert shown.endswith("<|im_start|>user\n2+3?<|im_end|>\n<|im_start|>assistant\n")
    end = made.convert_tokens_to_ids("<|im_end|>")
    opened = conversations.begin([row], [Request(prompt, 1)])
    heard = []
    for said in (call, call.replace("2", wrong), "It is 5."):
        tokens = [*made(said, add_special_tokens=False)["input_ids"], end]
        heard += opened.on_turn_end([TurnEnd(0, tokens, "eos", 1_000, 1_000)], True)
    told = [made.decode(list(h.observation)) for h in heard[:2]]
    assert (
        told[0] == "\n<|im_start|>user\n<tool_response>\n5\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert "Error: add: 'a' must be of type integer" in told[1]
    assert heard[2].observation is None and heard[2].stop == ""
    assert opened.transcripts([[]])[0].metrics["tool_errors/arguments"] == 1.0


def test_tools_of_a_row_go_to_the_template_when_the_task_says_so(tmp_path):
    talk = {
        "messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [MADE]}],
        "tools": TOOLS,
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(talk))
    told, left = (
        task(f"openai(test_share=0, announce={a}):{tmp_path / 'a.jsonl'}").rows()[0]
        for a in (True, False)
    )
    assert (
        "template_tools" not in told and left["prompt"] == [ASKED] and left["completion"] == HERMES
    )
    made = tokenizer("hermes")
    policy = CausalLM(tiny_model("llama"), made)
    assert made.decode(PromptFilter(policy, Chat()).ids(left)) == written(made, [ASKED])
    policy.tokenizer.chat_template = tokenizer("chatml").chat_template
    with pytest.raises(UserError, match="no place for tools"):
        PromptFilter(policy, Chat()).ids(left)
    assert '"name": "add"' in made.decode(PromptFilter(policy, Chat()).ids(told))
