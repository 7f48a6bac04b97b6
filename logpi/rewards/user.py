"""A reward function from the user's own Python file, run in a process that can be killed.

The function is called on the whole batch; if that raises, hangs or dies, it is called again on each
sample alone, so that only the guilty samples are lost (`workers/processes.py` kills and restarts).
Left out: protection from a hostile *file*. It is the user's code and has the user's rights; code
that a policy wrote belongs in a sandbox (`code.py`).
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

    def __call__(self, prompts, completions, completion_ids=None, **columns) -> list[Verdict]:
        return list(self.judge(Samples(prompts, completions, completion_ids, columns)).verdicts)

    def judge(self, samples: Samples) -> Judgement:
        """What the function says of each sample; never raises."""
        with self._lock:
            batch = partial(self._ask, seconds=self.batch_timeout)
            alone = partial(self._ask, seconds=self.timeout)
            return judged(samples, batch, alone, self.patience)

    def _ask(self, samples: Samples, seconds: float) -> Judgement | Failure:
        return Judgement.of(self._process.ask(samples.pickled(), seconds))

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
    if not function:
        known = ", ".join(names) or "nothing"
        raise ValueError(f"reward file {path} needs a function name: {path}:NAME; it has: {known}")
    if function not in names:
        raise ValueError(
            f"reward file {path} has no function {function!r}; {nearest(function, names)}"
        )
    return UserReward(str(file.resolve()), function, **{"name": function, **options})
