"""Turns as families of models write them, and what is read of each; answers that are no calls.

Run: python -m pytest -q tests/calls/test_families.py
"""

from __future__ import annotations

import json

import pytest

from logpi.calls import STYLES, Call, Hermes, Lines, Malformed, Python, Xml

TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": properties}},
    }
    for name, properties in (
        (
            "search",
            {"query": {"type": "string"}, "top": {"type": "integer"}, "deep": {"type": "object"}},
        ),
        ("now", {}),
    )
]
X, Y, NOW = Call("search", {"query": "x"}), Call("search", {"query": "y", "top": 3}), Call("now")
OBJECT = '{"name": "search", "arguments": {"query": "x"}}'
OTHER = '{"name": "search", "arguments": {"query": "y", "top": 3}}'
LLAMA = '{"name": "search", "parameters": {"query": "x"}}'
BAD = "malformed"
TAGS = Call("search", {"query": '</think> "a" </tool_call>\n<tool_call> b'})
QUOTED = json.dumps(TAGS.arguments["query"])
TAGGED = f'{{"name": "search", "arguments": {{"query": {QUOTED}}}}}'
BEGIN, SEP, END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
OPEN, CLOSE = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
KIMI = "<|tool_call_begin|>functions.search:{}<|tool_call_argument_begin|>{}<|tool_call_end|>"
SECTION, SECTION_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
DSML = (
    '<｜DSML｜{0}invoke name="search">\n<｜DSML｜parameter name="query"'
    ' string="true">x</｜DSML｜parameter>\n</｜DSML｜invoke>'
)


def pairs(name: str, **values: str) -> str:
    body = "".join(
        f"\n<arg_key>{k}</arg_key>\n<arg_value>{v}</arg_value>" for k, v in values.items()
    )
    return f"<tool_call>{name}{body}\n</tool_call>"


def tags(**values: str) -> str:
    body = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in values.items())
    return f"<function=search>\n{body}</function>"


