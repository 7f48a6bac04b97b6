"""The style in which a chat template writes, for templates that behave as the families' published
ones; what no style reads is said.

Run: python -m pytest -q tests/calls/test_templates.py
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from logpi.calls import STYLES
from logpi.calls.messages import forms
from logpi.calls.templates import style_of_template, unread

HEAD = (
    "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}{% else %}<assistant>{%"
    " set calls = m.tool_calls | default([]) %}"
)
TAIL = "{{ m.content }}<|end|>{% endif %}{% endfor %}"
EACH = "{% for c in calls %}{% set f = c.function %}"
OBJECT = '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}'
COMMA = "{% if not loop.last %}, {% endif %}"
# family -> how its template writes calls
WRITES = {
    "Qwen 2.5, Qwen 3": EACH + "<tool_call>\n" + OBJECT + "\n</tool_call>{% endfor %}",
    "Qwen3-Coder": (
        EACH
        + "<tool_call>\n<function={{ f.name }}>\n{% for k, v in f.arguments | items %}<parameter={{"
        " k }}>\n{{ v }}\n</parameter>\n{% endfor %}</function>\n</tool_call>{% endfor %}"
    ),
    "GLM 4.5": (
        EACH + "\n<tool_call>{{ f.name }}\n{% for k, v in f.arguments | items %}<arg_key>{{ k"
        " }}</arg_key>\n<arg_value>{{ v }}</arg_value>\n{% endfor %}</tool_call>{% endfor %}"
    ),
    "Llama 3.1": (
        EACH + '{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}{% endfor %}'
    ),
    "Mistral v3": (
        "{% for c in calls if c.id | length != 9 %}{{ refuse('ids of nine') }}{% endfor"
        " %}[TOOL_CALLS][" + EACH + OBJECT[:-1] + ', "id": "{{ c.id }}"}' + COMMA + "{% endfor %}]"
    ),
    "Mistral v13": EACH + "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}{% endfor %}",
    "DeepSeek V3.1": (
        "<｜tool▁calls▁begin｜>"
        + EACH
        + "<｜tool▁call▁begin｜>{{ f.name }}<｜tool▁sep｜>{{ f.arguments | tojson"
        " }}<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>"
    ),
    "DeepSeek V3, R1": (
        "<｜tool▁calls▁begin｜>"
        + EACH
        + "<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ f.name }}\n```json\n{{ '' + f.arguments"
        " }}\n```<｜tool▁call▁end｜>{% endfor %}<｜tool▁calls▁end｜>"
    ),
    "Kimi K2": (
        "<|tool_calls_section_begin|>"
        + EACH
        + "<|tool_call_begin|>functions.{{ f.name }}:{{ loop.index0"
        " }}<|tool_call_argument_begin|>{{ f.arguments | tojson }}<|tool_call_end|>{% endfor"
        " %}<|tool_calls_section_end|>"
    ),
    "Phi-4-mini": "<|tool_call|>[" + EACH + OBJECT + COMMA + "{% endfor %}]<|/tool_call|>",
    "Functionary": (
        EACH + "<function={{ f.name }}>{{ f.arguments | tojson }}</function>{% endfor %}"
    ),
    "Llama 3.2": (
        "["
        + EACH
        + "{{ f.name }}({% for k, v in f.arguments | items %}{{ k }}='{{ v }}'{% endfor %}){%"
        " endfor %}]"
    ),
    "Seed-OSS": (
        EACH + "<seed:tool_call>\n<function={{ f.name }}>\n{% for k, v in f.arguments | items"
        " %}<parameter={{ k }}>{{ v }}</parameter>\n{% endfor %}</function>\n</seed:tool_call>{%"
        " endfor %}"
    ),
    "Command R7B": (
        "<|START_ACTION|>["
        + EACH
        + '{"tool_call_id": "0", "tool_name": "{{ f.name }}", "parameters": {{ f.arguments | tojson'
        " }}}{% endfor %}]<|END_ACTION|>"
    ),
    "gpt-oss": (
        EACH
        + " to=functions.{{ f.name }}<|channel|>commentary json<|message|>{{ f.arguments | tojson"
        " }}<|call|>{% endfor %}"
    ),
    "SmolLM2": "",
    "Gemma 4": (
        EACH
        + "<|tool_call>call:{{ f.name }}{% raw %}{{% endraw %}{% for k, v in f.arguments | items"
        ' %}{{ k }}:<|"|>{{ v }}<|"|>{% endfor %}}<tool_call|>{% endfor %}'
    ),
}
EXPECTED = {
    "Qwen 2.5, Qwen 3": "hermes",
    "Qwen3-Coder": "xml",
    "GLM 4.5": "glm",
    "Llama 3.1": "llama",
    "Mistral v3": "mistral",
    "Mistral v13": "mistral_args",
    "DeepSeek V3.1": "deepseek",
    "DeepSeek V3, R1": "deepseek_json",
    "Kimi K2": "kimi",
    "Phi-4-mini": "phi",
    "Functionary": "functionary",
    "Llama 3.2": "python",
    "Seed-OSS": None,
    "Command R7B": None,
    "gpt-oss": None,
    "SmolLM2": None,
    "Gemma 4": None,
}


def render(family):
    def refuse(reason):
        raise ValueError(reason)

    source = HEAD + "{% if calls %}" + WRITES[family] + "{% endif %}" + TAIL
    template = ImmutableSandboxedEnvironment(trim_blocks=True).from_string(
        source, {"refuse": refuse}
    )

    def made(messages, tools):
        problem: Exception = ValueError()
        for form in forms(messages):
            try:
                return template.render(messages=form, tools=tools)
            except Exception as error:
                problem = error
        raise ValueError(str(problem))

    return made


@pytest.mark.parametrize("family", WRITES)
def test_the_style_of_a_family(family):
    assert style_of_template(render(family)) == EXPECTED[family]
    said = unread(render(family))
    assert ("call:logpi_tool" in said) if family == "Gemma 4" else said == ""


def test_the_documentation_names_each_familys_style():
    text = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", text, re.MULTILINE))
    assert set(rows) == set(STYLES)
    for family, style in EXPECTED.items():
        if style:
            assert family in rows[style], (family, style)
