"""Styles that write calls as plain text: Python's syntax (BFCL, Llama 3.2), and Search-R1's query
between tags.

    [add(a=1, b=2), sin(x=0)]            <search>capital of France</search>

Left out: reading Python's syntax (`pythonic.py`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from logpi.calls.call import Attempt, Call, Malformed, Schema, defused, dumps, functions
from logpi.calls.pythonic import python_calls
from logpi.calls.reading import answering, read

_LIKE_A_CALL = re.compile(r"\[|[A-Za-z_][\w.]*\(")


@dataclass(frozen=True)
class Python:
    """A list of calls with named arguments, as BFCL's default prompt asks for; the whole turn.

    A turn that does not begin like a call calls nothing. Divergences from BFCL's reader: this one
    refuses positional arguments, which BFCL's ignores, and evaluates nothing.

    >>> Python().parse("[math.add(a=1, b=-2.5), say(word=hello)]")
    [Call(name='math.add', arguments={'a': 1, 'b': -2.5}), Call(name='say', arguments={'word':
    'hello'})]
    """

    @property
    def stop(self) -> tuple[str, ...]:
        return ()

    def parse(self, text: str, tools: Sequence[Schema] = ()) -> list[Attempt]:
        # the whole turn first: a tag may stand inside a string
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
        texts = (
            f"{c.name}({', '.join(f'{k}={v!r}' for k, v in c.arguments.items())})" for c in calls
        )
        return f"[{', '.join(texts)}]"

    def system(self, tools: Sequence[Schema]) -> str:
        """BFCL's default system prompt (ShishirPatil/gorilla, Apache-2.0), without its lines on
        conversations of several turns."""
        listed = dumps(list(functions(tools).values()))
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
        return f"\n{dumps(list(results))}\n"


def first_tag(text: str, *tags: str) -> tuple[str, str] | None:
    """The tag and the content of the first closed `<tag>…</tag>`, of any of `tags`, or None.

    >>> first_tag("<answer> so <search>x</search>", "search", "answer")
    ('search', 'x')
    """
    matches = []
    for tag in tags:
        start = text.find(f"<{tag}>")
        end = text.find(f"</{tag}>", start) if start >= 0 else -1
        # if the first one is not closed, no later one is
        if end >= 0:
            matches.append((start, tag, text[start + len(tag) + 2 : end]))
    return min(matches)[1:] if matches else None


@dataclass(frozen=True)
class Search:
    """Search-R1's style: a query between tags, and its results between others.

    The reader takes the first query of a turn.

    Attributes:
        tag, answer, result: the names of the tags.
        name, argument: the tool's name, and its parameter that takes the query.

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
        tag, content = first_tag(text, self.tag, self.answer) or ("", "")
        return [Call(self.name, {self.argument: content.strip()})] if tag == self.tag else []

    def write(self, calls: Sequence[Call]) -> str:
        return "".join(f"<{self.tag}>{c.arguments[self.argument]}</{self.tag}>" for c in calls[:1])

    def system(self, tools: Sequence[Schema]) -> str:
        return (
            f"You can call a search engine by <{self.tag}> query </{self.tag}> and it will return"
            f" the top searched results between <{self.result}> and </{self.result}>. Give the"
            f" answer inside <{self.answer}> and </{self.answer}>."
        )

    def results(self, results: Sequence[str]) -> str:
        listed = "\n".join(defused(r, self.result, self.tag, self.answer) for r in results)
        return f"\n\n<{self.result}>{listed}</{self.result}>\n\n"
