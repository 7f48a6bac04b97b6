"""What makes a run: flat, runnable jobs. Each is a frozen dataclass of arguments and a
`main(argv)`.

Groups of arguments that jobs share are in `options/`, a run's beginning and end in `common.py`. No
mathematics here.
"""
