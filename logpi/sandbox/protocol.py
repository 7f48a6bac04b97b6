"""The protocol of a sandbox, and its nouns: a program's limits, its result, its tests' verdict.

Left out: this machine's sandbox (`local.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


class SandboxError(ValueError):
    """No sandbox works on this machine. The message is one line with the reason and the remedy."""


@dataclass(frozen=True)
class ProgramLimits:
    """The limits of one program. It is one process, so the limits of memory and CPU are exact.

    Attributes:
        seconds: the wall-clock time.
        cpu: the CPU time of all threads in seconds, rounded up; 0 for as many as `seconds`. A
            verdict should rest on this limit, since a busy machine stretches the wall clock.
        idle: the seconds in which no thread wants the CPU; 0 for as many as `seconds`.
        memory: bytes of address space. Python without imports takes about 50 MB.
        output: bytes of standard output and error, each. A program that writes more is killed.
        files: bytes in its private /tmp, which disappears with it.
        threads: threads at a time.

    Raises:
        ValueError: a limit that is not positive.
    """

    seconds: float = 10.0
    memory: int = 512 << 20
    output: int = 64 << 10
    files: int = 16 << 20
    threads: int = 64
    cpu: float = 0.0
    idle: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0 or (value == 0 and name not in ("cpu", "idle")):
                raise ValueError(f"sandbox limit {name} must be positive, got {value}")

    @property
    def cpu_seconds(self) -> int:
        """The limit of CPU time in whole seconds, as the kernel takes it."""
        return math.ceil(self.cpu) if self.cpu else math.floor(self.seconds) + 1


@dataclass(frozen=True)
class ProgramResult:
    """How a program ended.

    Attributes:
        stdout, stderr: the output, at most `ProgramLimits.output` bytes of each. Undecodable bytes
            are replaced.
        status: ok | error (an exception, or exit code ≠ 0) | timeout | memory | output (too much) |
            killed (by a signal) | failed (the sandbox failed: the result is unknown).
        exit_code: None unless the program ended by itself.
        seconds: the wall-clock time.
    """

    stdout: str
    stderr: str
    status: str
    exit_code: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class ProgramVerdict:
    """The verdict of tests on a program.

    Attributes:
        passed, total: numbers of tests. A program that does not load, dies, hangs or breaks a limit
            fails its remaining tests.
        status: ok | wrong | error | timeout | memory | died; and without a verdict: invalid (the
            tests are at fault, or the truth is unknown) | failed (the sandbox is at fault) | late
            (the judge ran out of time).
        message: one line about the first failed test.
    """

    passed: int
    total: int
    status: str
    message: str = ""

    @property
    def decided(self) -> bool:
        """Whether there is a verdict on the program."""
        return self.status not in ("invalid", "failed", "late")


@runtime_checkable
class Sandbox(Protocol):
    """Runs untrusted programs: this machine's sandbox (`LocalSandbox`), or your own.

    Several threads call both methods at once. A program's errors never raise.
    """

    def run(self, code: str, stdin: str = "", limits: ProgramLimits | None = None) -> ProgramResult:
        """Run `code` as a Python script that reads `stdin`."""
        ...

    def judge(
        self,
        code: str,
        tests: Sequence[str],
        setup: str = "",
        entry_point: str = "",
        limits: ProgramLimits | None = None,
        classes: Sequence[str] = (),
    ) -> ProgramVerdict:
        """Run Python tests against the program `code`.

        Args:
            tests: assertions, unittest's classes or pytest's functions.
            setup: Python that runs before the tests.
            entry_point: the program's function under test; "" if the tests name it.
            classes: the names of the program's classes.
        """
        ...
