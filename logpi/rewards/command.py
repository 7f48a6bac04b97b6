"""Any external checker as a reward: a command that reads a completion and answers with its exit
code or a number.

    command("lean --stdin")                       1 if it exits with 0
    command("./judge {file}", score=True)         the last line that it prints, as a number

The command is the user's own and is trusted; what it reads is not: it gets a file or standard
input, never a shell, with limits on time, memory and output, in a directory of its own that is gone
afterwards. A relative path of a file that is there when the reward is made (`./judge`,
`checks/run.py`) is that file wherever the command runs. Left out: confinement of the command itself
(put `bwrap …` or `docker run …` in front of it if it runs what it reads).
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

from logpi.rewards.text import text_of
from logpi.rewards.workers.processes import Failure


@dataclass(frozen=True)
class CommandReward:
    """What a command says of a completion: 1 for exit code 0 and 0 for 1, or the number it prints
    last.

    Another exit code, a signal, a broken limit, or no number where one is expected leave no
    verdict. Standard input holds {"prompt": …, "completion": …, "row": {…}} as one line of JSON if
    `json_input`, else the completion alone.

    Attributes:
        command: program and arguments; {file} becomes the path of a file with the completion.
        words: the same, paths resolved.
        score: take the last printed line as the reward.
        suffix: of that file, for programs that look at it (.lean, .v).
        seconds: wall clock. memory: MiB of address space a process. output: bytes read. workers: at
            a time.

    Raises:
        ValueError: no such program or file, an empty command, a quote that does not end.

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
        with ThreadPoolExecutor(self.workers or os.cpu_count() or 1) as threads:
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
        """Exit code (None: late, or too talkative) and output."""
        limit = [
            "/bin/sh",
            "-c",
            'ulimit -v "$0" && ulimit -c 0 && exec "$@"',
            str(self.memory << 10),
        ]
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
        _end(process)
        return code, out

    def _verdict(self, code: int | None, out: bytes) -> float | Failure:
        said = out.decode(errors="replace").strip().splitlines()
        last = said[-1][:200] if said else ""
        if code is None:
            return Failure(
                "hung",
                f"no end within {self.seconds:g} s and {self.output} bytes of output; it was"
                " killed",
            )
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
    """An argument that names a file by a relative path, from where the user stands now; any other
    word as it is.

    A word without a slash or a dot is no path: `42` may be a file here, and is a pattern to `grep`.
    """
    if word.startswith(("./", "../")) and "{file}" not in word and not Path(word).exists():
        raise ValueError(f"command: there is no file {word!r} in {Path.cwd()}")
    return (
        str(Path(word).absolute()) if ("/" in word or "." in word) and Path(word).exists() else word
    )


def _end(process: subprocess.Popen) -> None:
    """Kill the command and whatever it started in its session."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
