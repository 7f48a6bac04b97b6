"""The prompt of a preference pair without one: the beginning that its responses share.

Left out: reading files (`data.py`), and tokens (`rollouts/preference_pairs.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import commonprefix
from typing import Any

Messages = Sequence[Mapping[str, Any]]


def implicit_prompt(chosen: Any, rejected: Any) -> dict[str, Any]:
    """Columns prompt, chosen and rejected of a pair that repeats its prompt: the messages with
    which both begin, or the text up to a space or an "Assistant:". Empty for other values.

    >>> implicit_prompt("Human: hi Assistant: yes", "Human: hi Assistant: no")
    {'prompt': 'Human: hi Assistant:', 'chosen': ' yes', 'rejected': ' no'}
    """
    if isinstance(chosen, str) and isinstance(rejected, str):
        common = commonprefix([chosen, rejected])
        label = common.rfind("Assistant:") + 10
        size = label if label >= 10 else common.rfind(" ")
        if size < 0:
            return {}
    elif isinstance(chosen, list) and isinstance(rejected, list):
        size = len(shared_messages(chosen, rejected))
    else:
        return {}
    if not size:
        return {}
    return {"prompt": chosen[:size], "chosen": chosen[size:], "rejected": rejected[size:]}


def shared_messages(chosen: Messages, rejected: Messages) -> list[Any]:
    """The messages with which two conversations begin, without an answer at their end.

    >>> user, yes, no = ({"role": r, "content": c} for r, c in
    ...                  (("user", "?"), ("assistant", "yes"), ("assistant", "no")))
    >>> shared_messages([user, yes, user, yes], [user, yes, user, no]) == [user, yes, user]
    True
    >>> shared_messages([user, yes], [user, yes]) == [user]
    True
    """
    shorter = min(len(chosen), len(rejected))
    same = next((i for i in range(shorter) if chosen[i] != rejected[i]), shorter)
    while same and (same == shorter or chosen[same - 1].get("role") == "assistant"):
        same -= 1
    return list(chosen[:same])
