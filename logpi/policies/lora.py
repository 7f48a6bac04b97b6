"""LoRA adapters (arXiv:2106.09685) on a policy or a reward model, by `peft`: add, switch off,
merge.

    y = W x + (α/r) B A x,   W frozen, A [r, d] random, B [d', r] zero: at first nothing changes

The adapters stand in the model's own layers, so packing, engine and saving need no code for them.
With the adapter off the same weights are the reference (`AdapterOff`), which takes no memory.
Checkpoints hold the trained weights, not the frozen ones. W may have 4 bits (QLoRA,
arXiv:2305.14314; `loading.py`): norms and embeddings are then float32, and a merged model is saved
with plain weights. GPT-2's layers, which keep Wᵀ, are linear layers too. Left out: several adapters
at a time, dropout (sampler and learner must be the same function).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from logpi.distributed.parts import fitted
from logpi.distributed.world import current
from logpi.errors import install

if TYPE_CHECKING:
    from peft import LoraConfig

    from logpi.policies.packed_model import PackedModel
    from logpi.types import Batch, PolicyOutput

# Fields of a `LoraConfig` that may be set. Others change more than W + (α/r) B A, or something that
# stays changed with the adapter off, so merging or the reference would be wrong.
SETTABLE = {
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("fan_in_fan_out", "base_model_name_or_path", "revision", "task_type", "peft_type"),
    *("peft_version", "auto_mapping", "inference_mode", "runtime_config"),
}


def add_lora(
    policy: PackedModel,
    rank: int = 16,
    alpha: float = 32.0,
    *,
    config: LoraConfig | None = None,
) -> int:
    """Put adapters on every linear layer of the trunk, and freeze all other weights but a value or
    score head.

    Args:
        policy: a `CausalLM` or a `RewardModel`, changed in place. rank: r ≥ 1. alpha: α.
        config: peft's, instead of rank and alpha; without `target_modules` every linear layer is
            adapted. A copy of it is used, which names the base model.
    Returns:
        The number of trainable parameters.
    Raises:
        ValueError: peft is not installed, there is no linear layer, or the configuration has more
            than LoRA (dropout, DoRA, biases, further modules).
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model, prepare_model_for_kbit_training
    except ImportError:
        raise ValueError(f"LoRA needs peft: {install('lora')}") from None
    model = policy.model
    if config is None:
        # peft annotates int, but takes any number
        config = LoraConfig(r=rank, lora_alpha=alpha)  # pyright: ignore[reportArgumentType]
    config = _complete(config, model)
    if _quantised(model):
        # gradient checkpointing is a choice of its own
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    names = ("value_head.", "model.score.")
    heads = [p for n, p in policy.named_parameters() if n.startswith(names)]
    model.requires_grad_(False)
    with _whole_shapes():
        inject_adapter_in_model(config, model)
    for p in heads:
        p.requires_grad_(True)
    _leave_out_frozen(policy)
    return sum(p.numel() for p in policy.parameters() if p.requires_grad)


@contextmanager
def _whole_shapes() -> Iterator[None]:
    """Adapters of whole layers: where shards have replicas, peft takes a layer for one of tensor
    parallelism, and would make adapters of a shard's shape."""
    from peft.tuners import tuners_utils

    looks = "_torch_supports_distributed"
    before = getattr(tuners_utils, looks, None)
    setattr(tuners_utils, looks, False)
    try:
        yield
    finally:
        setattr(tuners_utils, looks, before)


def _complete(config: LoraConfig, model: Any) -> LoraConfig:
    """A copy that names the adapted layers, their layout of W, and the base model."""
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    if not isinstance(config, LoraConfig):
        raise ValueError(f"LoRA is set by peft's LoraConfig, not by {type(config).__name__}")
    plain = LoraConfig()
    for name, value in vars(config).items():
        if name not in SETTABLE and value != getattr(plain, name):
            raise ValueError(
                f"LoraConfig({name}={value!r}) is not supported: sampler, learner and reference"
                " must be W + (alpha / rank) B A, or W"
            )
    if config.init_lora_weights not in (True, "gaussian"):
        raise ValueError(
            f"LoraConfig(init_lora_weights={config.init_lora_weights!r}) is not supported: the"
            " policy must begin as its reference, with B = 0"
        )
    modules = model.base_model.named_modules()
    linear = {name: m for name, m in modules if isinstance(m, nn.Linear | Conv1D)}
    if not linear or config.r < 1:
        raise ValueError(
            f"LoRA of rank {config.r} on {len(linear)} linear layers: needs at least one of each"
        )
    config = copy.deepcopy(config)
    if config.target_modules in (None, "all-linear"):
        config.target_modules = list(linear)
    config.fan_in_fan_out = all(isinstance(m, Conv1D) for m in linear.values())
    config.base_model_name_or_path = config.base_model_name_or_path or _place(model)
    return config


def _place(model: Any) -> str:
    """The source of the frozen weights: a name on the hub, or a directory's absolute path."""
    path = Path(model.name_or_path)
    return str(path.resolve()) if path.exists() and model.name_or_path else model.name_or_path


