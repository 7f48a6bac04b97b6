"""What a word like `FILE.py:NAME` names: an object of the user's own, from a file of theirs.

The file runs with the user's rights, as a script of theirs would; whether a *run* may name it is
decided in `trust.py`. Left out: reward functions, which run in a process of their own
(`rewards/user.py`).
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from logpi.errors import UserError, did_you_mean


def is_user_code(word: str) -> bool:
    """Whether a word names an object of a Python file.

    >>> is_user_code("mine.py:Maze"), is_user_code("CartPole-v1"), is_user_code("model:dir")
    (True, False, False)
    """
    path, colon, name = word.rpartition(":")
    return bool(colon) and path.endswith(".py") and name.isidentifier()


def from_user_code(word: str) -> Any:
    """The object that `FILE.py:NAME` names. A file is run once in a process.

    Raises:
        UserError: no such file, the file raises, or it has no such name.
    """
    path, _, name = word.rpartition(":")
    module = _module(Path(path).expanduser().resolve())
    if name not in vars(module):
        own = [k for k in vars(module) if not k.startswith("_")]
        raise UserError(f"{path} has no {name!r}{did_you_mean(name, own)}")
    return vars(module)[name]


@cache
def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    name = f"logpi_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A file may import its neighbours; dataclasses and pickle look their module up by name.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    return module
