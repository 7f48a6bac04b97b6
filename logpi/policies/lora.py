"""LoRA adapters (arXiv:2106.09685) on a policy or a reward model, by `peft`: add, switch off,
merge.

    y = W x + (α/r) B A x,   W frozen, A [r, d] random, B [d', r] zero: at first nothing changes

The layers are put into the model itself, so packing, engine and saving know nothing of them. With
the adapter off the same weights are the reference (`AdapterOff`), which then costs no memory.
Checkpoints hold what learns, not the frozen weights. W may be of 4 bits (QLoRA, arXiv:2305.14314;
`loading.py` reads it so): norms and embeddings are then float32, and what is merged and saved is
plain again. GPT-2's layers, which keep Wᵀ, are linear layers too. Left out: several adapters at a
time, dropout (sampler and learner must be the same function).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from peft import LoraConfig

    from logpi.policies.packed_model import PackedModel
    from logpi.types import Batch, PolicyOutput

# Fields of a `LoraConfig` that may be set. Others change more than W + (α/r) B A, or something that
# switching the adapter off would not take back, so merging or the reference would be wrong.
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
    """Put adapters on every linear layer of the trunk; all else but a value or score head is
    frozen.

    Args:
        policy: a `CausalLM` or a `RewardModel`, changed in place. rank: r ≥ 1. alpha: α.
        config: peft's, instead of rank and alpha; without `target_modules` on every linear layer.
            It is copied, and the copy names the base model.
    Returns:
        The number of trainable parameters.
    Raises:
        ValueError: peft is not installed, there is no linear layer, or the configuration asks for
            what is not LoRA alone (dropout, DoRA, biases, further modules).
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model, prepare_model_for_kbit_training
    except ImportError:
        raise ValueError("LoRA needs peft: pip install 'logpi[lora]'") from None
    model = policy.model
    if config is None:
        # peft says int, and divides it by r: any number does
        config = LoraConfig(r=rank, lora_alpha=alpha)  # pyright: ignore[reportArgumentType]
    config = _complete(config, model)
    if _quantised(model):
        # gradient checkpointing is a choice of its own
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    heads = [
        p for n, p in policy.named_parameters() if n.startswith(("value_head.", "model.score."))
    ]
    model.requires_grad_(False)
    inject_adapter_in_model(config, model)
    for p in heads:
        p.requires_grad_(True)
    _remember_what_learns(policy)
    return sum(p.numel() for p in policy.parameters() if p.requires_grad)


def _complete(config: LoraConfig, model: Any) -> LoraConfig:
    """A copy that says which layers are adapted, how they keep W, and of which model they are."""
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
    linear = [
        (n, m) for n, m in model.base_model.named_modules() if isinstance(m, nn.Linear | Conv1D)
    ]
    if not linear or config.r < 1:
        raise ValueError(
            f"LoRA of rank {config.r} on {len(linear)} linear layers: needs at least one of each"
        )
    config = copy.deepcopy(config)
    if config.target_modules in (None, "all-linear"):
        config.target_modules = [name for name, _ in linear]
    config.fan_in_fan_out = all(isinstance(m, Conv1D) for _, m in linear)
    config.base_model_name_or_path = config.base_model_name_or_path or _place(model)
    return config


def _place(model: Any) -> str:
    """Where the frozen weights came from: a name on the hub, or a directory wherever one stands."""
    path = Path(model.name_or_path)
    return str(path.resolve()) if path.exists() and model.name_or_path else model.name_or_path


def _quantised(model: Any) -> bool:
    return getattr(model, "is_loaded_in_4bit", False)


