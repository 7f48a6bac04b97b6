"""The text of tokens as they are sampled: only what no later token can change, and nothing of a
stop string.

Left out: which tokens are silent (`prompts.py`), tool calls (`turns.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

# of a character whose bytes are not all there
BROKEN = "\ufffd"
# tokens after which broken bytes are taken for what they are: a character has at most 4
PATIENCE = 64


class TextStream:
    """The text of one row.

    Three tokens hold the bytes of "é!", é being c3 a9:

        token     bytes    window decoded    said
        1         c3       �                 ""       more bytes may come
        2         a9       é                 "é"
        3         21       é!                "!"      the window keeps the token before, whose
                                                      presence decides on spaces

    With the stop string "ab", "xa" says "x", for a "b" may follow; then "c" says "ac".

    Args:
        tokenizer: decodes. silent: tokens without text. stop: strings that end the text.
        after: token that the text goes on from, so that a first space stays: behind "a" ▁b is
            " b", and alone "b". None: the text begins here.

    Attributes:
        stopped: the stop string that was found, or "".
    """

    def __init__(
        self,
        tokenizer: Any,
        silent: Collection[int],
        stop: Sequence[str] = (),
        after: int | None = None,
    ) -> None:
        self.tokenizer, self.silent, self.stop = tokenizer, silent, tuple(stop)
        self.stopped = ""
        # tokens that are decoded together; how many of them were said, and how much of their text
        self._window: list[int] = []
        self._old, self._said = 0, 0
        if after is not None and after not in silent:
            before = tokenizer.decode([after])
            # half a character stays with the prompt
            if not before.endswith(BROKEN):
                self._window, self._old, self._said = [after], 1, len(before)
        # said by the tokens and kept back: it may begin a stop string
        self._kept = ""

    def push(self, token: int) -> str:
        """The text that is sure with one token more."""
        if token in self.silent or self.stopped:
            return ""
        self._window.append(token)
        text = self.tokenizer.decode(self._window)
        whole = not text.endswith(BROKEN) or len(self._window) - self._old > PATIENCE
        new = (text if whole else text.rstrip(BROKEN))[self._said :]
        if whole:
            self._window = self._window[self._old :]
            self._old = len(self._window)
            self._said = len(self.tokenizer.decode(self._window))
        else:
            self._said += len(new)
        return self._released(new)

    def end(self) -> str:
        """The rest of the text: no token follows."""
        if self.stopped:
            return ""
        rest = self.tokenizer.decode(self._window)[self._said :]
        out = self._released(rest)
        if not self.stopped:
            out, self._kept = out + self._kept, ""
        return out

    def _released(self, new: str) -> str:
        if not self.stop:
            return new
        text, self._kept = self._kept + new, ""
        found = [(text.find(s), s) for s in self.stop if s in text]
        if found:
            at, self.stopped = min(found)
            return text[:at]
        kept = max(_beginning(text, s) for s in self.stop)
        self._kept = text[len(text) - kept :]
        return text[: len(text) - kept]


def _beginning(text: str, stop: str) -> int:
    """How many of the text's last characters may begin the stop string.

    >>> _beginning("x\\n\\nQ", "\\n\\nQ:"), _beginning("abc", "d")
    (3, 0)
    """
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)
