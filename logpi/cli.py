"""`logpi COMMAND`: a table of names. Nothing heavy is imported before one is chosen.

Mistakes of a user end here as one line and exit code 2; anything else keeps its traceback.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from logpi.commands import COMMANDS, LIGHT, WITH_RANKS
from logpi.distributed import quiet_ranks, rank, ranks
from logpi.distributed.threads import prepare
from logpi.errors import Stopped, UserError, install, one_line, shell

# Package -> the extra that installs it.
EXTRAS = {
    "gymnasium": "control",
    "datasets": "data",
    "pyarrow": "data",
    "gguf": "gguf",
    "peft": "lora",
    "mcp": "mcp",
    "optuna": "sweep",
    "ray": "scale",
    "starlette": "view",
    "uvicorn": "view",
    "latex2mathml": "view",
}
OUT_OF_MEMORY = (
    "out of memory. Decode fewer rows at a time (--slots), cut the forward pass smaller"
    " (--micro-tokens 4096), use --gradient-checkpointing, or shorter completions. The last"
    " checkpoint is intact"
)
# Failures of a disk, not of the program.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EIO, errno.ESTALE)


def _help() -> str:
    rows = "\n".join(f"  {name:<18}{entry.summary}" for name, entry in COMMANDS.items())
    return (
        "usage: logpi COMMAND [OPTIONS]\n\nPolicy gradients, from the theorem to reasoning"
        f" models.\n\n{rows}\n\nlogpi COMMAND --help says more. Start with: logpi demo"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if argv[0] in ("--version", "-V"):
        from logpi import __version__

        print(f"logpi {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        from logpi.errors import did_you_mean

        print(
            f"logpi: unknown command {argv[0][:60]!r}{did_you_mean(argv[0], COMMANDS)} (see logpi"
            " --help)",
            file=sys.stderr,
        )
        return 2
    try:
        return _shown(argv[0], argv[1:])
    finally:
        if ranks() > 1:
            from logpi.distributed.world import leave

            leave()


def _run(command: str, argv: Sequence[str]) -> int:
    if ranks() > 1 and command not in WITH_RANKS:
        raise UserError(
            f"logpi {command} works in one process, and {ranks()} were started (WORLD_SIZE): start"
            f" it without torchrun; {', '.join(sorted(WITH_RANKS))} share their work out"
        )
    if command not in LIGHT and not {"-h", "--help"} & set(argv):
        prepare(argv)
    with shell(), quiet_ranks(), warnings.catch_warnings():
        warnings.showwarning = partial(_warn, warnings.showwarning)
        return COMMANDS[command].load().main(argv)


def _warn(
    otherwise: Callable[..., None], message: Any, category: type, filename: str, *rest: Any
) -> None:
    """The library's own warnings as one line, above a live line of progress; others as ever."""
    if Path(filename).is_relative_to(Path(__file__).parent):
        logging.getLogger("logpi").warning("%s", message)
    else:
        otherwise(message, category, filename, *rest)


def _shown(command: str, argv: Sequence[str]) -> int:
    """Run a command; print a mistake of the user's, or a failure of the machine, as one line."""
    try:
        return _run(command, argv)
    except BrokenPipeError:  # the reader of a pipe has gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        return _ended(error, one_line(error), error.code)
    except KeyboardInterrupt as error:
        return _ended(error, "interrupted; what was saved can be resumed: --resume RUN", 130)
    except (FloatingPointError, MemoryError, OSError, ModuleNotFoundError, RuntimeError) as error:
        if not (line := _failure(error)):
            raise
        return _ended(error, line, 2)


def _ended(error: BaseException, line: str, code: int) -> int:
    """Say why a command ended, once for all ranks; returns the exit code."""
    from logpi.distributed.world import TOLD, joined

    if number := rank():
        line = f"rank {number}: {line}"
    if ranks() > 1 and (file := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        # torchrun repeats it where it would show a traceback
        extra = {"py_callstack": "", "timestamp": str(int(time.time()))}
        message = {"message": {"message": line, "extraInfo": extra}}
        Path(file).write_text(json.dumps(message))
    # a stop is agreed by all
    told = isinstance(error, Stopped) or getattr(error, TOLD, False)
    if not number or (joined() and not told):
        print(f"logpi: {line}", file=sys.stderr)
    return code


def _failure(error: Exception) -> str:
    """A line on what failed and what to do; "" for a fault of the library."""
    match error:
        case ModuleNotFoundError() if extra := EXTRAS.get((error.name or "").partition(".")[0]):
            return f"{error.name} is not installed: {install(extra)}"
        case OSError() if error.errno in DISK:
            where = f": {error.filename}" if error.filename else ""
            return (
                f"{error.strerror}{where}. Mend the disk; what was saved can be resumed:"
                " --resume RUN"
            )
        case FloatingPointError():
            return f"{error}. Begin anew with a lower learning rate; the last checkpoint is intact"
        case MemoryError():
            return OUT_OF_MEMORY
        case RuntimeError() if "memory" in str(error).lower():
            return OUT_OF_MEMORY
    return ""


if __name__ == "__main__":
    sys.exit(main())
