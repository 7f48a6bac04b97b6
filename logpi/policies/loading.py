"""Find and read a model and its tokenizer: a local directory, a hub name, a GGUF file. Every failure is one clear line.

A GGUF file is unpacked to plain weights, or it could be neither trained nor saved. Weights in 4 bits (`four_bits`) are for
LoRA, which leaves them as they are (`lora.py`).

Left out: what a model is asked (`causal_lm.py`, `reward_model.py`), and the reward model's own reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

__all__ = ["four_bits", "load_model", "load_tokenizer", "place", "quiet"]

PLACES = {"cpu", "cuda"}  # kinds of devices that models are known to run on
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    path: str | Path, dtype: str = "float32", device: str | torch.device | None = None, four_bit: bool = False
) -> Any:
    """A `transformers` causal language model, in eval mode.

    Args:
        device: for `place`; None leaves it on the CPU.
        four_bit: linear layers in 4 bits, computing in `dtype`; without a device, on the current GPU.
    Raises:
        ValueError: nothing at `path`, not a causal language model, unknown dtype.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; one of {', '.join(DTYPES)}")
    device = None if device is None else place(device)
    source, gguf = _resolve(path)
    options = {"dtype": DTYPES[dtype]} | (four_bits(dtype, device) if four_bit else {})
    if gguf and four_bit:
        raise ValueError(
            f"{path} is a GGUF file, which is unpacked to plain weights: 4 bits need a Hugging Face directory"
        )
    if gguf:
        options |= gguf | {"quantization_config": GgufConfig(dequantize=True)}
    try:
        config = AutoConfig.from_pretrained(source, **gguf)
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not getattr(config, "auto_map", None):
            raise ValueError(f"it is a {config.model_type} model, not a causal language model")
        with quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load a model from {path}: {_line(error)}") from None
    return model.to(device) if device is not None and not four_bit else model


def place(device: str | torch.device) -> torch.device:
    """The device that is meant; "auto" is a CUDA GPU if there is one, else the CPU.

    Raises:
        ValueError: one line: no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in PLACES:
        raise ValueError(f"unknown device {str(device)!r}: cpu, cuda, cuda:1, … or auto")
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            why = "PyTorch finds no GPU" if torch.version.cuda else "this PyTorch was built without CUDA"
            raise ValueError(f"no CUDA device here: {why}; --device cpu does without")
        if (found.index or 0) >= count:
            raise ValueError(f"no device {found} here: there are {', '.join(f'cuda:{i}' for i in range(count))}")
        torch.cuda.set_device(found)  # what names no device (graphs, kernels) then runs where the model is
    return found


def four_bits(dtype: str, device: str | torch.device | None = None) -> dict[str, Any]:
    """What `from_pretrained` needs to hold linear layers in 4 bits (QLoRA, arXiv:2305.14314): NF4, its constants
    quantised too, computing in `dtype`; output layers stay as they are. Raises ValueError: float16, in which nothing learns."""
    if dtype == "float16":
        raise ValueError("adapters on weights of 4 bits do not learn in float16: use bfloat16")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[dtype],
    )
    place = device if device is not None else torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": place}}


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer beside the model at `path`.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    source, gguf = _resolve(path)
    try:
        return AutoTokenizer.from_pretrained(source, **gguf)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        fix = "save the model's tokenizer there too, with tokenizer.save_pretrained(...)"
        raise ValueError(f"no tokenizer can be read from {path}: {fix}") from None


@contextmanager
def quiet() -> Iterator[None]:
    """No bars for reading and writing files, which is over before one has read them; downloads keep theirs."""
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    enable_progress_bars()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _resolve(path: str | Path) -> tuple[str, dict[str, str]]:
    """What to give to `from_pretrained`: a directory or hub name, and which GGUF file in it, if it is one."""
    local = Path(path).expanduser()
    if local.is_file() and local.suffix == ".gguf":
        return str(local.parent), {"gguf_file": local.name}
    if local.is_dir():
        files = sorted(local.glob("*.gguf"))
        if (local / "config.json").is_file() or not files:
            return str(local), {}
        if len(files) > 1:
            raise ValueError(f"{path} holds {len(files)} GGUF files; name one, such as {files[0]}")
        return str(local), {"gguf_file": files[0].name}
    name = str(path)
    if local.exists() or name.startswith((".", "/", "~", "runs/")) or name.endswith(".gguf") or name.count("/") > 1:
        raise ValueError(f"no model at {path}: give a directory, a .gguf file, or a name on the Hugging Face hub")
    return name, {}


def _line(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
