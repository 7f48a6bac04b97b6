"""vLLM's side of weights by files: a weight transfer backend "files" for vLLM's own four-phase
protocol. The learner names a directory of safetensors, and every worker reads it.

It runs in vLLM's environment, whose entry point `vllm.general_plugins` calls `register`; so it
imports nothing of logpi, and vLLM only inside functions. Any hardware will do that sees the
directory. Left out: who writes it (`weights.py`), pause and resume (vLLM's own routes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# of a checkpoint; a value head beside it is the learner's alone
WEIGHTS = "model*.safetensors"


def register() -> None:
    """Make `--weight-transfer-config '{"backend": "files"}'` known to vLLM."""
    from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory  # pyright: ignore[reportMissingImports]

    if "files" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("files", _engine())


def _engine() -> type:
    """The class, made here because its base is vLLM's."""
    from vllm.distributed.weight_transfer import base  # pyright: ignore[reportMissingImports]
    from vllm.model_executor.model_loader import reload  # pyright: ignore[reportMissingImports]

    @dataclass
    class Init(base.WeightTransferInitInfo):
        pass

    @dataclass
    class Update(base.WeightTransferUpdateInfo):
        path: str

    class Files(base.WeightTransferEngine):
        init_info_cls, update_info_cls = Init, Update

        def init_transfer_engine(self, init_info: Any) -> None:
            if self.device.type == "cpu":
                _keep_seeds()

        def start_weight_update(self) -> None:
            reload.initialize_layerwise_reload(self.model)

        def receive_weights(self, update_info: Any) -> None:
            self.model.load_weights(_tensors(Path(update_info.path)))

        def update_weights(self, update_info: dict[str, Any]) -> None:
            # not the base's, which waits for an accelerator that a CPU has not
            self.receive_weights(self.parse_update_info(update_info))
            if self.device.type != "cpu":
                import torch

                torch.accelerator.synchronize()

        def finish_weight_update(self) -> None:
            reload.finalize_layerwise_reload(self.model, self.model_config)
            if self.device.type == "cpu":
                _pack_head(self.model)

        def shutdown(self) -> None:
            pass

    return Files


def _tensors(directory: Path) -> Iterator[tuple[str, Any]]:
    """Name and tensor of all that lies there, one at a time."""
    from safetensors import safe_open

    for file in sorted(directory.glob(WEIGHTS)):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (a file, not a dict)
                yield name, tensors.get_tensor(name)


def _pack_head(model: Any) -> None:
    """The CPU build (0.32) multiplies by packed copies of the weights. Reloading packs every layer
    again but an output layer that is tied to the embedding: it would keep the old weights."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm  # pyright: ignore[reportMissingImports]

    head = getattr(model, "lm_head", None)
    if getattr(head, "cpu_linear", None) is not None:
        dispatch_cpu_unquantized_gemm(head, remove_weight=False)


def _keep_seeds() -> None:
    """Rows that are read again under new weights may need several steps; the token that is drawn
    after each but the last counts for nothing, so vLLM (0.32) sets the row's generator back, by an
    offset that a CPU's has not: the engine dies. Here such a row's generator is left alone."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner  # pyright: ignore[reportMissingImports]

    sample: Any = GPUModelRunner.sample_tokens
    if sample.__name__ == "sample_and_keep_seeds":
        return

    def sample_and_keep_seeds(runner: Any, *arguments: Any, **keywords: Any) -> Any:
        batch = runner.input_batch
        unfinished = runner.discard_request_mask.np[: batch.num_reqs].nonzero()[0].tolist()
        kept = {i: batch.generators.pop(i) for i in unfinished if i in batch.generators}
        try:
            return sample(runner, *arguments, **keywords)
        finally:
            batch.generators.update(kept)

    GPUModelRunner.sample_tokens = sample_and_keep_seeds
