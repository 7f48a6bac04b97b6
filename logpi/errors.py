"""The two kinds of error that are shown to a user as one line.

Anything else that is raised is a fault of the library and keeps its traceback.
"""

from __future__ import annotations

__all__ = ["RunError", "UserError"]


class UserError(Exception):
    """A user's mistake (a misspelt name, a missing file). Its text is one line that says what to do about it."""


class RunError(UserError):
    """A run's directory cannot be made, read or written: disk full, permission lost, damaged, or in use."""
