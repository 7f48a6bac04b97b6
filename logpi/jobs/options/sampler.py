"""Who samples for a job that learns: our decoder, or vLLM; a group of options.

Left out: how much is sampled, and when it ends (`sampling.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.errors import UserError, as_user_errors
from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from logpi.engine.sampler import Sampler
    from logpi.engine.vllm.server import Server
    from logpi.engine.vllm.weights import Publisher
    from logpi.policies.causal_lm import CausalLM

# seconds for a server of our own to come up
START = 600.0
SYNCS = ("auto", "files", "nccl", "ipc")
STALE = ("correct", "drop", "refuse")


@dataclass(frozen=True, kw_only=True)
class SamplerArguments:
    """Who samples. From Python `sampler` may be a `Sampler` object."""

    HEADING: ClassVar[str] = "sampler"

    sampler: str | Any = option(
        "own",
        objects=True,
        changeable=True,
        help=(
            "own: our decoder; vllm: a server that is started and stopped with the run;"
            " vllm:URL[,URL…]: servers that run already (docs/scale-vllm.md)"
        ),
    )
    sampler_dtype: str = option(
        "auto",
        choices=("auto", "bfloat16"),
        help=(
            "of our decoder's products on a CPU: auto, the model's; bfloat16: quicker where the"
            " CPU has instructions for it, corrected like another engine's samples"
        ),
    )
    vllm_python: str = option(
        "",
        changeable=True,
        help="with vllm: the interpreter that has it (default: $LOGPI_VLLM_PYTHON, then this one)",
    )
    vllm_options: Mapping[str, Any] = option(
        {},
        changeable=True,
        nargs="*",
        help="with vllm: options of `vllm serve`, e.g. max_model_len=8192 tensor_parallel_size=2",
    )
    sampler_devices: str = option(
        "", changeable=True, help="with vllm: its GPUs, as in CUDA_VISIBLE_DEVICES, e.g. 4,5,6,7"
    )
    sync: str = option(
        "auto",
        changeable=True,
        help=(
            "how weights get to vLLM: files[:DIR], nccl or ipc; auto: files to servers on this"
            " machine, else nccl"
        ),
    )

    ahead: int = option(
        0,
        least=0,
        most=64,
        aliases=("async",),
        help=(
            "with vllm, also --async: batches that are sampled while one is learned from; their"
            " tokens are at most so many updates old (docs/scale-async.md)"
        ),
    )
    stale: str = option(
        "correct",
        choices=STALE,
        changeable=True,
        help=(
            "what becomes of groups that are older all the same: learned from with importance"
            " weights, left out, or an error"
        ),
    )

    @property
    def samples_itself(self) -> bool:
        """Whether our decoder samples."""
        return isinstance(self.sampler, str) and self.sampler == "own"

    @property
    def same_numerics(self) -> bool:
        """Whether samples are rounded as the learner rounds."""
        return self.samples_itself and self.sampler_dtype == "auto"

    @contextmanager
    def sampling_by(
        self, policy: CausalLM, save: Callable[[Path], object], version: Callable[[], int]
    ) -> Iterator[Sampler]:
        """The sampler, as long as the context lasts; servers that were started end with it.

        Args:
            save: writes the policy with plain weights. version: updates that it has had.
        Raises:
            UserError: there is no such sampler, or it is not one for this policy.
        """
        from logpi.engine.engine import Engine

        if self.sampler != "own" and self.sampler_dtype != "auto":
            raise UserError("--sampler-dtype is our own decoder's: leave it or --sampler out")
        if not isinstance(self.sampler, str):
            yield self.sampler
            return
        word, _, urls = self.sampler.partition(":")
        if self.sampler == "own":
            with as_user_errors():
                engine = Engine(policy, slots=self._slots, half=self.sampler_dtype == "bfloat16")
            yield engine
            return
        if word != "vllm" or (urls and not all(urls.split(","))):
            raise UserError(
                f"--sampler {self.sampler}: there are own, vllm and vllm:URL[,URL…], e.g."
                " vllm:http://127.0.0.1:8000"
            )
        from logpi.distributed.sharding import sharded, whole
        from logpi.distributed.world import current
        from logpi.engine.sampler import FirstRankSampler

        world = current()
        if self.ahead and sharded(policy):
            raise UserError("--ahead needs weights that are whole on the first rank: --shard none")
        with ExitStack() as stack:
            places = urls.split(",") if urls else []

            def start() -> Sampler:
                if world.first:
                    return self._vllm(stack, policy, save, version, places)
                return FirstRankSampler()

            with whole(policy):
                sampler = world.together(start)
            yield sampler

    def _vllm(
        self,
        stack: ExitStack,
        policy: CausalLM,
        save: Callable[[Path], object],
        version: Callable[[], int],
        urls: list[str],
    ) -> Sampler:
        from logpi.engine.vllm.launch import vllm_python
        from logpi.engine.vllm.sampler import VLLMSampler
        from logpi.engine.vllm.server import connect

        servers = [connect(url) for url in urls]
        publisher = self._publisher(policy, save, all(s.client.local for s in servers))
        stack.callback(publisher.close)
        if not servers:
            python = vllm_python(self.vllm_python)
            servers = [self._start(stack, python, policy, save, publisher)]
        return VLLMSampler(policy, servers, publisher, version=version, slots=self._slots)

    def _publisher(
        self, policy: CausalLM, save: Callable[[Path], object], local: bool
    ) -> Publisher:
        from logpi.engine.vllm.weights import IPC, NCCL, Files

        word, _, directory = self.sync.partition(":")
        if word not in SYNCS or (directory and word != "files"):
            raise UserError(f"--sync {self.sync}: there are auto, files[:DIR], nccl and ipc")
        if word == "auto":
            word = "files" if local else "nccl"
        if word == "files":
            size = sum(p.numel() * p.element_size() for p in policy.model.parameters())
            return Files(save, Path(directory).absolute() if directory else None, size)
        if getattr(self, "lora", 0):
            raise UserError(f"--lora needs --sync files: {word} sends weights without adapters")
        return NCCL(policy.model) if word == "nccl" else IPC(policy.model)

    def _start(
        self,
        stack: ExitStack,
        python: str,
        policy: CausalLM,
        save: Callable[[Path], object],
        publisher: Publisher,
    ) -> Server:
        """A server of our own, from the policy as it is."""
        from logpi.engine.vllm.launch import ServerProcess
        from logpi.engine.vllm.sampler import PROBES
        from logpi.engine.vllm.server import started
        from logpi.engine.vllm.weights import Files

        dtype = str(policy.model.get_input_embeddings().weight.dtype).removeprefix("torch.")
        options = {"dtype": dtype, "max_num_seqs": self._slots + PROBES, **self.vllm_options}
        backend, devices = publisher.backend, self.sampler_devices
        remove = publisher.temporary if isinstance(publisher, Files) else ()
        process = ServerProcess(python, save, backend, options, devices, remove)
        stack.callback(process.stop)
        return started(process, START)

    @property
    def _slots(self) -> int:
        return getattr(self, "slots", 128)
