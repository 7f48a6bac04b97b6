"""A vLLM server that a run starts for itself, on this machine: `--sampler vllm`.

Its interpreter may be another environment's; our plugin then comes along by PYTHONPATH. The server
lives no longer than the run, whatever ends it (`supervise.py`). Left out: servers on other
machines, which their owners start (docs/scale-vllm.md has the command), and placing one on GPUs
beside the learner's (CUDA_VISIBLE_DEVICES).
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from logpi.engine.vllm.weights import free_port
from logpi.errors import UserError, one_line

PYTHON = "LOGPI_VLLM_PYTHON"
"""The environment variable with the interpreter of vLLM's environment."""

ENVIRONMENT = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
ENTRY = "[vllm.general_plugins]\nlogpi = logpi_vllm_plugin:register\n"
# a line of vLLM's log that says why
ERROR = re.compile(r"\b(\w*(?:Error|Exception|error)): (.+)")


def serve_arguments(model: str, port: int, backend: str, options: Mapping[str, Any]) -> list[str]:
    """What stands behind `vllm serve` for a server that a learner can use; `options` by vLLM's
    names (`tensor_parallel_size=2`) win."""
    flags: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "served_model_name": "policy",
        "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs",
        "weight_transfer_config": json.dumps({"backend": backend}),
        "enable_scale_out": True,
        **{name.replace("-", "_"): value for name, value in options.items()},
    }
    words = [model]
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if value is not False:
            words += [flag] if value is True else [flag, str(value)]
    return words


class ServerProcess:
    """A server under a supervisor; `start` it, again if it died.

    Args:
        python: of vLLM's environment. save: writes the model that it begins with.
        backend: of weights. options: further options of `vllm serve`.
        devices: GPUs, as in CUDA_VISIBLE_DEVICES; "" for all.
        remove: directories that go when the run has, however it ended.

    Raises:
        UserError: there is no vLLM.
    """

    def __init__(
        self,
        python: str,
        save: Callable[[Path], object],
        backend: str,
        options: Mapping[str, Any] | None = None,
        devices: str = "",
        remove: Sequence[Path] = (),
    ) -> None:
        self.python, self.port, self.devices = python, free_port(), devices
        self.url = f"http://127.0.0.1:{self.port}"
        self.version, self.backend = _version(python), backend
        self.home = Path(tempfile.mkdtemp(prefix="logpi-vllm-"))
        self.remove = os.pathsep.join(map(str, (self.home, *remove)))
        self.log = self.home / "server.log"
        _write_plugin(self.home)
        model = self.home / "model"
        model.mkdir()
        save(model)
        on_cpu = {"enforce_eager": True} if "cpu" in self.version else {}
        arguments = serve_arguments(str(model), self.port, backend, on_cpu | dict(options or {}))
        self.command = [python, "-m", "vllm.entrypoints.cli.main", "serve", *arguments]
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    def start(self) -> None:
        """Start it; a server that is still there, hung say, is ended first."""
        self._end()
        self.starts += 1
        supervise = Path(__file__).with_name("supervise.py")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(supervise), self.remove, *self.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment(),
                start_new_session=True,
            )

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End it and all that it started, and remove its files."""
        atexit.unregister(self.stop)
        self._end()
        shutil.rmtree(self.home, ignore_errors=True)

    def _end(self) -> None:
        if self.process is None:
            return
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            # the directories stay
            self.process.stdin.write(b"k")
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def reason(self) -> str:
        """The last error of its log, on one line."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        errors = [match.group(0) for match in ERROR.finditer(text)]
        told = [e for e in errors if not e.startswith(("EngineDeadError", "RuntimeError: Engine"))]
        return one_line((told or errors or text.splitlines() or ["no word in its log"])[-1])

    def _environment(self) -> dict[str, str]:
        path = [str(self.home), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path)}
        if "cpu" in self.version:
            # compiling one function takes the first request half a minute
            own |= {"TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
            own |= {"VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")}
        if self.devices:
            own["CUDA_VISIBLE_DEVICES"] = self.devices
        if self.backend == "ipc":
            # handles of GPU memory come pickled, over loopback
            own["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
        return {**os.environ, **own}


def vllm_python(asked: str = "") -> str:
    """The interpreter that has vLLM: the one asked for, that of the environment variable, or this
    one."""
    return asked or os.environ.get(PYTHON, "") or sys.executable


def _version(python: str) -> str:
    """Of vLLM there. Raises UserError if there is none."""
    code = "from importlib.metadata import version; print(version('vllm'))"
    try:
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{python} cannot be run: {one_line(error)}") from None
    if found.returncode:
        raise UserError(
            f"{python} has no vLLM: name the interpreter of an environment that has it with"
            f" --vllm-python or in {PYTHON} (scripts/vllm_cpu.sh makes one for CPUs)"
        )
    return found.stdout.strip()


def _write_plugin(directory: Path) -> None:
    """Our plugin as a module and a distribution with its entry point, which vLLM finds on its
    path."""
    shutil.copy(Path(__file__).with_name("plugin.py"), directory / "logpi_vllm_plugin.py")
    info = directory / "logpi-0.dist-info"
    info.mkdir()
    metadata = "Metadata-Version: 2.1\nName: logpi\nVersion: 0\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    (info / "entry_points.txt").write_text(ENTRY, encoding="utf-8")
