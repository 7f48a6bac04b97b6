"""Environments: what a policy acts in.

    task.py    what a task is; endless rows that are a function of (seed, split, i), train and test disjoint
    tasks/     seeded generators of problems with verifiable answers, and `task(...)`, which finds them by name
    data.py    the user's own rows, from files and from the hub

Left out here: sampling (`rollouts`), and judging (`rewards`).
"""

from logpi.envs.data import RowsTask, load_rows
from logpi.envs.task import GeneratedRows, Row, Task
from logpi.envs.tasks import NAMES, task

__all__ = ["NAMES", "RowsTask", "Row", "GeneratedRows", "Task", "load_rows", "task"]
