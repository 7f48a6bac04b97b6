"""An answer's text and the calls in it, also while it is written.

An answer whose every attempt is a call is the text before them, and the calls. One that has a
malformed attempt is text: the client sees what the model wrote. Left out: how families write calls
(`calls/reading.py`).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from logpi.calls.call import Call, as_openai
from logpi.calls.reading import spoken
from logpi.calls.unfinished import settled


class Turn:
    """An assistant's turn. Without tools all of its text is content.

    Attributes:
        calls: in OpenAI's form, once the turn has ended.
    """

    def __init__(self, tools: Sequence[Any]) -> None:
        self.tools, self.calls = tools, list[dict[str, Any]]()
        self._text, self._sent = "", 0

    def push(self, text: str) -> str:
        """The content that is sure with this text more."""
        self._text += text
        before = self._sent
        self._sent = settled(self._text, before) if self.tools else len(self._text)
        return self._text[before : self._sent]

    def end(self) -> str:
        """The rest of the content."""
        content, attempts = spoken(self._text, self.tools) if self.tools else (self._text, [])
        calls = [a for a in attempts if isinstance(a, Call)]
        if len(calls) < len(attempts):
            content, calls = self._text, []
        self.calls = [as_openai(call, f"call_{secrets.token_hex(12)}") for call in calls]
        return content[self._sent :]
