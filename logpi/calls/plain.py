"""Calls as plain text: Python's syntax, as BFCL and Llama 3.2 write it, and Search-R1's query
between tags.

[add(a=1, b=2), sin(x=0)]            <search>capital of France</search>
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from logpi.calls.call import Attempt, Call, Malformed, Schema, defused, functions
from logpi.calls.pythonic import python_calls
from logpi.calls.reading import answering, read

_LIKE_A_CALL = re.compile(r"\[|[A-Za-z_][\w.]*\(")


@dataclass(frozen=True)
class Python:
    """A list of calls with named arguments, in the form of BFCL's default prompt; nothing else may
    stand in the turn.

    A turn that does not begin like a call calls nothing. Divergences from BFCL's reader: positional
    arguments are refused instead of passed over, and nothing is evaluated.

    >>> Python().parse("[math.add(a=1, b=-2.5), say(word=hello)]")
    [Call(name='math.add', arguments={'a': 1, 'b': -2.5}), Call(name='say', arguments={'word':
    'hello'})]
    """

    @property
    def stop(self) -> tuple[str, ...]:
        return ()

    def parse(self, text: str, tools: Sequence[Schema] = ()) -> list[Attempt]:
        # first, as a tag may stand inside of a string
        whole = self._whole(text)
        if whole and not isinstance(whole[0], Malformed):
            return whole
        return read(text, tools) or self._whole(answering(text))

    @staticmethod
    def _whole(said: str) -> list[Attempt]:
        said = said.strip("`\n ").removeprefix("python\n")
        try:
            return list(python_calls(said)) if _LIKE_A_CALL.match(said) else []
        except ValueError as error:
            return [Malformed(str(error))]

    def write(self, calls: Sequence[Call]) -> str:
        return (
            "["
            + ", ".join(
                f"{c.name}({', '.join(f'{k}={v!r}' for k, v in c.arguments.items())})"
                for c in calls
            )
            + "]"
        )

    def system(self, tools: Sequence[Schema]) -> str:
        """BFCL's default system prompt (ShishirPatil/gorilla, Apache-2.0), without its lines on
        conversations of several turns."""
        listed = json.dumps(list(functions(tools).values()), ensure_ascii=False)
        return (
            "You are an expert in composing functions. You are given a question and a set of"
            " possible functions. Based on the question, you will need to make one or more"
            " function/tool calls to achieve the purpose. If none of the functions can be used,"
            " point it out. If the given question lacks the parameters required by the function,"
            " also point it out.\nYou should only return the function calls in your"
            " response.\n\nIf you decide to invoke any of the function(s), you MUST put it in the"
            " format of [func_name1(params_name1=params_value1, params_name2=params_value2...),"
            " func_name2(params)]\nYou SHOULD NOT include any other text in the response.\n\nHere"
            f" is a list of functions in JSON format that you can invoke.\n{listed}\n"
        )

    def results(self, results: Sequence[str]) -> str:
        return "\n" + json.dumps(list(results), ensure_ascii=False) + "\n"


def first_tag(text: str, *tags: str) -> tuple[str, str] | None:
    """The first closed `<tag>…</tag>` of any of `tags`: its tag and its content, or None.

    >>> first_tag("<answer> so <search>x</search>", "search", "answer")
    ('search', 'x')
    """
    tags_read = []
    for tag in tags:
        start = text.find(f"<{tag}>")
        end = text.find(f"</{tag}>", start) if start >= 0 else -1
        # if the first one is not closed, no later one is
        if end >= 0:
            tags_read.append((start, tag, text[start + len(tag) + 2 : end]))
    return min(tags_read)[1:] if tags_read else None


@dataclass(frozen=True)
class Search:
    """Search-R1's: one query between tags, answered between others. Only the first query of a turn
    is read.

    Attributes:
        tag, answer, result: names of the tags. name, argument: of the tool that is called.

    >>> Search().parse("I need to know more. <search> capital of France </search>")
    [Call(name='search', arguments={'query': 'capital of France'})]
    """

    tag: str = "search"
    answer: str = "answer"
    result: str = "information"
    name: str = "search"
    argument: str = "query"

    @property
    def stop(self) -> tuple[str, ...]:
        return (f"</{self.tag}>", f"</{self.answer}>")

    def parse(self, text: str, tools: Sequence[Schema] = ()) -> list[Attempt]:
        found = first_tag(text, self.tag, self.answer)
        if found is None:
            return []
        return [Call(self.name, {self.argument: found[1].strip()})] if found[0] == self.tag else []

    def write(self, calls: Sequence[Call]) -> str:
        return "".join(f"<{self.tag}>{c.arguments[self.argument]}</{self.tag}>" for c in calls[:1])

    def system(self, tools: Sequence[Schema]) -> str:
        return (
            f"You can call a search engine by <{self.tag}> query </{self.tag}> and it will return"
            f" the top searched results between <{self.result}> and </{self.result}>. Give the"
            f" answer inside <{self.answer}> and </{self.answer}>."
        )

    def results(self, results: Sequence[str]) -> str:
        found = "\n".join(defused(r, self.result, self.tag, self.answer) for r in results)
        return f"\n\n<{self.result}>{found}</{self.result}>\n\n"
