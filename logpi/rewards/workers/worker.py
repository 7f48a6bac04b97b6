"""The process in which a user's reward function runs, so that a hang or a crash there costs a
sample and not the run.

Started as a script (`python worker.py FILE FUNCTION [BYTES]`), with the standard library only: it
starts in a few hundredths of a second, and never imports the training program's own main module as
`multiprocessing` would.
It reads pickled calls from its standard input and answers in JSON: what a policy wrote may reach
the user's function, and must not come back to the trainer as a pickle. Left out: deadlines and
restarts, which are the parent's (`processes.py`).

Frames, both ways: 8 bytes of length, big endian, then the body.
    first answer    {"needs": ["solution", ...]}: the columns that the function cannot do without; or {"failed": ...}
    call            seconds of CPU time it may take (a double; 0: no limit), then a pickle of
                    (prompts, completions, completion_ids, columns)
    answer          {"verdicts": [1.0, null, {"kind": "type", "message": "..."}]} or {"failed": {"kind", "message"}}
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import math
import os
import pickle
import resource
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import IO, Any

HEADER, LIMIT = struct.Struct(">Q"), struct.Struct(">d")
LARGEST = 1e15  # of a reward: beyond, a group's spread is infinite in float32, and nothing would be learned without a word


def write_frame(stream: IO[bytes], body: bytes) -> None:
    stream.write(HEADER.pack(len(body)) + body)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes:
    """The next body. Raises EOFError when the other side is gone."""
    header = stream.read(HEADER.size)
    body = stream.read(HEADER.unpack(header)[0]) if len(header) == HEADER.size else b""
    if not header or len(body) < HEADER.unpack(header)[0]:
        raise EOFError
    return body


def describe(error: BaseException) -> str:
    """One line: the error's type and message, and the last line of the user's file that it came
    through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    try:
        said = str(error)[:300]
    except Exception:  # strangers' exceptions may not even be able to say what they are
        said = "(it cannot say what)"
    return f"{type(error).__name__}: {said}".replace("\n", " ") + where


def reply(result: Any, count: int, judge: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """What a function returned for `count` completions as the answer to its call: a verdict for
    each (`judge`, or `verdict`, of each value), or what is wrong with it all.

    Raises what a generator raises.

    >>> reply((1, True), 2), reply(0.5, 2)["failed"]["kind"], reply([0.5], 2)["failed"]["kind"]
    ({'verdicts': [1.0, 1.0]}, 'type', 'length')
    """
    expected = f"for {count} completions: expected a list with a number or None for each"
    if isinstance(result, str | bytes | dict | set | frozenset) or not _several(result):
        return {
            "failed": {"kind": "type", "message": f"returned {type(result).__name__} {expected}"}
        }
    values = list(result)
    if len(values) != count:
        return {
            "failed": {"kind": "length", "message": f"returned {len(values)} rewards {expected}"}
        }
    return {"verdicts": [(judge or verdict)(v) for v in values]}


def _several(result: Any) -> bool:
    try:
        iter(result)
    except TypeError:  # a number, None, a tensor without axes
        return False
    return True


def verdict(value: Any) -> float | dict[str, str] | None:
    """A reward as a finite float, None, or what is wrong with it. Takes one number in NumPy's or
    torch's wrapping."""
    if value is None:
        return None
    try:
        value = getattr(value, "item", lambda: value)()
        number = None if isinstance(value, str | bytes) else float(value)
    except Exception:
        number = None
    if number is None:
        return {"kind": "type", "message": f"expected a number or None, got {type(value).__name__}"}
    if not math.isfinite(number):
        return {"kind": "nan", "message": f"returned {number}"}
    if abs(number) > LARGEST:
        return {
            "kind": "huge",
            "message": (
                f"returned {number:g}; rewards are float32, and squared: at most {LARGEST:g}"
            ),
        }
    return number


def from_verl(compute_score: Callable[..., Any]) -> Callable[..., list[Any]]:
    """verl's `compute_score(data_source, solution_str, ground_truth, extra_info)` as a function of
    our signature.

    `ground_truth` is the row's `answer`; a dict returned by the function counts by its `score`.
    """

    def score(
        prompts,
        completions,
        completion_ids=None,
        *,
        answer,
        data_source=None,
        extra_info=None,
        **columns,
    ):
        none = [None] * len(completions)
        rows = zip(data_source or none, completions, answer, extra_info or none, strict=True)
        results = [
            compute_score(
                data_source=source, solution_str=_text(c), ground_truth=gold, extra_info=extra
            )
            for source, c, gold, extra in rows
        ]
        return [r["score"] if isinstance(r, dict) else r for r in results]

    return score


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    return "\n".join(
        str(m.get("content") or "") for m in completion if m.get("role", "assistant") == "assistant"
    )


def load(path: str, name: str) -> Callable[..., Any]:
    """The function `name` of the Python file at `path`, adapted if it has verl's signature."""
    spec = importlib.util.spec_from_file_location("user_reward", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["user_reward"] = module
    sys.path.insert(
        0, os.path.dirname(os.path.abspath(path))
    )  # its neighbours import as they do for the user
    spec.loader.exec_module(module)
    function = getattr(module, name)
    return (
        from_verl(function)
        if "solution_str" in inspect.signature(function).parameters
        else function
    )


def answer(
    function: Callable[..., Any], call: tuple, judge: Callable[[Any], Any] | None = None
) -> dict[str, Any]:
    """The reply to one call; never raises."""
    prompts, completions, completion_ids, columns = call
    count = len(completions)  # now: the function may change its lists
    try:
        given = {
            "prompts": prompts,
            "completions": completions,
            "completion_ids": completion_ids,
            **columns,
        }
        result = function(**_accepted(function, given))
        if inspect.isawaitable(result):
            result = asyncio.run(_finish(result))
        return reply(result, count, judge)
    except Exception as error:
        return {"failed": {"kind": "raised", "message": describe(error)}}


def _accepted(function: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """What of `given` the function takes: everything with `**columns`, otherwise the names it
    lists."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return given
    return {name: value for name, value in given.items() if name in parameters}


def needs(function: Callable[..., Any]) -> list[str]:
    """The columns among the function's arguments that have no default."""
    listed = inspect.signature(function).parameters.values()
    compulsory = [
        p.name
        for p in listed
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    return [name for name in compulsory if name not in ("prompts", "completions", "completion_ids")]


async def _finish(awaitable: Any) -> Any:
    return await awaitable


def _leave_with(parent: int) -> None:
    """End this process when its parent is gone, even while the user's function hangs."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main(path: str, name: str, memory: str = "0") -> None:
    if int(memory):
        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    calls, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what the user prints goes to the terminal, not between our frames
    try:
        function = load(path, name)
    except BaseException as error:
        failed = {"kind": "raised", "message": describe(error)}
        return write_frame(replies, json.dumps({"failed": failed}).encode())
    write_frame(replies, json.dumps({"needs": needs(function)}).encode())
    while True:
        try:
            call = read_frame(calls)
        except EOFError:
            return
        signal.setitimer(
            signal.ITIMER_PROF, *LIMIT.unpack_from(call)
        )  # SIGPROF ends the process, C code and all
        reply = answer(function, pickle.loads(call[LIMIT.size :]))
        signal.setitimer(signal.ITIMER_PROF, 0)
        write_frame(replies, json.dumps(reply).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
