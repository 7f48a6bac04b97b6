"""The software and hardware of a run, to find out later why two runs of the same arguments differ.

Left out: what may differ between runs (their arguments).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from logpi.distributed.threads import MOST

_PACKAGES = ("logpi", "torch", "transformers", "numpy", "gymnasium", "vllm")
# A change in one of these can change the last bit of a sum.
_NUMERIC = ("python", "platform", "threads", "device", *_PACKAGES)


def versions() -> dict[str, Any]:
    """Python, packages (those loaded by now), platform, processors, threads, and the git commit of
    the directory."""
    record: dict[str, Any] = {"python": platform.python_version(), "platform": platform.platform()}
    record |= {
        name: getattr(sys.modules[name], "__version__", "unknown")
        for name in _PACKAGES
        if name in sys.modules
    }
    record |= {"cpus": os.cpu_count(), "command_line": sys.argv, "git": _commit()}
    torch = sys.modules.get("torch")
    if torch is not None:
        record["threads"] = torch.get_num_threads()
        used = torch.cuda.is_initialized()  # a GPU may be there and not be used
        record["device"] = torch.cuda.get_device_name() if used else "cpu"
    return record


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed of what may change results, as 'torch 2.12.0 -> 2.13.0'."""
    both = [name for name in _NUMERIC if name in before and name in now]
    return [f"{name} {before[name]} -> {now[name]}" for name in both if before[name] != now[name]]


def began_with(run: Path) -> int:
    """The number of threads that a run began with; 0 if it does not say."""
    try:
        record = json.loads((run / "versions.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return 0
    threads = record.get("threads") if isinstance(record, dict) else None
    return threads if type(threads) is int and 0 < threads <= MOST else 0


def _commit() -> str | None:
    """The commit, with a + when files differ from it; None outside a repository or without git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
