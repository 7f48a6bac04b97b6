"""Several ranks in one test: processes that join one world, run a function, and give back what it
returned. With LOGPI_DEVICE=cuda each has a GPU of its own, and they talk by NCCL (`place`)."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Sequence
from typing import Any

PRELOADED = ("torch", "torch.distributed", "logpi.learner", "logpi.algorithms", "tests.tiny")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def place() -> str:
    """The device of this rank's policy."""
    if os.environ.get("LOGPI_DEVICE") != "cuda":
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def fits(ranks: int) -> bool:
    """Whether each rank can have a GPU of its own, where they need one: NCCL wants that."""
    import torch

    return place() == "cpu" or torch.cuda.device_count() >= ranks


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun would set."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _child(work: Callable[..., Any], arguments: Sequence[Any], env: dict[str, str], end) -> None:
    os.environ.update(env)
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        outcome = (work(*arguments), None)
    except BaseException as error:
        outcome = (f"{type(error).__name__}: {error}", traceback.format_exc())
    # torch's own pickling of tensors shares memory that ends with this process
    end.send_bytes(pickle.dumps(outcome))
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def outcomes(
    size: int, work: Callable[..., Any], *arguments: Any, timeout: float = 240, **env: str
) -> list[tuple[Any, str | None]]:
    """By rank what `work(*arguments)` returned and None; or how it failed, with a traceback."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    port, children = free_port(), []
    for rank in range(size):
        here, there = context.Pipe()
        env_of_rank = environment(rank, size, port) | env
        process = context.Process(target=_child, args=(work, arguments, env_of_rank, there))
        process.start()
        there.close()
        children.append((process, here))
    out: list[tuple[Any, str | None]] = []
    for process, here in children:
        try:
            timely = here.poll(timeout)
            out.append(pickle.loads(here.recv_bytes()) if timely else ("timed out", "timed out"))
        except EOFError:
            process.join(5)
            out.append((f"exit code {process.exitcode}", "no answer"))
    for process, _ in children:
        process.join(3)
        if process.is_alive():
            process.kill()
    return out


def on_ranks(size: int, work: Callable[..., Any], *arguments: Any, **env: Any) -> list[Any]:
    """By rank what `work(*arguments)` returned; it must not fail on any."""
    results = outcomes(size, work, *arguments, **env)
    for rank, (_, failure) in enumerate(results):
        assert failure is None, f"rank {rank}: {failure}"
    return [value for value, _ in results]
