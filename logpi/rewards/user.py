"""A reward function from the user's own Python file, run in a process that can be killed.

The function is called on the whole batch; if that raises, hangs or dies, it is called again one
sample at a time, so that only the guilty samples are lost (`workers/processes.py` kills and
restarts). A call that does not return one value for each completion leaves the whole batch without
a verdict: whose the values are cannot be told. Left out: protection from a hostile *file*: this is
the user's code and has the user's rights; code written by
    a policy belongs in
a sandbox (`code.py`).
"""

from __future__ import annotations

import ast
import difflib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logpi.rewards.workers.processes import Failure, Process, call


@dataclass(frozen=True)
class UserReward:
    """The function `function` of the Python file `path`, called with TRL's signature or verl's
    `compute_score`.

    A call gives one `float | None | Failure` for each completion and never raises; `start` does, if
    the file does not load, and is what to call before any work is done.

    Attributes:
        timeout: seconds for one sample.
        batch_timeout: seconds for a whole batch.
        patience: after so many killed processes in one batch, its other samples are given up, not
            waited for.
    """

    path: str
    function: str
    name: str
    timeout: float = 10.0
    batch_timeout: float = 60.0
    patience: int = 8
    _process: Process = field(init=False, repr=False, compare=False)
    _lock: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "_process", Process(self.path, self.function))

    def __call__(
        self, prompts, completions, completion_ids=None, **columns
    ) -> list[float | Failure | None]:
        with self._lock:
            rows = _Samples(list(prompts), list(completions), completion_ids, columns)
            whole = self._ask(rows.call(slice(None)), self.batch_timeout)
            if isinstance(whole, list):
                return whole
            return [whole] * len(rows.completions) if whole.of_function else self._one_by_one(rows)

    def start(self) -> tuple[str, ...]:
        """Load the file now rather than at the first call; the columns that the function cannot do
        without.

        Raises:
            ValueError: the file cannot be loaded (a missing import, an exception, …), in its own
                words.
        """
        with self._lock:
            self._process.start()
            return self._process.needs

    def close(self) -> None:
        """End the worker process; the next call starts another."""
        self._process.kill()

    def _one_by_one(self, rows: _Samples) -> list[float | Failure | None]:
        verdicts: list[float | Failure | None] = []
        killed = 0
        for i in range(len(rows.completions)):
            if killed >= self.patience:
                verdicts.append(
                    Failure("given_up", f"after {killed} killed processes in this batch")
                )
                continue
            reply = self._ask(rows.call(slice(i, i + 1)), self.timeout)
            killed += isinstance(reply, Failure) and reply.kind in ("hung", "died")
            verdicts.append(reply if isinstance(reply, Failure) else reply[0])
        return verdicts

    def _ask(self, call: bytes, seconds: float) -> list[float | Failure | None] | Failure:
        reply = self._process.ask(call, seconds)
        if "failed" in reply:
            return Failure(**reply["failed"])
        return [Failure(**v) if isinstance(v, dict) else v for v in reply["verdicts"]]


@dataclass(frozen=True)
class _Samples:
    """The samples of one call, and any slice of them as the bytes that the worker reads."""

    prompts: list[Any]
    completions: list[Any]
    completion_ids: Any
    columns: dict[str, Any]

    def call(self, at: slice) -> bytes:
        ids = None if self.completion_ids is None else list(self.completion_ids)[at]
        columns = {name: list(values)[at] for name, values in self.columns.items()}
        return call(self.prompts[at], self.completions[at], ids, columns)


def _functions(path: Path) -> list[str]:
    """The names that the file's top level binds, found without running it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid Python: {error}") from None
    names = [
        n.name
        for n in tree.body
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    names += [
        t.id
        for n in tree.body
        if isinstance(n, ast.Assign)
        for t in n.targets
        if isinstance(t, ast.Name)
    ]
    imports = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    return names + [a.asname or a.name for n in imports for a in n.names]


def user_reward(spec: str, **options: Any) -> UserReward:
    """A reward from `"path/to/file.py:function"`; `options` are `UserReward`'s (`timeout=…`).

    The function has TRL's signature, `f(prompts, completions, completion_ids, **columns) ->
    list[float | None]`, plain or async, or verl's, `compute_score(data_source, solution_str,
    ground_truth, extra_info) -> float | dict`. It may name only the arguments that it uses. The
    file is checked here and loaded at the first call.

    Raises:
        ValueError: no such file, not Python, no such function in it.
    """
    path, colon, function = spec.rpartition(":")
    if not colon or not path.endswith(".py"):
        path, function = spec, ""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"reward file {path} does not exist; give it as path/to/file.py:function")
    names = _functions(file)
    if function not in names:
        close = difflib.get_close_matches(function, names, 1)
        hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(names) or 'nothing'}"
        problem = (
            f"has no function {function!r}" if function else f"needs a function name: {path}:NAME"
        )
        raise ValueError(f"reward file {path} {problem}; {hint}")
    return UserReward(str(file.resolve()), function, **{"name": function, **options})
