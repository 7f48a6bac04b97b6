"""Environments: what a policy acts in.

    task.py     what a task is; endless rows that are a function of (seed, split, i)
    tasks/      generators of problems with verifiable answers; `task(...)`, which takes words and
                objects
    data.py     the user's own rows, from files, the hub and objects in memory
    tools/      what a policy may call while it writes
    control/    Gymnasium

Left out here: sampling (`rollouts`), and judging (`rewards`).
"""

from logpi.envs.data import RowsTask, load_rows
from logpi.envs.task import GeneratedRows, Row, Task
from logpi.envs.tasks import NAMES, task

__all__ = ["NAMES", "RowsTask", "Row", "GeneratedRows", "Task", "load_rows", "task"]
