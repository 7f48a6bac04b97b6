r"""Reads the calls of a turn, whichever model family wrote it. No mark means two things.

    <tool_call>{"name": "f", "arguments": {}}</tool_call>       a mark, JSON, and a closing tag
    [TOOL_CALLS]f[ARGS]{}                                       a mark, then name and arguments
    <tool_call>f\n<arg_key>…     <function=f><parameter=…>      tags
    <|python_start|>[f(a=1)]<|python_end|>                      Python's syntax
    So:\n```json\n{"name": "f", "parameters": {}}\n```          no mark: the turn ends in calls only

A call or a malformed attempt follows a mark, always. Without marks, JSON that is not exactly a call
is an answer. A call inside a thought does not count. A `</think>` inside an argument closes no
thought, because the reader takes a call as a whole:

    so <tool_call>…</tool_call></think><tool_call>{"name": "f", "arguments": {"q": "</think>"}}…
    thought, whoever opened it         the answer: one call

Left out: checks of arguments against their schema (`json_schema.py`), and the formats of Gemma 4
and Apertus, which count as malformed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from logpi.calls.call import MOST, Attempt, Call, Malformed, Schema, functions
from logpi.calls.objects import (
    LOOKS,
    NoJson,
    Text,
    as_call,
    blank,
    json_calls,
    past,
    unmarked,
    value_at,
)
from logpi.calls.pythonic import JSON_NAMES, python_calls
from logpi.calls.tags import FUNCTION, NAME, PAIRED, function_call, paired_call

Known = Mapping[str, Schema]


@dataclass(frozen=True)
class _Mark:
    """A text that announces calls.

    Attributes:
        close: the text that must follow the calls; "" for none.
        when: a lookahead that a mark must satisfy.
        head: for families that write the name before the arguments, a pattern of what precedes the
            arguments; its group is the name.
        python: the calls are in Python's syntax, up to `ends`.
    """

    close: str = ""
    when: str = ""
    head: str = ""
    python: bool = False
    ends: str = ""


MARKS = {
    # Hermes, Qwen, Granite 4; with tags GLM, Qwen3-Coder, Qwen 3.5, Nemotron 3
    "<tool_call>": _Mark("</tool_call>"),
    # MiniMax M1, Apriel
    "<tool_calls>": _Mark("</tool_calls>"),
    # Nemotron Nano
    "<TOOLCALL>": _Mark("</TOOLCALL>"),
    "<function_call>": _Mark("</function_call>"),
    # Qwen2.5-Coder, at times
    "<tools>": _Mark("</tools>", r'(?=\s*\{\s*"name"\s*:\s*"[^"\n]*"\s*,\s*"arguments")'),
    # Mistral; from v11 on with a head
    "[TOOL_CALLS]": _Mark(head=rf"({NAME})(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*"),
    # Llama 3.1 to 3.3
    "<|python_tag|>": _Mark(python=True),
    # Llama 4
    "<|python_start|>": _Mark(python=True, ends="<|python_end|>"),
    # LFM 2
    "<|tool_call_start|>": _Mark(python=True, ends="<|tool_call_end|>"),
    # Gemma 3
    "```tool_code": _Mark(python=True, ends="```"),
    # Phi-4-mini, Granite 3
    "<|tool_call|>": _Mark(),
    # Phi-4-mini, firefunction
    "functools": _Mark(when=r"(?=\[\s*\{)"),
    # Command R7B
    "<|START_ACTION|>": _Mark(),
    # GigaChat 3.1
    "<|function_call|>": _Mark(),
    # GigaChat 3
    "function call<|role_sep|>": _Mark(),
    # DeepSeek V3.1; V3 and R1 with the word "function" and a fence
    "<｜tool▁calls▁begin｜>": _Mark(when="(?!\\s*<｜tool▁call▁begin｜>)"),
    "<｜tool▁call▁begin｜>": _Mark(
        head=rf"(?:function<｜tool▁sep｜>)?({NAME})\s*(?:<｜tool▁sep｜>|```json)\s*"
    ),
    # Kimi K2
    "<|tool_calls_section_begin|>": _Mark(when=r"(?!\s*<\|tool_call_begin\|>)"),
    "<|tool_call_begin|>": _Mark(
        head=rf"(?:functions\.)?({NAME}?)(?::\d+)?\s*<\|tool_call_argument_begin\|>\s*"
    ),
    # Solar
    "<|tool_call:name|>": _Mark(head=rf"({NAME})<\|tool_call:args\|>\s*"),
    # gpt-oss
    "to=functions.": _Mark(head=rf"({NAME})[^{{}}]{{0,80}}?<\|message\|>\s*"),
    # Gemma 4 and Apertus: no reader
    "<|tool_call>": _Mark(),
    "<|tools_prefix|>": _Mark(),
}
_HEADS = {mark: re.compile(kind.head) for mark, kind in MARKS.items() if kind.head}
# closes a call that the model forgot to open (Qwen2.5-Coder)
_CLOSED = "</tool_call>"
_THOUGHTS = {
    "<think>": "</think>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|channel|>analysis<|message|>": "<|end|>",
}
# these end a thought that the prompt opened
_ENDS = tuple(close for close in _THOUGHTS.values() if close != "<|end|>")
_FUNCTION_HEAD = re.compile(rf"\s*(?:{FUNCTION.pattern})")
_NEXT = re.compile(rf"<tool_call>\s*(?:{FUNCTION.pattern}|{PAIRED.pattern})")
_MEANT = re.compile(rf'\{{\s*"(?:name|function|type)"|{PAIRED.pattern}')
_BETWEEN = re.compile(r"\s*[;,]?\s*")
_AROUND = re.compile(r"(?:\s|[;,]|```\w*|<\|[\w/]+\|>)*")
_BEGINS = re.compile(r"(?m:^)[ \t]*+(?=[\[{])|```\w*+\s*+(?=[\[{])")
_LINE = re.compile(r"(?m:^)[ \t]*+(?=[\[{`])")
_TOKENS = re.compile(r"(?:<\|[\w/]+\|>\s*)+\Z")
_PYTHONIC = re.compile(r"\[\s*[A-Za-z_][\w.]*\(.*\)\s*\]", re.DOTALL)

Body = Callable[[Text, re.Match[str], int, bool], tuple[list[Attempt], int]]
"""Reads the attempts after a mark, and where they end. Arguments: the text, the mark, where the
answer begins, and whether calls precede the mark."""


def pattern(marks: str) -> re.Pattern[str]:
    """A pattern of `marks` (a regular expression), and of the tags that begin and end thoughts."""
    around = map(re.escape, (*_THOUGHTS, *_ENDS))
    return re.compile("|".join([marks, *around]))


# an object without a mark: the scan skips it whole, with the tags in its strings
_OBJECT = rf"(?:(?m:^)|(?<=[>\]`]))[ \t]*+(?={LOOKS.pattern})"
_OPENS = pattern(
    "|".join(
        [*(re.escape(m) + k.when for m, k in MARKS.items()), FUNCTION.pattern, _CLOSED, _OBJECT]
    )
)


def scan(text: Text, opens: re.Pattern[str], body: Body) -> tuple[list[list[Attempt]], int]:
    """The attempts at each mark outside thoughts, and where the answer begins.

    The answer begins after the last thought; if a thought is open, at the end of the text. The scan
    reads at most `MOST` marks.

        <think>A</think> x <tool_call>B</tool_call>  y
        a thought        | a mark: `body` reads on
                         the answer begins here
    """
    calls: list[list[Attempt]] = []
    since = at = 0
    while (mark := opens.search(text, at)) is not None:
        at = mark.end()
        if mark[0] in _THOUGHTS:
            close = _THOUGHTS[mark[0]]
            end = text.find(close, at)
            if end < 0:
                return calls, len(text)
            at = since = end + len(close)
        elif mark[0] in _ENDS:
            calls, since = [], at
        elif len(calls) < MOST:
            attempts, at = body(text, mark, since, bool(calls))
            calls += [attempts] if attempts else []
    return calls, since


def read(text: str, tools: Sequence[Schema] = ()) -> list[Attempt]:
    """The attempts in a turn, in order, at most `MOST`; [] if the turn calls nothing.

    >>> read('Let me see. <tool_call>{"name": "sin", "arguments": {"x": 0}}</tool_call>')
    [Call(name='sin', arguments={'x': 0})]
    """
    return _attempts(text, functions(tools))[0]


def spoken(text: str, tools: Sequence[Schema] = ()) -> tuple[str, list[Attempt]]:
    """What a turn says before its attempts, and the attempts; all of it if there are none.

    >>> spoken('Let me see. <tool_call>{"name": "sin", "arguments": {"x": 0}}</tool_call>')
    ('Let me see.', [Call(name='sin', arguments={'x': 0})])
    """
    attempts, begin, since = _attempts(text, functions(tools))
    if attempts and begin < 0:
        lines = (m.start() for m in islice(_LINE.finditer(text, since), MOST))
        begin = next((b for b in lines if read(text[b:], tools) == attempts), since)
    said = text[:begin].rstrip()
    # of a section of calls
    section = next((m for m in MARKS if said.endswith(m)), "")
    return (said.removesuffix(section).rstrip() if attempts else text), attempts


def _attempts(text: str, known: Known) -> tuple[list[Attempt], int, int]:
    """The attempts in a turn, where the first one begins (−1: it has no mark), and where the answer
    begins."""
    begin = -1

    def noted(*where: Any) -> tuple[list[Attempt], int]:
        text, mark, since, late = where
        nonlocal begin
        attempts, at = _body(known, *where)
        if attempts and not late:
            meant = _MEANT.search(text, since, mark.start()) if mark[0] == _CLOSED else None
            begin = (meant or mark).start()
        return attempts, at

    calls, since = scan(Text(text), _OPENS, noted)
    if calls:
        return list(islice(chain.from_iterable(calls), MOST)), begin, since
    return _unmarked(Text(text[since:].strip()), known)[:MOST], -1, since


def answering(text: str) -> str:
    """The text after the last thought; "" while a thought is open.

    >>> answering("<think>hm</think>4")
    '4'
    """
    return text[scan(Text(text), _OPENS, lambda *where: _body({}, *where))[1] :]


def _body(
    known: Known, text: Text, mark: re.Match[str], since: int, late: bool
) -> tuple[list[Attempt], int]:
    """A `Body`. After a malformed attempt the scan continues right after its mark."""
    name = mark[0] if mark[0] in MARKS else ""
    if not mark[0].strip():
        return [], _passed(text, mark.end())
    try:
        if mark[0] == _CLOSED:
            return ([], mark.end()) if late else (_unopened(known, text, since, mark), mark.end())
        return _marked(known, text, mark.end(), name) if name else _function(known, text, mark)
    except ValueError as error:
        head = _FUNCTION_HEAD.match(text, mark.end()) if name else None
        return [Malformed(f"what stands after {mark[0]} is {error}")], (
            head.end() if head else mark.end()
        )


def _passed(text: Text, at: int) -> int:
    """The end of the objects at `at`, or the position of the first error in them."""
    try:
        while LOOKS.match(text, at):
            at = past(_BETWEEN, text, value_at(text, at)[1])
        return at
    except ValueError as error:
        return error.at if isinstance(error, NoJson) else at + 1


def _function(known: Known, text: Text, mark: re.Match[str]) -> tuple[list[Attempt], int]:
    """The call of a function tag that no mark precedes. Raises ValueError.

    In other XML a `<function name="…">` may be anything: there it must name a known tool.
    """
    begin = FUNCTION.match(text, mark.start())
    if begin and "=" not in begin[0].partition("name")[0] and known and begin[1] not in known:
        return [], mark.end()
    call, at = function_call(text, mark.start(), _following(FUNCTION, text, mark.end()), known)
    return [call], at


def _marked(known: Known, text: Text, at: int, name: str) -> tuple[list[Attempt], int]:
    """The attempts after a mark, up to its closing text. Raises ValueError."""
    mark, calls = MARKS[name], []
    at = blank(text, at)
    while not calls or LOOKS.match(text, at) or FUNCTION.match(text, at):
        try:
            attempts, at = _one(known, text, at, name)
        except ValueError as error:
            if not calls:
                raise
            attempts = [Malformed(f"a further call is {error}")]
        calls += attempts
        if isinstance(attempts[-1], Malformed):
            break
        at = past(_BETWEEN, text, at)
    if mark.close and not text.startswith(mark.close, at):
        raise ValueError(f"not closed by {mark.close} right after one object")
    return calls, at + len(mark.close)


def _one(known: Known, text: Text, at: int, name: str) -> tuple[list[Attempt], int]:
    """One call or list of calls at `at`, in any form. Raises ValueError."""
    mark, head = MARKS[name], _HEADS.get(name)
    if text.startswith("{", at) or (text.startswith("[", at) and not mark.python):
        return json_calls(text, at)
    if FUNCTION.match(text, at):
        call, at = function_call(text, at, _following(_NEXT, text, at), known)
        return [call], at
    if mark.python:
        return _python(text, at, name)
    if head is not None and (begin := head.match(text, at)) is not None:
        arguments, at = value_at(text, begin.end())
        return [as_call({"name": begin[1], "arguments": arguments})], at
    return _named(known, text, at, mark.close)


def _named(known: Known, text: Text, at: int, close: str) -> tuple[list[Attempt], int]:
    """GLM's call. Without arguments it must name a known tool. Raises ValueError."""
    if PAIRED.match(text, at):
        call, at = paired_call(text, at, _following(_NEXT, text, at), known)
        return [call], at
    end = text.find(close, at, at + 200) if close else -1
    name = text[at : max(end, at)].strip()
    if name in known:
        return [Call(name)], end
    # raises the error that explains what is wrong
    return json_calls(text, at)


