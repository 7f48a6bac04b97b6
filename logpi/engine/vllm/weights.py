"""How the learner's weights get to a server, always within its /pause and /resume.

    pause ─▶ start ─▶ update ─▶ finish (the version's name) ─▶ prefix cache dropped ─▶ resume

A version is the number of updates that the weights have had. Its name on the server proves nothing
(an update that read no tensor is named too), so the sampler compares log-probabilities afterwards.
Without the pause a server goes on with keys and values of the old weights, 0.5 nats wrong.

    Files    a directory that both sides see, a disk or a tmpfs; our plugin reads it (`plugin.py`)
    NCCL     vLLM's own trainer, between GPUs; IPC: on one and the same GPU. Both untried

Left out: when to publish (`sampler.py`).
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from logpi.engine.vllm.client import Client, ServerDown
from logpi.errors import SamplerLost, UserError, install

if TYPE_CHECKING:
    from torch import nn

# directories of weights that stay: a server may still be reading the one before
KEPT = 2


class Publisher(Protocol):
    """Brings weights to servers.

    Attributes:
        backend: of vLLM's `--weight-transfer-config`.
    """

    backend: str

    def connect(self, client: Client) -> None:
        """Once for each server, and again when it has been started anew. Raises UserError,
        ServerDown."""
        ...

    def prepare(self, version: int) -> None:
        """The weights of the moment are those of `version`; called before they are sent. Raises
        SamplerLost if that cannot be."""
        ...

    def send(self, client: Client, version: int) -> None:
        """The prepared weights to one server, which is paused. Raises ServerDown."""
        ...

    def close(self) -> None:
        """Free what is held."""
        ...


def publish(client: Client, publisher: Publisher, version: int) -> None:
    """The prepared weights to a server, which keeps what it is sampling and goes on with it.

    Raises:
        ServerDown: it does not answer, or its engine died of the weights.
    """
    client.post("/pause?mode=keep")
    try:
        publisher.send(client, version)
        client.post("/reset_prefix_cache")
    except BaseException:
        with suppress(ServerDown, UserError):
            client.post("/resume", seconds=5)
        raise
    client.post("/resume")


class Files:
    """By a directory of safetensors that learner and server both see.

    Args:
        save: writes the policy as a model into a directory (`CausalLM.save`, or with LoRA
            `Merging.save`).
        directory: where to write; None: a new one on the machine's tmpfs (/dev/shm) if twice
            `size` bytes are free there, else among the temporary files.
        size: bytes of the weights.
    """

    backend = "files"

    def __init__(
        self, save: Callable[[Path], object], directory: Path | None = None, size: int = 0
    ) -> None:
        self.save = save
        self.directory = directory or Path(tempfile.mkdtemp("", "logpi-weights-", _roomy(size)))
        # what goes with the run
        self.temporary = [] if directory else [self.directory]
        remove = partial(shutil.rmtree, ignore_errors=True)
        self._end = weakref.finalize(self, lambda paths: list(map(remove, paths)), self.temporary)

    def connect(self, client: Client) -> None:
        client.post("/init_weight_transfer_engine", {"init_info": {}})

    def path(self, version: int) -> Path:
        return self.directory / f"version-{version}"

    def prepare(self, version: int) -> None:
        path, partial = self.path(version), self.directory / "partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            self.save(partial)
            shutil.rmtree(path, ignore_errors=True)
            partial.rename(path)
        except OSError as error:
            raise SamplerLost(f"the weights cannot be written to {path}: {error}") from error
        old = sorted(self.directory.glob("version-*"), key=lambda p: p.stat().st_mtime)[:-KEPT]
        for directory in old:
            shutil.rmtree(directory, ignore_errors=True)

    def send(self, client: Client, version: int) -> None:
        try:
            client.post("/start_weight_update")
        except ServerDown as error:
            # whoever began one before has gone; all weights are read anew
            if "already active" not in str(error):
                raise
        client.post("/update_weights", {"update_info": {"path": str(self.path(version))}})
        client.post("/finish_weight_update", {"weight_version": str(version)})

    def close(self) -> None:
        self._end()


class _Trainer(ABC):
    """By vLLM's own trainer API (0.32), which must be installed beside logpi (`logpi[vllm]`).

    `module` is the model with plain weights, by the names of its checkpoint: no adapters.
    """

    backend: str

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.trainers: dict[str, Any] = {}

    def connect(self, client: Client) -> None:
        try:
            from vllm.distributed import (  # pyright: ignore[reportMissingImports]
                weight_transfer as vllm,
            )
        except ImportError:
            raise UserError(
                f"--sync {self.backend} needs vLLM in the learner's environment too"
                f" ({install('vllm')}); --sync files does not"
            ) from None
        if client.url in self.trainers:
            self.trainers.pop(client.url).shutdown()
        self.trainers[client.url] = vllm.WeightTransferTrainerFactory.trainer_init(
            self._info(client),
            client=vllm.HTTPVLLMWeightSyncClient(client.url),
            source=vllm.ModuleSource(self.module),
        )

    @abstractmethod
    def _info(self, client: Client) -> Any:
        """vLLM's `TrainerInitInfo` for this server."""

    def prepare(self, version: int) -> None:  # noqa: B027 (nothing to do)
        """The weights are read where they are."""

    def send(self, client: Client, version: int) -> None:
        try:
            self.trainers[client.url].send_weights()
        except Exception as error:  # vLLM's and NCCL's own
            raise ServerDown(f"{client.url}: {type(error).__name__} {error}") from error
        client.post("/update_weight_version", {"new_version": str(version)})

    def close(self) -> None:
        for trainer in self.trainers.values():
            trainer.shutdown()


class NCCL(_Trainer):
    """From the learner's GPU to those of the server, by NCCL. **Untried**: it needs two GPUs.

    Args:
        host: the learner's address for the servers (a port is chosen).
    """

    backend = "nccl"

    def __init__(self, module: nn.Module, host: str = "127.0.0.1") -> None:
        super().__init__(module)
        self.host = host

    def _info(self, client: Client) -> Any:
        from vllm.distributed.weight_transfer import (  # pyright: ignore[reportMissingImports]
            nccl_engine,
        )

        workers = client.get("/get_world_size")["world_size"]
        return nccl_engine.NCCLTrainerInitInfo(self.host, free_port(), workers + 1, rank=0)


class IPC(_Trainer):
    """Where learner and server share a GPU, by CUDA IPC; the server needs
    `VLLM_ALLOW_INSECURE_SERIALIZATION=1`. **Untried**: it needs a GPU."""

    backend = "ipc"

    def _info(self, client: Client) -> Any:
        from vllm.distributed.weight_transfer import (  # pyright: ignore[reportMissingImports]
            ipc_engine,
        )

        return ipc_engine.IPCTrainerInitInfo(rank=0)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _roomy(size: int) -> str:
    """Where temporary weights go."""
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free > (KEPT + 1) * size:
        return str(shared)
    return tempfile.gettempdir()