def _quantised(model: Any) -> bool:
    return getattr(model, "is_loaded_in_4bit", False)


def _leave_out_frozen(policy: nn.Module) -> None:
    """From now on the policy's state dict leaves out frozen weights, which are still where they
    were loaded from, and loads a state dict without them."""
    named = policy.named_parameters(remove_duplicate=False)
    frozen = {name for name, p in named if not p.requires_grad}

    def drop(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        for name in list(state):
            own = name.removeprefix(prefix)
            # 4-bit weights keep their constants in further entries: "….weight.absmax"
            layer, _, part = own.partition(".weight.")
            if own in frozen or (part and f"{layer}.weight" in frozen):
                del state[name]

    def fill(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, p in module.named_parameters(remove_duplicate=False):
            if name in frozen:
                state.setdefault(prefix + name, p.data)

    policy.register_state_dict_post_hook(drop)
    policy.register_load_state_dict_pre_hook(fill)


def _layers(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """(parent, name in it, layer) of every adapted layer."""
    from peft.tuners.lora import LoraLayer

    return [
        (parent, name, layer)
        for parent in model.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, LoraLayer)
    ]


class AdapterOff(nn.Module):
    """A policy as it was before its adapter: a reference that takes no memory. A
    `logpi.types.Policy`.

    It has no parameters and no state of its own.
    """

    policy: Any  # a `PackedModel`

    def __init__(self, policy: PackedModel) -> None:
        super().__init__()
        # no submodule, whose parameters would be this one's
        object.__setattr__(self, "policy", policy)

    def evaluate(self, batch: Batch) -> PolicyOutput:
        """The output of the frozen weights; no gradient."""
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        layers = [layer for _, _, layer in _layers(self.policy.model)]
        try:
            for layer in layers:
                layer.enable_adapters(False)
            with torch.no_grad():
                return self.policy.evaluate(batch)
        finally:
            for layer in layers:
                layer.enable_adapters(True)
            # peft freezes the adapters that it switches off
            for p in trained:
                p.requires_grad_(True)


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """The model with plain linear layers, W + (α/r) B A, and 4-bit weights unpacked. Afterwards it
    has its own layers again, to the bit."""
    from peft.utils.integrations import dequantize_module_weight

    layers = _layers(model)
    for parent, name, layer in layers:
        base = layer.base_layer
        plain = _like(base)
        with torch.no_grad():
            weight = dequantize_module_weight(base)
            change = fitted(layer.get_delta_weight("default").to(weight.dtype), weight)
            plain.weight = nn.Parameter(weight + change)
        plain.bias = base.bias
        setattr(parent, name, plain)
    try:
        with _unmarked(model):
            yield
    finally:
        for parent, name, layer in layers:
            setattr(parent, name, layer)


def _like(base: Any) -> Any:
    """A layer of the same shape, without memory for weights."""
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        if isinstance(base, Conv1D):
            return Conv1D(base.nf, base.nx)
        return nn.Linear(base.in_features, base.out_features, bias=base.bias is not None)


@contextmanager
def _unmarked(model: Any) -> Iterator[None]:
    """The model without its quantisation config, which must not be saved with plain weights."""
    if not _quantised(model):
        yield
        return
    quantiser, note = model.hf_quantizer, model.config.quantization_config
    model.hf_quantizer, model.is_loaded_in_4bit = None, False
    del model.config.quantization_config
    try:
        yield
    finally:
        model.hf_quantizer, model.is_loaded_in_4bit = quantiser, True
        model.config.quantization_config = note


class Merging:
    """Saves a policy with its adapter merged, so that it loads as a plain model, and the adapter
    itself in `adapter/`."""

    def __init__(self, policy: PackedModel) -> None:
        self.policy = policy

    def save(self, directory: str | Path) -> None:
        """Write a plain Hugging Face directory, and `adapter/adapter_model.safetensors` in peft's
        names. Of several ranks, all call it and the first writes."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        model, path = self.policy.model, Path(directory)
        state = get_peft_model_state_dict(model)
        adapter = {f"base_model.model.{k}": v.contiguous() for k, v in state.items()}
        with merged(model):
            self.policy.save(path)
        if not current().first:
            return
        (path / "adapter").mkdir(exist_ok=True)
        save_file(adapter, path / "adapter" / "adapter_model.safetensors")
        model.peft_config["default"].save_pretrained(str(path / "adapter"))


def refuse_4bit() -> None:
    """Raises ValueError with the reason why weights cannot, or should not, be held in 4 bits
    here."""
    if not torch.cuda.is_available():
        raise ValueError(
            "4-bit weights need a GPU: on a CPU bitsandbytes unpacks every weight each time it is"
            " used, which is slower and saves little. Leave out --load-in-4bit; --lora 16 --dtype"
            " bfloat16 is the nearest thing here"
        )
    if find_spec("bitsandbytes") is None or find_spec("accelerate") is None:
        raise ValueError(f"4-bit weights need bitsandbytes: {install('qlora')}")