TABLE = [
    ("Hermes", f"<tool_call>{OBJECT}</tool_call>", [X]),
    ("Hermes", f"<tool_call>\n{OBJECT}\n</tool_call>\n<tool_call>\n{OTHER}\n</tool_call>", [X, Y]),
    ("Hermes", f"I look.\n<tool_call>\n{OBJECT}\n</tool_call><|im_end|>", [X]),
    ("Hermes", f"<tool_call>\n{LLAMA}\n</tool_call>", [X]),
    ("Hermes", f"<tool_call>\n{OBJECT}\n{OTHER}\n</tool_call>", [X, Y]),
    ("Hermes", f"<tool_call>[{OBJECT}, {OTHER}]</tool_call>", [X, Y]),
    ("Hermes", '<tool_call>{"name": "now", "arguments": {}}</tool_call>', [NOW]),
    (
        "Hermes",
        '<tool_call>{"id": "1", "type": "function", "name": "now", "arguments": {}}</tool_call>',
        [NOW],
    ),
    (
        "Hermes",
        (
            '<tool_call>{"type": "function", "function": {"name": "now", "arguments":'
            ' "{}"}}</tool_call>'
        ),
        [NOW],
    ),
    ("Hermes", '<tool_call>{"name": "gone", "arguments": {}}</tool_call>', [Call("gone")]),
    ("Hermes", f"<tool_call>{TAGGED}</tool_call>", [TAGS]),
    ("Hermes", f"<think>I could</think><tool_call>{TAGGED}</tool_call>", [TAGS]),
    ("Hermes", f"I could</think><tool_call>{TAGGED}</tool_call>", [TAGS]),
    ("Hermes", f"<tool_call>{TAGGED}</tool_call> <tool_call>{OBJECT}</tool_call>", [TAGS, X]),
    ("Hermes", f"<think><tool_call>{OBJECT}</tool_call></think>{'no'}", []),
    ("Hermes", f"<think><tool_call>{OBJECT}</tool_call>", []),
    ("Hermes", f"<tool_call>{OBJECT}</tool_call></think><tool_call>{OTHER}</tool_call>", [Y]),
    (
        "Hermes",
        f"<tool_call>{OBJECT}</tool_call><think>a</think><tool_call>{OTHER}</tool_call>",
        [X, Y],
    ),
    ("Hermes", f'<tool_call>{{"name": "search", "arg</think><tool_call>{OBJECT}</tool_call>', [X]),
    ("Hermes", f"<tool_call>{OBJECT}", [BAD]),
    ("Hermes", f"<tool_call>{OBJECT}<tool_call>{OTHER}</tool_call>", [BAD, Y]),
    ("Hermes", "<tool_call></tool_call>", [BAD]),
    ("Hermes", "<tool_call>oops</tool_call>", [BAD]),
    ("Hermes", "<tool_call>", [BAD]),
    ("Hermes", "<tool_call>{'name': 'search', 'arguments': {}}</tool_call>", [BAD]),
    ("Hermes", '<tool_call>{"name": "search", "arguments": {"query": "x"}</tool_call>', [BAD]),
    ("Hermes", '<tool_call>{"name": "search", "args": {"query": "x"}}</tool_call>', [BAD]),
    ("Hermes", '<tool_call>{"name": "search", "arguments": "{}"}</tool_call>', [BAD]),
    ("Hermes", '<tool_call>{"name": "search"}</tool_call>', [BAD]),
    ("Hermes", '<tool_call>{"arguments": {}}</tool_call>', [BAD]),
    ("Hermes", "<tool_call>[]</tool_call>", [BAD]),
    ("Hermes", f'<tool_call>[{OBJECT}, {{"name": 3}}]</tool_call>', [X, BAD]),
    ("Qwen2.5-Coder", f"```json\n{OBJECT}\n```", [X]),
    ("Qwen2.5-Coder", f"```\n{OBJECT}\n```", [X]),
    ("Qwen2.5-Coder", f"I look it up.\n```json\n{OBJECT}\n```", [X]),
    ("Qwen2.5-Coder", f"```json\n{OBJECT}\n```\n```json\n{OTHER}\n```", [X, Y]),
    ("Qwen2.5-Coder", f"```json\n[{OBJECT}, {OTHER}]\n```", [X, Y]),
    ("Qwen2.5-Coder", f"{OBJECT}\n</tool_call>", [X]),
    ("Qwen2.5-Coder", f"I look it up.\n{OBJECT}\n</tool_call>", [X]),
    ("Qwen2.5-Coder", f"{OBJECT}</tool_call>\n<tool_call>{OTHER}</tool_call>", [X, Y]),
    ("Qwen2.5-Coder", f"<tools>\n{OBJECT}\n</tools>", [X]),
    ("Qwen2.5-Coder", f"<think>hm</think>\n{OBJECT}\n</tool_call>", [X]),
    ("Qwen2.5-Coder", f"{TAGGED}\n</tool_call>", [TAGS]),
    ("Qwen2.5-Coder", "search x\n</tool_call>", [BAD]),
    ("Qwen2.5-Coder", '```json\n{"name": "search", "arguments": {"query": "x"}\n```', [BAD]),
    ("Llama 3", LLAMA, [X]),
    ("Llama 3", f"  {LLAMA}\n", [X]),
    ("Llama 3", f"{LLAMA}<|eom_id|>", [X]),
    ("Llama 3", f"{LLAMA}<|eot_id|>", [X]),
    ("Llama 3", f"<|python_tag|>{LLAMA}", [X]),
    ("Llama 3", f"<|python_tag|>{LLAMA}; {OTHER}<|eom_id|>", [X, Y]),
    ("Llama 3", f"{LLAMA}; {OTHER}", [X, Y]),
    ("Llama 3", f"{LLAMA}\n{OTHER}", [X, Y]),
    ("Llama 3", f"{LLAMA}, {OTHER}", [X, Y]),
    ("Llama 3", f"[{LLAMA}, {OTHER}]", [X, Y]),
    ("Llama 3", '{"type": "function", "name": "search", "parameters": {"query": "x"}}', [X]),
    ("Llama 3", '{"type": "function", "function": "search", "parameters": {"query": "x"}}', [X]),
    (
        "Llama 3",
        '{"type": "function", "function": {"name": "search", "parameters": {"query": "x"}}}',
        [X],
    ),
    ("Llama 3", f'{{"name": "search", "parameters": {{"query": {QUOTED}}}}}', [TAGS]),
    ("Llama 3", f'hm</think>\n{{"name": "search", "parameters": {{"query": {QUOTED}}}}}', [TAGS]),
    ("Llama 3", '<|python_tag|>search.call(query="x")', [X]),
    ("Llama 3", '<|python_tag|>search.call(query="x")<|eom_id|>', [X]),
    ("Llama 3", '{"name": "gone", "parameters": {}}', [Call("gone")]),
    ("Llama 3", "<|python_tag|>print(1)", [BAD]),
    ("Llama 3", "<|python_tag|>", [BAD]),
    ("Llama 3", '{"name": "search", "parameters": {"query": "x"', [BAD]),
    ("Llama 3", '{"name": "search", "parameters": "{\\"query\\": \\"x\\"}"}', [BAD]),
    ("Llama 3", '{"name": "search", "args": {"query": "x"}}', [BAD]),
    ("Llama 3", '{"tool": "search", "arguments": {"query": "x"}}', [BAD]),
    ("Llama 3", "{'name': 'search', 'parameters': {'query': 'x'}}", [BAD]),
    ("Llama 3", f'<|python_tag|>{LLAMA}; {{"name": "search", "parameters": {{', [X, BAD]),
    ("Functionary", '<function=search>{"query": "x"}</function>', [X]),
    (
        "Functionary",
        '<function=now>{}</function><function=search>{"query": "x"}</function><|eom_id|>',
        [NOW, X],
    ),
    ("Functionary", '<function=search>{"query": "x"}', [BAD]),
    ("Llama 4", "<|python_start|>[search(query='x'), now()]<|python_end|>", [X, NOW]),
    ("Llama 4", "<|python_start|>[search(query='x')]<|python_end|><|eom|>", [X]),
    ("Llama 4", "<|python_start|>[search('x')]<|python_end|>", [BAD]),
    ("Llama 3.2", "[search(query='x')]", [X]),
    ("Llama 3.2", '[search(query="x"), search(query="y", top=3)]', [X, Y]),
    (
        "LFM 2",
        '<|tool_call_start|>[search(query="x", deep={"k": [1, null, true]})]<|tool_call_end|>',
        [Call("search", {"query": "x", "deep": {"k": [1, None, True]}})],
    ),
    ("Gemma 3", '```tool_code\nsearch(query="x")\n```', [X]),
    ("Mistral v3", f"[TOOL_CALLS][{OBJECT}]", [X]),
    ("Mistral v3", f"[TOOL_CALLS] [{OBJECT}, {OTHER}]</s>", [X, Y]),
    (
        "Mistral v3",
        '[TOOL_CALLS][{"name": "search", "arguments": {"query": "x"}, "id": "abcdefghi"}]',
        [X],
    ),
    ("Mistral v3", f"Let me see.[TOOL_CALLS][{OBJECT}]", [X]),
    ("Mistral v3", f"[TOOL_CALLS][{TAGGED}]", [TAGS]),
    ("Mistral v3", f"[TOOL_CALLS]{OBJECT}", [X]),
    ("Mistral v3", f"[THINK]a[TOOL_CALLS][{OBJECT}][/THINK]b", []),
    ("Mistral v3", f"[TOOL_CALLS][{OBJECT}", [BAD]),
    ("Mistral v3", "[TOOL_CALLS]", [BAD]),
    ("Mistral v3", "[TOOL_CALLS][]", [BAD]),
    ("Mistral v3", f"[{OBJECT}]", [X]),  # the mark lost
    ("Mistral v11", '[TOOL_CALLS]search[ARGS]{"query": "x"}', [X]),
    ("Mistral v11", '[TOOL_CALLS]search[CALL_ID]abcdefghi[ARGS]{"query": "x"}', [X]),
    ("Mistral v11", '[TOOL_CALLS]search{"query": "x"}[TOOL_CALLS]now{}', [X, NOW]),
    ("Mistral v11", f'[TOOL_CALLS]search[ARGS]{{"query": {QUOTED}}}</s>', [TAGS]),
    ("Mistral v11", '[TOOL_CALLS]search[ARGS]{"query": ', [BAD]),
    ("Mistral v11", "[TOOL_CALLS]search[ARGS]3", [BAD]),
    ("Mistral v11", "[TOOL_CALLS]search", [BAD]),
    ("GLM 4.5", pairs("search", query="x"), [X]),
    (
        "GLM 4.5",
        f"<think></think>\n{pairs('search', query='y', top='3')}\n{pairs('search', query='x')}",
        [Y, X],
    ),
    ("GLM 4.5", pairs("now"), [NOW]),
    ("GLM 4.5", "<tool_call>now</tool_call>", [NOW]),
    ("GLM 4.7", pairs("search", query="x").replace("\n", ""), [X]),
    ("GLM 4.5", pairs("search", query=TAGS.arguments["query"]), [TAGS]),
    ("GLM 4.5", pairs("search", query="x").removeprefix("<tool_call>"), [X]),
    ("GLM 4.5", pairs("search", query="x").removesuffix("</tool_call>"), [BAD]),
    ("GLM 4.5", "<tool_call>search\n<arg_key>query</arg_key>\n</tool_call>", [BAD]),
    ("GLM 4.5", "<tool_call>search\n<arg_key>query</arg_key>\n<arg_value>x</tool_call>", [BAD]),
    ("GLM 4.5", "<tool_call>gone</tool_call>", [BAD]),
    ("Qwen3-Coder", f"<tool_call>\n{tags(query='x')}\n</tool_call>", [X]),
    (
        "Qwen3-Coder",
        (
            f"<tool_call>\n{tags(query='y', top='3')}\n</tool_call>\n"
            f"<tool_call>\n{tags(query='x')}\n</tool_call>"
        ),
        [Y, X],
    ),
    ("Qwen3-Coder", tags(query="x"), [X]),
    ("Qwen3-Coder", f"I look.\n{tags(query='x')}\n</tool_call>", [X]),
    ("Qwen3-Coder", f"<tool_call>\n{tags(query=TAGS.arguments['query'])}\n</tool_call>", [TAGS]),
    (
        "Qwen3-Coder",
        f"<tool_call>\n{tags(query='a </parameter> b')}\n</tool_call>",
        [Call("search", {"query": "a </parameter> b"})],
    ),
    (
        "Qwen3-Coder",
        (
            "<tool_call>\n<function=search>\n<parameter=deep>\n{'k': [1, None,"
            " True]}\n</parameter>\n</function>\n</tool_call>"
        ),
        [Call("search", {"deep": {"k": [1, None, True]}})],
    ),
    ("Qwen3-Coder", "<tool_call>\n<function=now>\n</function>\n</tool_call>", [NOW]),
    ("Qwen3-Coder", f"<tool_call>\n{tags(query='x')}", [BAD]),
    (
        "Qwen3-Coder",
        "<tool_call>\n<function=search><parameter=query>x</tool_call>"
        f"<tool_call>{tags(query='x')}</tool_call>",
        [BAD, X],
    ),
    ("Seed-OSS", f"<seed:tool_call>\n{tags(query='x')}\n</seed:tool_call>", [X]),
    (
        "MiniMax M2",
        (
            '<minimax:tool_call>\n<invoke name="search">\n<parameter'
            ' name="query">x</parameter>\n</invoke>\n</minimax:tool_call>'
        ),
        [X],
    ),
    (
        "DeepSeek V3.2",
        f"<｜DSML｜function_calls>\n{DSML.format('')}\n</｜DSML｜function_calls>",
        [X],
    ),
    ("DeepSeek V3.1", f'{OPEN}{BEGIN}search{SEP}{{"query": "x"}}{END}{CLOSE}', [X]),
    (
        "DeepSeek V3.1",
        f'{OPEN}{BEGIN}search{SEP}{{"query": "x"}}{END}{BEGIN}now{SEP}{{}}{END}{CLOSE}',
        [X, NOW],
    ),
    ("DeepSeek V3.1", f'{OPEN}{BEGIN}search{SEP}{{"query": {QUOTED}}}{END}{CLOSE}', [TAGS]),
    (
        "DeepSeek R1",
        f'{OPEN}{BEGIN}function{SEP}search\n```json\n{{"query": "x"}}\n```{END}{CLOSE}',
        [X],
    ),
    (
        "DeepSeek R1",
        (
            f'hm</think>\n{OPEN}{BEGIN}function{SEP}search\n```json\n{{"query":'
            f' "x"}}\n```{END}\n{BEGIN}function{SEP}now\n```json\n{{}}\n```{END}{CLOSE}'
        ),
        [X, NOW],
    ),
    ("DeepSeek V3.1", f"{OPEN}{BEGIN}search{SEP}{{'query': 'x'}}{END}{CLOSE}", [BAD]),
    ("DeepSeek V3.1", f"{OPEN}search", [BAD]),
    ("DeepSeek V3.1", f"{OPEN}{BEGIN}search{END}{CLOSE}", [BAD]),
    ("Kimi K2", SECTION + KIMI.format(0, '{"query": "x"}') + SECTION_END, [X]),
    (
        "Kimi K2",
        SECTION
        + KIMI.format(0, '{"query": "x"}')
        + KIMI.format(1, '{"query": "y", "top": 3}')
        + SECTION_END,
        [X, Y],
    ),
    ("Kimi K2", SECTION + KIMI.format(0, '{"query": ' + QUOTED + "}") + SECTION_END, [TAGS]),
    ("Kimi K2", SECTION + KIMI.format(0, "x") + SECTION_END, [BAD]),
    ("Kimi K2", SECTION + "search" + SECTION_END, [BAD]),
    ("Phi-4-mini", f"<|tool_call|>[{OBJECT}]<|/tool_call|>", [X]),
    ("Phi-4-mini", f"<|tool_call|>[{OBJECT}, {OTHER}]<|/tool_call|><|end|>", [X, Y]),
    ("Phi-4-mini", f"functools[{OBJECT}]", [X]),
    ("Phi-4-mini", "<|tool_call|>search<|/tool_call|>", [BAD]),
    ("Granite 3", f"<|tool_call|>[{OBJECT}]", [X]),
    ("Granite 4", f"<tool_call>\n{OBJECT}\n</tool_call><|end_of_text|>", [X]),
    ("xLAM", f"[{OBJECT}, {OTHER}]", [X, Y]),
    ("Nemotron Nano", f"<TOOLCALL>[{OBJECT}]</TOOLCALL>", [X]),
    ("Nemotron Nano", f"<TOOLCALL>[{OBJECT}", [BAD]),
    ("Apriel", f"<tool_calls>[{OBJECT}, {OTHER}]</tool_calls>", [X, Y]),
    ("MiniMax M1", f"<tool_calls>\n{OBJECT}\n{OTHER}\n</tool_calls>", [X, Y]),
    (
        "Command R7B",
        (
            '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "search", "parameters":'
            ' {"query": "x"}}\n]<|END_ACTION|>'
        ),
        [X],
    ),
    ("GigaChat 3", f"<|function_call|>{OBJECT}<|message_sep|>", [X]),
    (
        "Solar",
        (
            '<|tool_calls|><|tool_call:begin|>a<|tool_call:name|>search<|tool_call:args|>{"query":'
            ' "x"}<|tool_call:end|>'
        ),
        [X],
    ),
    (
        "gpt-oss",
        (
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary"
            ' to=functions.search <|constrain|>json<|message|>{"query": "x"}<|call|>'
        ),
        [X],
    ),
    (
        "gpt-oss",
        'to=functions.search<|channel|>commentary json<|message|>{"query": "x"}<|call|>',
        [X],
    ),
    ("gpt-oss", "to=functions.search<|channel|>commentary json<|message|>x<|call|>", [BAD]),
    (
        "Gemma 4",
        '<|tool_call>call:search{query:<|"|>x<|"|>}<tool_call|>',
        [BAD],
    ),  # not read, and said so
]

