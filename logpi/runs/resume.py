"""Resuming a run: its latest checkpoint is loaded, and what was logged after it is dropped.

What a state holds is left out (`train.py`), and so is how a checkpoint is stored (`checkpoint.py`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from logpi.errors import RunError
from logpi.runs.metrics import read_metrics

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from logpi.runs.directory import Run
    from logpi.runs.ranks import JointRun

__all__ = ["resume"]

notices = logging.getLogger("logpi")


class Stateful(Protocol):
    """Has a state that can be saved and loaded."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def resume(
    run: Run | JointRun, training: Stateful, steps: int, mesh: DeviceMesh | None = None
) -> int:
    """Load the run's latest checkpoint into `training`; its step, or -1 if there is none.

    Args:
        mesh: where tensors in shards go (`sharding.mesh_of`); without it every rank reads them
            whole.
    Raises:
        RunError: the checkpoint is of another model or version, or has more than `steps` updates.
    """
    logged = {record["step"] for record in read_metrics(run.path)}
    latest = run.latest(mesh)
    if latest is None:
        if again := max(logged, default=0):
            notices.warning(
                "%s was ended before its first checkpoint: its %d steps are done again",
                run.path,
                again,
            )
        run.rewind(-1)
        return -1
    step, state = latest
    if step > steps:
        raise RunError(
            f"{run.path} has {step} updates, more than the {steps} that it shall have: ask for"
            " more, or leave it as it is"
        )
    try:
        _check_numbers(training.state_dict(), state)
        training.load_state_dict(state)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RunError(
            f"the checkpoint of step {step} in {run.path} is of another model or version: "
            f"{type(error).__name__}: {error}"
        ) from error
    lost = sorted(set(range(1, step + 1)) - logged)
    if lost:
        notices.warning(
            "%s has lost %d of %d steps, the first of them step %d; the run goes on without their"
            " numbers",
            run.path / "metrics.jsonl",
            len(lost),
            step,
            lost[0],
        )
    run.rewind(step)
    return step


def _check_numbers(current: Any, saved: Any) -> None:
    """Where the current state has a number or a dict, the checkpoint must have one too.

    Raises:
        TypeError, ValueError, AttributeError: it has not.
    """
    if isinstance(current, dict):
        for key in current.keys() & saved.keys():
            _check_numbers(current[key], saved[key])
    elif type(current) in (int, float) and not isinstance(
        saved, int if type(current) is int else int | float
    ):
        raise TypeError(f"{saved!r} is not a number like {current!r}")
    elif type(current) is int and abs(current) < 2**63 <= abs(saved):
        raise ValueError(f"{saved} where there was {current}")