def _following(marks: re.Pattern[str], text: Text, at: int) -> int:
    """The start of the next match of `marks`, or the end of the text."""
    following = marks.search(text, at + 1)
    return following.start() if following else len(text)


def _python(text: Text, at: int, name: str) -> tuple[list[Attempt], int]:
    """Calls in Python's syntax, up to the last `ends` before the next mark of the same kind.

    Raises ValueError.
    """
    limit = text.find(name, at)
    limit = len(text) if limit < 0 else limit
    end = str.rfind(text, MARKS[name].ends, at, limit) if MARKS[name].ends else limit
    end = limit if end < 0 else end
    body = _TOKENS.sub("", text[at:end]).strip()
    if body.startswith("[{") or not body:
        return json_calls(text, at)
    return list(python_calls(body, JSON_NAMES)), end


def _unopened(known: Known, text: Text, since: int, mark: re.Match[str]) -> list[Attempt]:
    """Calls that have a closing tag and no opening one. Raises ValueError."""
    begin = _MEANT.search(text, since, mark.start())
    if begin is None:
        raise ValueError("nothing: <tool_call> must open a call")
    if begin[0].startswith("{"):
        return json_calls(text, begin.start())[0]
    return [paired_call(text, begin.start(), mark.end(), known)[0]]


def _unmarked(said: Text, known: Known) -> list[Attempt]:
    """The calls that end an answer: objects, lists of objects, fences around them.

    [] if anything else follows the last one.
    """
    attempts: list[Attempt] = []
    at, words = 0, False
    while (begin := _next_value(said, at)) >= 0:
        if not _AROUND.fullmatch(said, at, begin):
            attempts, words = [], True
        try:
            value, at = value_at(said, begin)
        except ValueError as error:
            if LOOKS.match(said, begin):
                return [Malformed(f"a call is {error}")]
            attempts, words = [], True
            at = error.at if isinstance(error, NoJson) else begin + 1
            continue
        several = value if isinstance(value, list) and value else [value]
        calls = [unmarked(v, known, not words) for v in several]
        if all(calls):
            attempts.extend(c for c in calls if c)
        else:
            attempts, words = [], True
        at = past(_AROUND, said, at)
    return (attempts if at == len(said) else []) or _pythonic(said)


def _next_value(said: Text, at: int) -> int:
    """The start of the next object or list that begins a line, a fence or the rest; -1 if there is
    none."""
    if said[at : at + 1] in ("{", "["):
        return at
    begin = _BEGINS.search(said, at)
    return begin.end() if begin else -1


def _pythonic(said: Text) -> list[Attempt]:
    """The calls of an answer that is nothing but a list of calls in Python's syntax."""
    said = Text(_TOKENS.sub("", said).rstrip())
    try:
        return list(python_calls(said)) if _PYTHONIC.fullmatch(said) else []
    except ValueError:
        return []