ANSWERS = [
    "The capital is Paris.",
    "f(x) = x² for x in [0, 1], so f(2) is 4.",
    "The answer is [8].",
    "[8]",
    "[1, 2, 3]",
    "{}",
    "[]",
    '{"query": "x"}',
    '{"answer": 42}',
    '{"name": "Ann", "age": 41}',
    '{"name": "Ann"}',
    '{"name": "Ann", "parameters": 3}',
    '{"model": "small", "parameters": {"layers": 2}}',
    '{"name": "search", "description": "Looks things up.", "parameters": {"type": "object"}}',
    '[{"name": "Ann", "age": 41}, {"name": "Bob", "age": 3}]',
    '```json\n{"name": "Ann", "age": 41}\n```',
    '```json\n{"a": 1}\n```\nThat is all.',
    f"A call would look like this:\n```json\n{OBJECT}\n```\nbut nothing needs to be looked up.",
    f"{LLAMA}\nis how a call looks.",
    f"It writes {LLAMA}",
    'Then\n{"name": "Ann", "arguments": {}}',
    "See [Smith (2020)](https://example.org) and [2].",
    "```python\ndef search(query):\n    return now()\n```",
    "<b>search</b> and </b>, a < b > c",
    '<svg><function name="f"/></svg>',
    '<invoke name="gone"><parameter name="a">1</parameter></invoke>',
    "tool_call: none",
    "<answer>42</answer>",
    "<think>[TOOL_CALLS] or <tool_call>?</think>No.",
    "<think>[TOOL_CALLS] or <tool_call>?",
    "",
    "   \n",
]


