"""Whose run a directory is: its arguments may name code (a reward's file, a command, a module).

    sign    a record whose arguments name code gets a signature: HMAC-SHA256, by the user's own key
            (mode 0600, outside of every run), of the record and of the place where the run is
    allow   passes what names no code, and what is signed; asks on a terminal, refuses without one

    {"command": "rl", "arguments": {"rewards": ["judge.py:score"], …}, "signature": "5f1c…"}

A run that was moved, copied or edited, or whose key is lost, counts as a stranger's: the user is
asked once, and the run is signed when it is resumed.
Left out: models, data and checkpoints, which are read as plain data whoever made them
(`policies.loading`, `runs.checkpoint`).
"""

from __future__ import annotations

import hmac
import json
import os
import re
import secrets
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from logpi.errors import UserError

# Rather too much than too little: what matches is asked for. An escape may hide any of them:
# `--set zero.rewards=["x\\u002epy:f"]` is x.py:f once it is read as JSON.
_CODE = re.compile(
    r"\.py\b|\bcommand\b|\bmcp\b|\b(?:verifiers|openenv)\s*[(:]|\\[ux]", re.IGNORECASE
)
# The grid world's ends, cells and numbers, are no module in spite of their colons.
_CELLS = re.compile(r"terminals=[\d(),:.+\- ]*", re.ASCII)


def code_named(arguments: Mapping[str, Any]) -> list[str]:
    """The arguments that name what would be run: a file, a command, an MCP server, a
    module, a package's environment.

    >>> code_named({"env": "mine:Maze-v0", "rewards": ["exact", "judge.py:score"], "model": "m"})
    ['--env mine:Maze-v0', '--rewards judge.py:score']
    """
    texts = [(name, text) for name, value in arguments.items() for text in _texts(value)]
    # An old Gym's environment is named in an option: env_id=module:Env.
    modules = ("env", "env_options")
    texts = [(name, text) for name, text in texts if not _CELLS.fullmatch(text)]
    code = [(n, t) for n, t in texts if _CODE.search(_plain(t)) or (n in modules and ":" in t)]
    return [f"--{name.replace('_', '-')} {text}" for name, text in code]


def _plain(text: str) -> str:
    """As Python reads names: a wide `ｃ` is a `c`."""
    return unicodedata.normalize("NFKC", text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from (f"{name}={text}" for text in _texts(item))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def sign(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run at `path`, signed if its arguments name code (and a key has a place)."""
    key = _key(make=True) if code_named(record["arguments"]) else None
    return dict(record) if key is None else {**record, "signature": _signature(key, path, record)}


def allow(path: Path, record: Mapping[str, Any], trust: bool) -> None:
    """Let a run's arguments be carried out, or not.

    Raises:
        UserError: they name code, the user did not make the run here, does not trust it, and cannot
            be asked or says no.
    """
    named = code_named(record["arguments"])
    if not named or trust or _own(path, record):
        return
    warning = (
        f"{path} was not made by you (or was moved or edited since), and its arguments run code:"
        f" {_shown(named)}"
    )
    if sys.stdin.isatty() and sys.stderr.isatty():
        print(f"{warning}\nRun it? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            return
    raise UserError(f"{warning}; if you know what it is, add --trust")


def _own(path: Path, record: Mapping[str, Any]) -> bool:
    key, signature = _key(make=False), record.get("signature")
    if key is None or not isinstance(signature, str):
        return False
    return hmac.compare_digest(
        signature.encode(errors="replace"), _signature(key, path, record).encode()
    )


def _signature(key: bytes, path: Path, record: Mapping[str, Any]) -> str:
    what = [str(path.resolve()), record["command"], record["arguments"]]
    return hmac.new(
        key, json.dumps(what, sort_keys=True, default=str).encode(), "sha256"
    ).hexdigest()


def _shown(named: list[str]) -> str:
    """A line, whatever a stranger wrote: control characters would move the cursor over it."""
    text = ", ".join(named)
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return text if len(text) <= 300 else text[:299] + "…"


def _key(make: bool) -> bytes | None:
    """32 bytes of the user's own, from the first run that needs them on; None if there is no place
    for them."""
    try:
        home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
        path = home / "logpi" / "key"
        if make and not path.exists():
            _write_once(path, secrets.token_bytes(32))
        key = path.read_bytes()
    except (OSError, RuntimeError):  # no home, or none that can be written
        return None
    return key if len(key) == 32 else None


def _write_once(path: Path, data: bytes) -> None:
    """Whole or not at all, and never over another's: two runs may begin at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".key.{os.getpid()}")
    with open(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(data)
    with suppress(FileExistsError):
        os.link(partial, path)
    partial.unlink()
