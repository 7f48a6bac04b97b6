"""Code that runs in worker processes, and the pool that starts and kills them.

    processes.py   the main process's side: workers, deadlines, restarts
    worker.py      a worker: loads one function of one file and answers calls
    patterns.py    regular expressions and JSON schemas     symbolic.py   answers as mathematics
    reasoning.py   reasoning-gym's scorers

A worker puts the directory of its file on the path. In `rewards/` the files `math.py` and `code.py`
would hide the standard library's, so these files have a directory of their own. Left out: the
rewards themselves.
"""
