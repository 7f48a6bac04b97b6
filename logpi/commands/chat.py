"""`logpi chat`: talk to a model. With a chat template it remembers the conversation; without one
each line is a prompt.

Left out: tools, and keeping what was said.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from logpi.errors import as_user_errors
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option
from logpi.jobs.options.model import ModelArguments


@dataclass(frozen=True, kw_only=True)
class ChatWith(ModelArguments):
    """Arguments of `logpi chat`."""

    temperature: float = option(
        0.7, help="of sampling; 0 takes the likeliest token each time", least=0, most=1000
    )
    top_p: float = option(
        0.95, help="sample from the likeliest tokens of this total probability", above=0, most=1
    )
    max_completion_length: int = option(
        512, help="tokens after which an answer is cut off", least=1, most=2**24
    )
    seed: int = option(0, help="of sampling", least=0)


def main(argv: Sequence[str]) -> int:
    a = parse(
        ChatWith,
        argv,
        "logpi chat",
        "Talk to a model. One line is one message; /reset forgets, Ctrl-D ends.",
    )
    import torch

    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Request, Sampling

    greedy = a.temperature < 1e-3
    with as_user_errors():
        policy = a.load(temperature=1.0 if greedy else a.temperature)
        template = a.template(policy)
        sampling = Sampling(top_p=a.top_p, max_tokens=a.max_completion_length)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # half a character, which no tokenizer takes
    engine, generator = Engine(policy, slots=1), torch.Generator().manual_seed(a.seed)
    history: list[dict[str, str]] = []
    while (line := _line()) is not None:
        if line.strip() == "/reset":
            history = []
            continue
        if not line.strip():
            continue
        if lack := policy.template.lack(line):
            print(f"{lack}; say it otherwise", file=sys.stderr)
            continue
        history = [*history, {"role": "user", "content": line}] if template.wrap else []
        with as_user_errors():
            prompt = template(policy, history if template.wrap else line)
            [[reply]] = engine.generate([Request(prompt, greedy=greedy)], sampling, generator)
        text = policy.template.decode(reply.tokens)
        print(text)
        history.append({"role": "assistant", "content": text})
    return 0


def _line() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        return None
