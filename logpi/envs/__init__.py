"""Environments: what a policy acts in.

    task.py           tasks; endless rows that are a function of (seed, split, i)
    tasks/            problems with verifiable answers; `task(...)` takes words and objects
    data.py           the user's own rows, from files, the hub and objects in memory
    benchmarks.py     published benchmarks' files
    conversation.py   environments that reply; tools/ has the tools that a policy may call
    control/          Gymnasium

Left out: sampling (`rollouts/`), judging (`rewards/`).
"""

from logpi.envs.data import RowsTask, load_rows
from logpi.envs.task import GeneratedRows, Row, Task
from logpi.envs.tasks import NAMES, task

__all__ = ["NAMES", "RowsTask", "Row", "GeneratedRows", "Task", "load_rows", "task"]
