"""A reward function from the user's own Python file, run in a process that can be killed.

The function is called on the whole batch. If the call raises, hangs or dies, the function is called
on each sample alone, so only the guilty samples are lost (`workers/processes.py` kills and
restarts). Left out: protection from a hostile *file*, which is the user's code and has the user's
rights. A policy's code belongs in a sandbox (`code.py`).
"""

from __future__ import annotations

import ast
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from logpi.errors import nearest
from logpi.rewards.samples import Judgement, Samples, Verdict, judged
from logpi.rewards.workers.processes import Failure, Process


@dataclass(frozen=True)
class UserReward:
    """The function `function` of the Python file `path`, with TRL's signature or verl's.

    A call gives one `float | None | Failure` for each completion and never raises. Call `start`
    before any work: it raises if the file does not load.

    Attributes:
        timeout: seconds for one sample.
        batch_timeout: seconds for a whole batch.
        patience: the number of killed processes after which the other samples of a batch are given
            up.
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

    def __call__(self, prompts, completions, completion_ids=None, **columns) -> list[Verdict]:
        return list(self.judge(Samples(prompts, completions, completion_ids, columns)).verdicts)

    def judge(self, samples: Samples) -> Judgement:
        """The function's judgement on the samples; never raises."""
        with self._lock:
            batch = partial(self._ask, seconds=self.batch_timeout)
            alone = partial(self._ask, seconds=self.timeout)
            return judged(samples, batch, alone, self.patience)

    def _ask(self, samples: Samples, seconds: float) -> Judgement | Failure:
        return Judgement.of(self._process.ask(samples.pickled(), seconds))

    def start(self) -> tuple[str, ...]:
        """Load the file now; the columns that the function requires.

        Raises:
            ValueError: the file does not load (a missing import, an exception, …), in its own
                words.
        """
        with self._lock:
            self._process.start()
            return self._process.needs

    def close(self) -> None:
        """End the worker process; the next call starts another."""
        self._process.kill()


def _functions(path: Path) -> list[str]:
    """The names that a file's top level binds, read without running it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid Python: {error}") from None
    definitions: list[str] = []
    imports: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            definitions.append(node.name)
        elif isinstance(node, ast.Assign):
            definitions += [t.id for t in node.targets if isinstance(t, ast.Name)]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imports += [a.asname or a.name for a in node.names]
    return definitions + imports


def user_reward(spec: str, **options: Any) -> UserReward:
    """A reward from `"path/to/file.py:function"`; `options` are `UserReward`'s (`timeout=…`).

    The function has TRL's signature, `f(prompts, completions, completion_ids, **columns) ->
    list[float | None]`, plain or async, or verl's, `compute_score(data_source, solution_str,
    ground_truth, extra_info) -> float | dict`. It names only the arguments that it uses. This call
    checks the file; the first call of the reward loads it.

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
    if not function:
        known = ", ".join(names) or "nothing"
        raise ValueError(f"reward file {path} needs a function name: {path}:NAME; it has: {known}")
    if function not in names:
        raise ValueError(
            f"reward file {path} has no function {function!r}; {nearest(function, names)}"
        )
    return UserReward(str(file.resolve()), function, **{"name": function, **options})