def _remember_what_learns(policy: nn.Module) -> None:
    """From now on the policy's state leaves frozen weights out (they are where they were loaded
    from), and takes what leaves them out."""
    frozen = {
        name for name, p in policy.named_parameters(remove_duplicate=False) if not p.requires_grad
    }

    def drop(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        for name in list(state):
            own = name.removeprefix(prefix)
            whose, _, part = own.partition(
                ".weight."
            )  # 4-bit weights keep their constants in further entries
            if own in frozen or (part and f"{whose}.weight" in frozen):
                del state[name]

    def fill(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, p in module.named_parameters(remove_duplicate=False):
            if name in frozen:
                state.setdefault(prefix + name, p.data)

    policy.register_state_dict_post_hook(drop)
    policy.register_load_state_dict_pre_hook(fill)


def _layers(model: nn.Module) -> list[tuple[nn.Module, str, Any]]:
    """Every adapted layer with its parent and its name in it."""
    from peft.tuners.lora import LoraLayer

    found = [(parent, name, m) for parent in model.modules() for name, m in parent.named_children()]
    return [(parent, name, m) for parent, name, m in found if isinstance(m, LoraLayer)]


@contextmanager
def _off(model: nn.Module) -> Iterator[None]:
    layers = [layer for _, _, layer in _layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


class AdapterOff:
    """A policy as it was before its adapter: the reference that needs no memory. A
    `logpi.types.Policy`.

    It has nothing of its own: no parameters, no state.
    """

    def __init__(self, policy: PackedModel) -> None:
        self.policy: Any = policy

    def evaluate(self, batch: Batch) -> PolicyOutput:
        """What the frozen weights say; no gradient."""
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        with _off(self.policy.model), torch.no_grad():
            found = self.policy.evaluate(batch)
        for p in trained:  # peft freezes what it switches off
            p.requires_grad_(True)
        return found

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        return iter(())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        pass

    def requires_grad_(self, requires_grad: bool = True) -> AdapterOff:
        return self


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """The model with plain linear layers, W + (α/r) B A, 4-bit weights unpacked; what was there
    comes back exactly."""
    from peft.utils.integrations import dequantize_module_weight

    layers = _layers(model)
    for parent, name, layer in layers:
        base = layer.base_layer
        plain = _like(base)
        with torch.no_grad():
            weight = dequantize_module_weight(base)
            plain.weight = nn.Parameter(weight + layer.get_delta_weight("default").to(weight.dtype))
        plain.bias = base.bias
        setattr(parent, name, plain)
    try:
        with _unmarked(model):
            yield
    finally:
        for parent, name, layer in layers:
            setattr(parent, name, layer)


def _like(base: Any) -> Any:
    """A layer of the same shape, whose weights are yet to be set."""
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        if isinstance(base, Conv1D):
            return Conv1D(base.nf, base.nx)
        return nn.Linear(base.in_features, base.out_features, bias=base.bias is not None)


@contextmanager
def _unmarked(model: Any) -> Iterator[None]:
    """Without the notes of quantisation that would be saved with plain weights."""
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
    """Saves a policy with its adapter merged, so that nobody who loads it need know; the adapter is
    in `adapter/`."""

    def __init__(self, policy: PackedModel) -> None:
        self.policy = policy

    def save(self, directory: str | Path) -> None:
        """A plain Hugging Face directory, and `adapter/adapter_model.safetensors` in peft's
        names."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        model, path = self.policy.model, Path(directory)
        adapter = {
            f"base_model.model.{k}": v.contiguous()
            for k, v in get_peft_model_state_dict(model).items()
        }
        with merged(model):
            self.policy.save(path)
        (path / "adapter").mkdir(exist_ok=True)
        save_file(adapter, path / "adapter" / "adapter_model.safetensors")
        model.peft_config["default"].save_pretrained(str(path / "adapter"))


def refuse_4bit() -> None:
    """Raises ValueError with the reason why weights should not be held in 4 bits here; returns if
    they can be."""
    if not torch.cuda.is_available():
        raise ValueError(
            "4-bit weights need a GPU: on a CPU bitsandbytes unpacks every weight each time it is"
            " used, which is slower and saves little. Leave out --load-in-4bit; --lora 16 --dtype"
            " bfloat16 is the nearest thing here"
        )
    if find_spec("bitsandbytes") is None or find_spec("accelerate") is None:
        raise ValueError("4-bit weights need bitsandbytes: pip install 'logpi[qlora]'")
