"""Files that run apart, each in a worker process (`processes.py`) that can be killed: imported by
the library only where they are light (`patterns.unknown`).

They lie in a directory of their own because a worker puts its file's directory on the path, where
this package's `math.py` and `code.py` would stand before the standard library's.
"""
