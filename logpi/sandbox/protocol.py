"""What a sandbox is, and its nouns: the limits of a program, its result, the verdict of its tests.

Left out: the sandbox of this machine (`local.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


class SandboxError(ValueError):
    """There is no sandbox that holds here. Its text is one line that says why and what to do."""


@dataclass(frozen=True)
class ProgramLimits:
    """What one program may use. It is one process, so that memory and CPU limits are exact.

    Attributes:
        seconds: wall clock.
        cpu: seconds of CPU time of all its threads, rounded up; 0 for as many as `seconds`. A busy
            machine stretches the wall clock alone, so a verdict should rest on this.
        idle: seconds in which no thread of it wants the CPU; 0 for as many as `seconds`.
        memory: bytes of address space. A Python without imports takes about 50 MB of it.
        output: bytes of standard output and error, each; a program that writes more is ended.
        files: bytes in its private /tmp, which is gone with it.
        threads: at once.

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
        """The limit as the kernel takes it, whole seconds."""
        return math.ceil(self.cpu) if self.cpu else math.floor(self.seconds) + 1


@dataclass(frozen=True)
class ProgramResult:
    """How a program ended.

    Attributes:
        stdout, stderr: its output, at most `ProgramLimits.output` bytes of each; undecodable bytes
            are replaced.
        status: ok | error (it raised, or exit code ≠ 0) | timeout | memory | output (it wrote too
            much) | killed (by a signal) | failed (the sandbox failed: nothing is known of it).
        exit_code: None unless it ended by itself.
        seconds: wall clock.
    """

    stdout: str
    stderr: str
    status: str
    exit_code: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class ProgramVerdict:
    """What tests say of a program.

    Attributes:
        passed, total: tests. A program that does not load, dies, hangs or breaks a limit fails what
            it had not passed.
        status: ok | wrong | error | timeout | memory | died; and without a verdict: invalid (the
            tests are at fault, or it cannot be known) | failed (the sandbox is) | late (the judge
            ran out of time).
        message: one line about the first test that did not pass.
    """

    passed: int
    total: int
    status: str
    message: str = ""

    @property
    def decided(self) -> bool:
        """Whether this says anything about the program."""
        return self.status not in ("invalid", "failed", "late")


@runtime_checkable
class Sandbox(Protocol):
    """What runs programs that nobody has read: this machine's (`LocalSandbox`), or one of your own.

    Both methods are called from several threads at once and never raise for what a program does.
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
            setup: Python that runs before them.
            entry_point: the program's function under test; "" if the tests name it themselves.
            classes: names of classes that the program defines.
        """
        ...
