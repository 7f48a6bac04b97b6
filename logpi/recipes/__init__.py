"""Flat, runnable jobs: the command line is exactly these. Each is a frozen dataclass of arguments and a `main(argv)`.

What they have in common is in `common.py`; what they compose is the library. No mathematics here.
"""