def kinds(attempts):
    return [BAD if isinstance(a, Malformed) else a for a in attempts]


def test_the_table_is_long():
    assert len(TABLE) + len(ANSWERS) >= 150 and len({text for _, text, _ in TABLE}) == len(TABLE)


@pytest.mark.parametrize(("family", "text", "expected"), TABLE)
def test_what_families_write_is_read_whatever_the_style(family, text, expected):
    for name in ("hermes", "llama", "xml", "glm", "python"):
        assert kinds(STYLES[name].parse(text, TOOLS)) == expected, name


@pytest.mark.parametrize(("family", "text", "expected"), TABLE)
def test_without_schemas_only_types_and_bare_names_are_unknown(family, text, expected):
    found = kinds(Hermes().parse(text))
    if '"tool"' in text:  # which only a tool's name shows to be meant as a call
        assert found == []
    elif all(isinstance(a, Call) for a in found):
        assert [a.name for a in found] == [a.name for a in expected]
    else:
        assert found == expected or "now" in text


@pytest.mark.parametrize("text", ANSWERS)
def test_answers_are_no_calls(text):
    for name in set(STYLES) - {"python"}:
        assert STYLES[name].parse(text, TOOLS) == [], name


@pytest.mark.parametrize(
    "text",
    [
        LLAMA,
        f"[TOOL_CALLS][{OBJECT}]",
        pairs("search", query="x"),
        f"```json\n{OBJECT}\n```",
        f"<tool_call>{OBJECT}</tool_call>",
    ],
)
def test_the_four_first_styles_read_what_they_were_not_written_for(text):
    assert any(s.parse(text) == [X] for s in (Hermes(), Lines(), Xml(), Python()))


def test_a_reason_says_what_was_expected():
    (bad,) = Hermes().parse("<tool_call>{'name': 'f'}</tool_call>")
    assert (
        bad.reason
        == "what stands after <tool_call> is not valid JSON (Expecting property name enclosed in"
        " double quotes at character 1)"
    )
    (bad,) = Hermes().parse('{"name": "search", "parameters": {"query": ')
    assert bad.reason.startswith("a call is not valid JSON")
