"""Conversations with calls through chat templates: whatever form they have in the data, and
whatever form the template asks for.

Run: python -m pytest -q tests/rollouts/test_tool_conversations.py
"""

from __future__ import annotations

import pytest

from logpi.envs.tools import ToolEnvironment
from logpi.errors import UserError
from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.chat import Chat
from logpi.rollouts.demonstrations import Demonstrations
from logpi.rollouts.tool_conversations import ToolConversations
from logpi.rollouts.turns import TurnLimits
from tests.tiny import tiny_model, tiny_tokenizer

HEAD = (
    "{% if tools %}<t>{{ tools | tojson }}</t>{% endif %}{% for m in messages %}<bos>{{ m.role"
    " }}:{{ m.content }}{% for c in m.tool_calls or [] %}"
)
TAIL = "{% endfor %}<eos>\n{% endfor %}{% if add_generation_prompt %}<bos>assistant:{% endif %}"
HERMES = (
    HEAD
    + '<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson'
    " }}}</tool_call>" + TAIL
)
MISTRAL = (
    HEAD
    + "{% if c.id | length != 9 %}{{ raise_exception('ids of nine') }}{% endif %}[TOOL_CALLS]{{"
    " c.function.name }}[ARGS]{{ c.function.arguments | tojson }}" + TAIL
)
AS_TEXT = HEAD + "<function={{ c.function.name }}>{{ '' + c.function.arguments }}</function>" + TAIL
OWN = (
    HEAD + "<call {{ c.function.name }} {{ c.function.arguments | items | list }}>" + TAIL
)  # nobody reads it
ASKED, ENDED = {"role": "user", "content": "go"}, {"role": "assistant", "content": "done"}
OPENAI = {
    "role": "assistant",
    "tool_calls": [
        {"id": "call_ab", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    ],
}
TOLD = {"role": "tool", "content": "2", "tool_call_id": "call_ab"}


def add(a: int) -> int:
    """Adds one."""
    return a + 1


def policy(template):
    return CausalLM(tiny_model("llama"), tiny_tokenizer(template))


class Rows:
    name = "rows"

    def __init__(self, *rows):
        self.listed = list(rows)

    def rows(self, split="train", seed=0):
        return list(self.listed)


def learned(template, row):
    """What is learned of a row, as text, and all of it."""
    p = policy(template)
    rows = Demonstrations(p, Rows(row), rows=1, chat=Chat(wrap=True), max_length=4096).trajectories(
        row, 0
    )
    return [(p.tokenizer.decode(t.action[t.mask]), p.tokenizer.decode(t.obs)) for t in rows]


@pytest.mark.parametrize(
    ("template", "call"),
    [
        (HERMES, '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call><eos>'),
        (MISTRAL, '[TOOL_CALLS]add[ARGS]{"a": 1}<eos>'),
        (AS_TEXT, '<function=add>{"a": 1}</function><eos>'),
    ],
)
def test_openais_form_is_learned_as_the_template_writes_it(template, call):
    messages = [ASKED, OPENAI, TOLD, ENDED]
    ((own, whole),) = learned(
        template, {"messages": messages, "prompt": messages[:3], "completion": "done"}
    )
    assert own == call + "done<eos>" and "null" not in whole and "None" not in whole
    ((own, _),) = learned(template, {"prompt": [ASKED], "completion": [OPENAI]})
    assert own == call
    ((own, whole),) = learned(template, {"prompt": [ASKED], "completion": [OPENAI, TOLD, ENDED]})
    assert own == call + "done<eos>" and "tool:2" in whole


def test_what_cannot_be_a_call_is_one_line_with_its_row():
    bad = {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": "{"}}]}
    row = {"messages": [ASKED, bad], "prompt": [ASKED], "completion": ""}
    with pytest.raises(UserError, match="row 0: message 2: the arguments of 'add': not valid JSON"):
        learned(HERMES, row)


def test_a_model_whose_calls_nobody_reads_is_refused_at_the_start():
    for template in (HERMES, MISTRAL, AS_TEXT):
        ToolConversations(policy(template), ToolEnvironment((add,)), TurnLimits(), Chat(wrap=True))
    with pytest.raises(
        UserError, match="writes calls in a form that cannot be read: ….*<call logpi_tool"
    ):
        ToolConversations(policy(OWN), ToolEnvironment((add,)), TurnLimits(), Chat(wrap=True))
