"""A run that several ranks make together: the first rank writes it, and all read it alike.

    with joint_run(lambda: Run.create("runs/mine", "rl", arguments)) as run:
        run.log(step, metrics)                  # written once
        run.checkpoint(step, state)             # every rank calls it: it may hold shards
        found = run.latest()                    # the same on every rank

Left out: how a checkpoint is stored (`checkpoint.py`), and the directory itself (`directory.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.distributed.world import World, current
from logpi.runs import checkpoint
from logpi.runs.history import History

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from logpi.runs.directory import Run

__all__ = ["JointRun", "joint_run"]


def joint_run(make: Callable[[], Run]) -> Run | JointRun:
    """The run that the first rank makes or opens; a plain `Run` if it is alone.

    Raises:
        RunError, UserError: on every rank, what `make` raised on the first.
    """
    world = current()
    return make() if world.size == 1 else JointRun(world, make)


class JointRun:
    """A run as each of several ranks holds it. Methods as of `Run`; every rank calls them."""

    def __init__(self, world: World, make: Callable[[], Run]) -> None:
        self.world = world
        self.run: Run | None = None  # on the first rank

        def begin() -> tuple[Path, str, Mapping[str, Any]]:
            self.run = make()
            return self.run.path, self.run.command, self.run.arguments

        self.path, self.command, self.arguments = world.by_first(begin)
        self.model, self.history = self.path / "model", History(self.path)

    def __enter__(self) -> JointRun:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.run is not None:
            self.run.__exit__(kind, error, trace)

    def rearrange(self, arguments: Mapping[str, Any]) -> None:
        self.arguments = dict(arguments)
        self._first(lambda run: run.rearrange(arguments))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self.run is not None:
            self.run.log(step, values)

    def samples(self, step: int, rows: Iterable[Mapping[str, Any]], kind: str = "step") -> None:
        if self.run is not None:
            self.run.samples(step, rows, kind)

    def keep(self, files: Mapping[str, bytes]) -> None:
        self._first(lambda run: run.keep(files))

    def checkpoint(self, step: int, state: Any, keep: int = 2, best: bool = False) -> None:
        directory, about = self.history.directory(step), {"step": step, "best": best}
        self._first(lambda run: run.sync(step))
        checkpoint.save(state, directory, about, self._first(lambda run: run.advice()))
        self._first(lambda run: run.prune(keep))

    def save_model(self, save: Callable[[Path], object]) -> Path:
        """`save` is called on every rank, for weights may be in shards; the first one writes."""
        with ExitStack() as stack:
            begin = lambda run: stack.enter_context(run.model_replaced())  # noqa: E731
            partial = self._first(begin)
            self.world.together(lambda: save(partial))
            self._first(lambda run: stack.close())
        return self.model

    def latest(self, mesh: DeviceMesh | None = None) -> tuple[int, Any] | None:
        return self.history.newest(mesh)

    def best(self, mesh: DeviceMesh | None = None) -> tuple[int, Any] | None:
        return self.history.best(mesh)

    def rewind(self, step: int) -> None:
        self._first(lambda run: run.rewind(step))

    def _first(self, work: Callable[[Run], Any]) -> Any:
        """What the first rank's `work` returns; what it raises, on every rank."""
        return self.world.by_first(lambda: work(self.run) if self.run is not None else None)
