"""Starts a fork server: builds its command, with or without bubblewrap, sends its code, reads its
hello.

Left out: testing its confinement (`local.py`), and its work (`fork_server.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from logpi.sandbox.protocol import SandboxError

START_SECONDS = 30.0
# the modules inside the sandbox, in the order of their imports
_INSIDE = tuple(
    "syscalls kernel plain mirrors mirror_classes operations wire rpc names checks counting"
    " runner tests jobs confinement fork_server".split()
)
_BOOT = """
import json, socket, sys, types
control = socket.socket(fileno=int(sys.argv[1]))
message = json.loads(control.recv(1 << 20))
for name, source in message["modules"]:
    module = types.ModuleType(name)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
    exec(compile(source, name, "exec"), module.__dict__)
sys.modules["logpi.sandbox.fork_server"].main(control.detach(), message["options"])
"""


def sources() -> list[tuple[str, str]]:
    """The sources of the modules inside, so that the sandbox needs no access to this library."""
    empty = [("logpi", ""), ("logpi.sandbox", "")]
    return empty + [
        (f"logpi.sandbox.{m}", Path(__file__).with_name(f"{m}.py").read_text("utf-8"))
        for m in _INSIDE
    ]


def _python(control: int) -> list[str]:
    """The command of the interpreter itself, not of a virtual environment's link to it."""
    return [os.path.realpath(sys.executable), "-I", "-S", "-B", "-c", _BOOT, str(control)]


def _bubblewrap(bwrap: str, control: int) -> list[str]:
    prefix = os.path.realpath(sys.base_prefix)
    binds = ["--ro-bind", "/usr", "/usr"]
    for path in ("/lib", "/lib64", "/etc/ld.so.cache"):
        binds += ["--ro-bind-try", path, path]
    if not prefix.startswith("/usr"):
        binds += ["--ro-bind", prefix, prefix]
    for path in _packages(("/usr/lib", "/usr/local/lib", f"{prefix}/lib")):
        binds += ["--tmpfs", path]
    places = ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp"]
    return [
        bwrap,
        "--unshare-all",
        "--new-session",
        "--cap-drop",
        "ALL",
        *binds,
        *places,
        "--",
        *_python(control),
    ]


def _packages(places: Sequence[str]) -> list[str]:
    """The directories of installed packages, such as /usr/lib/python3/dist-packages."""
    return sorted(
        {
            str(p)
            for place in places
            for p in Path(place).glob("python*/*-packages")
            if p.is_dir() and not p.is_symlink()
        }
    )


@dataclass
class ForkServer:
    """One running fork server."""

    process: subprocess.Popen
    control: socket.socket
    facts: dict[str, Any]

    def close(self) -> None:
        # the fork server kills its children and leaves
        self.control.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def launch(backend: str) -> ForkServer:
    """Start a fork server. Raises SandboxError with the reason if it does not start."""
    bwrap = shutil.which("bwrap")
    if backend == "bubblewrap" and not bwrap:
        raise SandboxError("bubblewrap is not installed (the command `bwrap`)")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = (
        _bubblewrap(bwrap, theirs.fileno())
        if bwrap and backend == "bubblewrap"
        else _python(theirs.fileno())
    )
    options = {"confine": backend != "unsafe", "need_landlock": backend == "landlock"}
    messages: list[dict[str, Any]] = [options]
    if backend == "bubblewrap" and os.geteuid() == 0:
        messages, command = [{"exec": command}, options], _python(theirs.fileno())
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
    )
    theirs.close()
    try:
        ours.settimeout(START_SECONDS)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for message in messages:
            ours.send(json.dumps({"modules": sources(), "options": message}).encode())
        hello = json.loads(ours.recv(1 << 16) or b"{}")
    except (OSError, ValueError) as error:
        hello = {"failed": str(error)}
    server = ForkServer(process, ours, hello)
    if "uid" not in hello:
        server.close()
        output = process.stderr.read() if process.stderr else b""
        lines = output.decode(errors="replace").strip().splitlines() or ["it ended without a word"]
        raise SandboxError(hello.get("failed") or lines[-1])
    ours.settimeout(None)
    return server
