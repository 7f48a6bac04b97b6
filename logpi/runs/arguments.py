"""The record that makes a directory a run: `arguments.json`, its command and every argument.

It loads no torch, so that a viewer may read it. Left out: writing it (`directory.py`), whose it is
(`trust.py`), and what an argument means (each job's options).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from logpi.errors import RunError
from logpi.runs import disk


def read_arguments(path: str | Path, command: str = "") -> tuple[str, dict[str, Any]]:
    """The command and the arguments of a run, e.g. to repeat it.

    Raises:
        RunError: there is no run at `path`, its arguments cannot be read, or it is not of `command`
            (if given).
    """
    record = read_record(Path(path))
    if command and record["command"] != command:
        raise RunError(f"{path} is a run of `logpi {record['command']}`, not of `logpi {command}`")
    return record["command"], record["arguments"]


def read_record(path: Path) -> dict[str, Any]:
    """The whole record of the run at `path`, with its signature. Errors as of `read_arguments`."""
    file = path / "arguments.json"
    with disk.reported(f"read {file}"):
        if not file.exists():
            raise RunError(f"there is no run at {path} (it has no arguments.json)")
        if not file.is_file():
            raise RunError(f"cannot read {file}: it is not a file")
        try:
            record = json.loads(file.read_bytes())
            sound = re.fullmatch("[a-z0-9-]+", record["command"]) and isinstance(
                record["arguments"], dict
            )
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise RunError(f"cannot read {file}: {type(error).__name__}: {error}") from None
    if not sound:
        raise RunError(f"cannot read {file}: it holds no command with arguments")
    return record
