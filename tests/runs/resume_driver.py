"""Runs `logpi ARGS…` and kills its own process with SIGKILL at a chosen moment: python
tests/runs/resume_driver.py WHERE COUNT ARGS…

WHERE is rollout, update, log or write (a file of a checkpoint); COUNT says at which call of it.
"never" lets the run end.
"""

import os
import signal
import sys

from logpi.cli import main
from logpi.rollouts import text_rollout as text
from logpi.runs import checkpoint, directory
from logpi.updates import sgd as update

PLACES = {
    "rollout": (text.TextRollout, "_group"),  # half of a batch is sampled
    "update": (update.SGD, "_step"),  # between two optimiser steps of one update
    "log": (directory.Run, "samples"),  # metrics are written, samples and checkpoint are not
    "write": (checkpoint, "_save_tensors"),  # half of the files of a checkpoint are there
}


def kill_at(where: str, count: int) -> None:
    owner, name = PLACES[where]
    original, calls = getattr(owner, name), [0]

    def counted(*args, **kwargs):
        calls[0] += 1
        if calls[0] == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


if __name__ == "__main__":
    if sys.argv[1] != "never":
        kill_at(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
