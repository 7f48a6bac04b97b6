"""Starts the ranks of a job on this machine, as torchrun does: what `logpi launch` does.

A rank is told who it is by its environment (RANK, WORLD_SIZE, …, CUDA_VISIBLE_DEVICES where there
are GPUs), and where vLLM servers are by an option of its command; nothing else. Left out: waiting
for processes (`processes.py`), Ray (`launch_ray.py`), SLURM (`launch_slurm.py`), and starting a
dead rank again: the same command again resumes the run in its --out.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from logpi.distributed import threads
from logpi.distributed.processes import LOOK, LocalProcess, finished, passed_on
from logpi.errors import UserError

__all__ = ["START", "Placement", "answers", "environment", "free_port", "run_here"]

# seconds that a server has to load a model
START = 1800.0


class LocalServer(Protocol):
    """A vLLM server on this machine, which ends with this process, whatever ends that."""

    url: str

    def start(self) -> None: ...

    def is_running(self) -> bool: ...

    def reason(self) -> str:
        """Why it ended."""
        ...

    def stop(self) -> None: ...


@dataclass(frozen=True)
class Placement:
    """What is to run.

    Attributes:
        command: words after `logpi`. machines: of learners; 0: wherever there is room.
        ranks: learners in all. samplers: vLLM servers, with `tensor_parallel` devices each.
        serve: the words that start a server elsewhere, of its host and port. server: one here, of
            its devices.
        patience: seconds that the other ranks have after the first failure.
    """

    command: tuple[str, ...]
    ranks: int
    machines: int = 0
    samplers: int = 0
    tensor_parallel: int = 1
    serve: Callable[[str, int], list[str]] | None = None
    server: Callable[[str], LocalServer] | None = None
    patience: float = 60.0

    @property
    def devices(self) -> int:
        """The number of GPUs, where there are any."""
        return self.ranks + self.samplers * self.tensor_parallel

    def words(self, urls: Sequence[str] = ()) -> list[str]:
        """The command line of a rank, which samples at these servers."""
        sampler = ["--sampler", f"vllm:{','.join(urls)}"] if urls else []
        return [sys.executable, "-m", "logpi", *self.command, *sampler]


def environment(
    rank: int, size: int, local: tuple[int, int], meeting: tuple[str, int]
) -> dict[str, str]:
    """What a rank is told.

    Args:
        local: its number among those of its machine, and theirs. meeting: host and port of rank 0.
    """
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(local[0]),
        "LOCAL_WORLD_SIZE": str(local[1]),
        "MASTER_ADDR": meeting[0],
        "MASTER_PORT": str(meeting[1]),
        # the same command again resumes the run in its --out, as under torchrun
        "LOGPI_LAUNCH": "1",
    }


def run_here(plan: Placement) -> int:
    """Run it on this machine; the exit code of the first rank that failed, or 0.

    Raises:
        UserError: there are too few GPUs, or a server does not start.
    """
    devices = visible_devices()
    if devices and plan.devices > len(devices):
        raise UserError(
            f"{plan.ranks} learners and {plan.samplers} samplers need {plan.devices} GPUs, and this"
            f" machine shows {len(devices)} (CUDA_VISIBLE_DEVICES= for none)"
        )
    own, rest = devices[: plan.ranks], devices[plan.ranks :]
    ranks: list[LocalProcess] = []
    with _servers(plan, rest) as urls:
        try:
            meeting = ("127.0.0.1", free_port())
            shared = _gpus(own) | threads.shared(plan.ranks)
            with passed_on(ranks):
                for rank in range(plan.ranks):
                    env = environment(rank, plan.ranks, (rank, plan.ranks), meeting)
                    ranks.append(LocalProcess(plan.words(urls), shared | env))
                return finished(ranks, plan.patience)
        finally:
            for process in ranks:
                process.close()


@contextmanager
def _servers(plan: Placement, devices: Sequence[str]) -> Iterator[list[str]]:
    """vLLM servers on their own devices; their addresses, once all answer."""
    size = plan.tensor_parallel
    shares = [",".join(devices[i * size : (i + 1) * size]) for i in range(plan.samplers)]
    with ExitStack() as stack:
        servers = [plan.server(share) for share in shares] if plan.server else []
        for server in servers:
            stack.callback(server.stop)
            server.start()
        deadline = time.monotonic() + START
        for server in servers:
            while not answers(server.url):
                if not server.is_running() or time.monotonic() > deadline:
                    raise UserError(f"vLLM did not start: {server.reason()}")
                time.sleep(LOOK)
        yield [server.url for server in servers]


def _gpus(devices: Sequence[str]) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {}


def visible_devices() -> list[str]:
    """The GPUs that may be used here, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device.strip() for device in named.split(",") if device.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return [str(i) for i in range(sum(x.startswith("GPU ") for x in listed.stdout.splitlines()))]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    """Whether a vLLM server is up."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
