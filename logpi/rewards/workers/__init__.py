"""What runs in worker processes, and the pool that starts and kills them.

    processes.py   the main process's side: workers, deadlines, restarts
    worker.py      a worker: loads one function of one file and answers calls
    patterns.py    regular expressions and JSON schemas     symbolic.py   answers that take digits
    reasoning.py   reasoning-gym's scorers

A worker puts the directory of its file on the path. These files have a directory of their own so
that `rewards/math.py` and `rewards/code.py` do not hide the standard library's modules.
"""
