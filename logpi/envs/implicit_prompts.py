"""What two responses share: the prompt of a preference pair that names none.

Left out: reading files (`data.py`), and tokens (`rollouts/preference_pairs.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import commonprefix
from typing import Any

Messages = Sequence[Mapping[str, Any]]


def implicit_prompt(chosen: Any, rejected: Any) -> dict[str, Any]:
    """Columns prompt, chosen and rejected of a pair that repeats its prompt: the messages, or the
    text up to a space or an "Assistant:", with which both begin. Nothing for other values.

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
    return (
        {"prompt": chosen[:size], "chosen": chosen[size:], "rejected": rejected[size:]}
        if size
        else {}
    )


def shared_messages(chosen: Messages, rejected: Messages) -> list[Any]:
    """What two conversations begin with, up to the first answer in which one of them has its
    response.

    >>> u, a, b = ({"role": r, "content": c} for r, c in (("user", "?"), ("assistant", "a"), ("assistant", "b")))
    >>> shared_messages([u, a, u, a], [u, a, u, b]) == [u, a, u], shared_messages([u, a], [u, a]) == [u]
    (True, True)
    """
    shorter = min(len(chosen), len(rejected))
    same = next((i for i in range(shorter) if chosen[i] != rejected[i]), shorter)
    while same and (same == shorter or chosen[same - 1].get("role") == "assistant"):
        same -= 1
    return list(chosen[:same])
