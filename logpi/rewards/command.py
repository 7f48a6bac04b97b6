"""Any external checker as a reward: a command that reads a completion and answers with its exit
code or a number.

    command("lean --stdin")                       1 if it exits with 0
    command("./judge {file}", score=True)         the last line that it prints, as a number

The command is the user's own and is trusted; the completion is not. The command reads it from a
file or standard input, without a shell, with limits on time, memory and output, in a temporary
directory. A relative path of an existing file (`./judge`, `checks/run.py`) is resolved when the
reward is made. Left out: confinement of the command (put `bwrap …` or `docker run …` in front if it
runs what it reads).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logpi.distributed import cores
from logpi.rewards.text import text_of
from logpi.rewards.workers.processes import Failure


@dataclass(frozen=True)
class CommandReward:
    """A command's verdict: 1 for exit code 0, 0 for exit code 1, or the last number it prints.

    Another exit code, a signal, a broken limit, or a missing number gives no verdict. Standard
    input holds the completion, or with `json_input` one line of JSON:
    {"prompt": …, "completion": …, "row": {…}}.

    Attributes:
        command: the program and its arguments; {file} becomes the path of a file with the
            completion.
        words: the same, with paths resolved.
        score: the last printed line is the reward.
        suffix: the suffix of that file, for programs that need one (.lean, .v).
        seconds: the limit of wall-clock time.
        memory: the limit of address space of a process, in MiB.
        output: the limit of output in bytes.
        workers: commands that run at a time; 0 for one a core.

    Raises:
        ValueError: no such program or file, an empty command, an open quote.

    >>> CommandReward("grep -q 42")(prompts=["?"] * 2, completions=["It is 42.", "It is 7."])
    [1.0, 0.0]
    """

    command: str
    score: bool = False
    json_input: bool = False
    suffix: str = ".txt"
    seconds: float = 30.0
    memory: int = 4096
    output: int = 1 << 20
    workers: int = 0
    name: str = "command"
    words: tuple[str, ...] = field(default=(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise ValueError(f"command: cannot read {self.command!r}: {error}") from None
        if not words:
            raise ValueError('command: give a program, as command("lean --stdin")')
        program = shutil.which(words[0])
        if program is None:
            raise ValueError(
                f"command: there is no program {words[0]!r} to run (not on the PATH, or not"
                " executable)"
            )
        object.__setattr__(
            self, "words", (str(Path(program).absolute()), *map(_resolved, words[1:]))
        )

    def __call__(
        self, prompts, completions, completion_ids=None, **columns
    ) -> list[float | Failure | None]:
        rows = [{k: v[i] for k, v in columns.items()} for i in range(len(completions))]
        with ThreadPoolExecutor(self.workers or cores()) as threads:
            return list(threads.map(self._one, prompts, map(text_of, completions), rows))

    def _one(self, prompt: Any, text: str, row: Mapping[str, Any]) -> float | Failure:
        sent = (
            json.dumps({"prompt": prompt, "completion": text, "row": row}, default=str) + "\n"
            if self.json_input
            else text
        )
        with tempfile.TemporaryDirectory(prefix="logpi-") as home:
            file = Path(home, f"completion{self.suffix}")
            file.write_text(text, "utf-8", errors="replace")
            words = [w.replace("{file}", str(file)) for w in self.words]
            with tempfile.TemporaryFile() as stdin:
                stdin.write(sent.encode(errors="replace"))
                stdin.seek(0)
                return self._verdict(*self._run(words, stdin, home))

    def _run(self, words: list[str], stdin: Any, home: str) -> tuple[int | None, bytes]:
        """The exit code (None if a limit was broken) and the output."""
        ulimit = 'ulimit -v "$0" && ulimit -c 0 && exec "$@"'
        limit = ["/bin/sh", "-c", ulimit, str(self.memory << 10)]
        process = subprocess.Popen(
            [*limit, *words],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=home,
            start_new_session=True,
        )
        out, deadline = b"", time.monotonic() + self.seconds
        assert process.stdout
        with selectors.DefaultSelector() as selector, process.stdout:
            selector.register(process.stdout, selectors.EVENT_READ)
            while len(out) <= self.output and selector.select(
                max(0.0, deadline - time.monotonic())
            ):
                data = os.read(process.stdout.fileno(), 1 << 16)
                if not data:
                    break
                out += data
            late = len(out) > self.output or time.monotonic() >= deadline
            try:
                code = None if late else process.wait(max(0.01, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                code = None
        # the command may have ended and left processes in its session
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return code, out

    def _verdict(self, code: int | None, out: bytes) -> float | Failure:
        lines = out.decode(errors="replace").strip().splitlines()
        last = lines[-1][:200] if lines else ""
        if code is None:
            limits = f"{self.seconds:g} s and {self.output} bytes of output"
            return Failure("hung", f"no end within {limits}; it was killed")
        if not self.score and code in (0, 1):
            return float(code == 0)
        if code != 0:
            return Failure("died", f"exit code {code}: {last}")
        try:
            number = float(last)
        except ValueError:
            return Failure("type", f"expected a number on the last line, got {last!r}")
        return number if math.isfinite(number) else Failure("nan", f"printed {number}")


def _resolved(word: str) -> str:
    """The absolute path of a file that the word names by a relative path; any other word as it is.

    A word without a slash or a dot is not a path: `42` may be a file, and is a pattern to `grep`.
    """
    exists = Path(word).exists()
    if word.startswith(("./", "../")) and "{file}" not in word and not exists:
        raise ValueError(f"command: there is no file {word!r} in {Path.cwd()}")
    return str(Path(word).absolute()) if exists and ("/" in word or "." in word) else word
