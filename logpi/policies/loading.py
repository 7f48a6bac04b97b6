"""Find and read a model and its tokenizer: a local directory, a hub name, a GGUF file. Every
failure is one clear line.

A directory is looked at before memory is taken for it (`files.py`), and its numbers when they are
there: weights that are missing, of another shape or not finite are refused. Code of a model's own
    (`auto_map`) is never run.

A GGUF file is unpacked to plain weights, or it could be neither trained nor saved. Weights in 4
bits (`four_bits`) are for LoRA, which leaves them as they are (`lora.py`).

Left out: what a model is asked (`causal_lm.py`, `reward_model.py`), and the reward model's own
reading.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from logpi.policies import files
from logpi.policies.hub import check_model

PLACES = {"cpu", "cuda"}  # kinds of devices that models are known to run on
KINDS = {
    "AutoModelForCausalLM": "a causal language model",
    "AutoModelForSequenceClassification": "one that a reward model can be made of",
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    path: str | Path,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    four_bit: bool = False,
) -> Any:
    """A `transformers` causal language model, in eval mode.

    Args:
        device: for `place`; None leaves it on the CPU.
        four_bit: linear layers in 4 bits, computing in `dtype`; without a device, on the current
            GPU.
    Raises:
        ValueError: nothing at `path`, not a causal language model, unknown dtype.
    """
    from transformers import AutoModelForCausalLM

    model, missing, unknown = read(path, AutoModelForCausalLM, dtype, device, four_bit)
    if missing:
        raise ValueError(
            f"cannot load a model from {path}: there are no weights for"
            f" {missing[0]!r}{_more(missing)}"
        )
    if unknown:
        name = type(model).__name__
        warnings.warn(
            f"{path}: {name} knows no {unknown[0]!r}{_more(unknown)}: these weights are left out",
            stacklevel=2,
        )
    return model


def read(
    path: str | Path,
    kind: Any,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    four_bit: bool = False,
    **settings: Any,
) -> tuple[Any, list[str], list[str]]:
    """A model of one of transformers' automatic classes; the weights that its files do not have,
    and those it does not know.

    Args:
        kind: `AutoModelForCausalLM` or another. settings: of the configuration, instead of what
            config.json says.
    Raises:
        ValueError: one line, as `load_model`.
    """
    from transformers import GgufConfig

    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; one of {', '.join(DTYPES)}")
    device = None if device is None else place(device)
    source, gguf = _resolve(path)
    options: dict[str, Any] = {"dtype": DTYPES[dtype], "trust_remote_code": False} | gguf
    if four_bit:
        options |= four_bits(dtype, device)
    if gguf and four_bit:
        raise ValueError(
            f"{path} is a GGUF file, which is unpacked to plain weights: 4 bits need a Hugging Face"
            " directory"
        )
    options |= (
        {"quantization_config": GgufConfig(dequantize=True)} if gguf else {"use_safetensors": True}
    )
    try:
        config = _fitting(source, gguf, kind, settings)
        with quiet(reports=False):
            model, info = kind.from_pretrained(
                source,
                config=config,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        _refuse_misshapen(info["mismatched_keys"])
        _finite(model)
    except Exception as error:  # whatever a library makes of a stranger's files
        raise ValueError(f"cannot load a model from {path}: {_line(error)}") from None
    model = model.to(device) if device is not None and not four_bit else model
    return model, sorted(info["missing_keys"]), sorted(info["unexpected_keys"])


def _refuse_misshapen(keys: Any) -> None:
    """Raises ValueError: weights of other shapes than the configuration's."""
    for name, *shapes in sorted(map(tuple, keys), key=str):
        held, wanted = (tuple(s) for s in shapes)
        raise ValueError(
            f"{name} has shape {held} in the weights, config.json makes {wanted}{_more(list(keys))}"
        )


def _fitting(source: str, gguf: dict[str, str], kind: Any, settings: dict[str, Any]) -> Any:
    """The configuration; that of a local directory makes a model as large as the files are. Raises
    an error if not."""
    from transformers import CONFIG_MAPPING, AutoConfig

    held, local = None, Path(source)
    if gguf:
        held = files.gguf(local / gguf["gguf_file"])
    elif local.is_dir():
        said = files.config(local)
        name = str(said.get("model_type"))
        if name not in CONFIG_MAPPING:
            own = ", and code of its own (auto_map) is not run" if "auto_map" in said else ""
            raise ValueError(f"config.json: transformers knows no model_type {name!r}{own}")
        _refuse_other(kind, CONFIG_MAPPING[name], name)
        held = files.weights(local)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **gguf, **settings)
    except Exception as error:
        raise ValueError(f"config.json cannot be read: {_line(error)}") from None
    _refuse_other(kind, type(config), config.model_type)
    if config.is_encoder_decoder:
        raise ValueError(
            f"it is a {config.model_type} model with an encoder, not {KINDS[kind.__name__]}"
        )
    if held is not None:
        held.compare(_empty(kind, config))
    return config


def _refuse_other(kind: Any, config: type, name: str) -> None:
    if config not in kind._model_mapping:
        raise ValueError(f"it is a {name} model, not {KINDS[kind.__name__]}")


def _empty(kind: Any, config: Any) -> Any:
    """The model without memory."""
    from copy import deepcopy

    try:
        with torch.device("meta"):
            return kind.from_config(deepcopy(config), trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"config.json describes no model: {_line(error)}") from None


def _finite(model: torch.nn.Module) -> None:
    """Raises ValueError: a weight is not a number, or infinite (in float16 perhaps only there)."""
    for name, p in model.named_parameters():
        if (
            p.is_floating_point()
            and p.numel()
            and not all(map(isfinite, map(float, p.detach().aminmax())))
        ):
            raise ValueError(
                f"{name} holds NaN or infinite numbers, as {str(p.dtype).removeprefix('torch.')}"
            )


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
            why = (
                "PyTorch finds no GPU"
                if torch.version.cuda
                else "this PyTorch was built without CUDA"
            )
            raise ValueError(f"no CUDA device here: {why}; --device cpu does without")
        if (found.index or 0) >= count:
            raise ValueError(
                f"no device {found} here: there are {', '.join(f'cuda:{i}' for i in range(count))}"
            )
        torch.cuda.set_device(
            found
        )  # what names no device (graphs, kernels) then runs where the model is
    return found


def four_bits(dtype: str, device: str | torch.device | None = None) -> dict[str, Any]:
    """What `from_pretrained` needs to hold linear layers in 4 bits (QLoRA, arXiv:2305.14314): NF4,
    its constants quantised too, computing in `dtype`; output layers stay as they are. Raises
    ValueError: float16, in which nothing learns."""
    if dtype == "float16":
        raise ValueError("adapters on weights of 4 bits do not learn in float16: use bfloat16")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[dtype],
    )
    place = (
        device
        if device is not None
        else torch.cuda.current_device()
        if torch.cuda.is_available()
        else "cpu"
    )
    return {"quantization_config": config, "device_map": {"": place}}


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer beside the model at `path`.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    source, gguf = _resolve(path)
    try:
        kind: Any = PreTrainedTokenizerFast if _as_it_is(Path(source)) else AutoTokenizer
        tokenizer = kind.from_pretrained(source, trust_remote_code=False, **gguf)
        if not tokenizer.vocab_size:
            raise ValueError("its vocabulary is empty")
    except Exception as error:  # whatever a library makes of a stranger's files
        fix = "save the model's tokenizer there too, with tokenizer.save_pretrained(...)"
        raise ValueError(f"no tokenizer can be read from {path} ({_line(error)}): {fix}") from None
    _refuse_unreadable(tokenizer, path)
    return tokenizer


def _as_it_is(directory: Path) -> bool:
    """Whether a local tokenizer.json is all there is to say. `AutoTokenizer` would give it the
    splitting rules of its model's family."""
    settings = directory / "tokenizer_config.json"
    if not settings.is_file() or not (directory / "tokenizer.json").is_file():
        return False
    return json.loads(settings.read_text("utf-8")).get("tokenizer_class") in (
        "TokenizersBackend",
        "PreTrainedTokenizerFast",
    )


def _refuse_unreadable(tokenizer: Any, path: str | Path) -> None:
    """Raises ValueError: the chat template is no template. (What it says of messages is seen with
    messages.)"""
    from jinja2 import TemplateSyntaxError

    try:
        tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
    except TemplateSyntaxError as error:
        raise ValueError(
            f"the chat template of {path} cannot be read: line {error.lineno}: {error.message}"
        ) from None
    except Exception:  # it wants other messages, or there is none
        return


def refuse_unembedded(tokenizer: Any, model: Any) -> None:
    """Raises ValueError: the tokenizer has tokens (beside its padding, which no model reads) that
    the model does not."""
    embeddings = model.get_input_embeddings().weight.shape[0]
    own = {token for token, i in tokenizer.get_vocab().items() if i >= embeddings} - {
        tokenizer.pad_token
    }
    if own:
        raise ValueError(
            f"the tokenizer has {sorted(own)[0]!r}{_more(list(own))} beyond the model's"
            f" {embeddings:,} embeddings: call model.resize_token_embeddings(len(tokenizer)) and"
            " save the model, or save the tokenizer that belongs to it"
        )


@contextmanager
def quiet(reports: bool = True) -> Iterator[None]:
    """No bars for reading and writing files, which is over before one has read them; downloads keep
    theirs.

    reports: of weights that are missing, or too many; without, who loads says so.
    """
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

    shown, loudness = logging.is_progress_bar_enabled(), logging.get_verbosity()
    if not reports:
        logging.set_verbosity_error()
    logging.disable_progress_bar()
    enable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(loudness)
        if shown:
            logging.enable_progress_bar()


def _resolve(path: str | Path) -> tuple[str, dict[str, str]]:
    """What to give to `from_pretrained`: a directory or hub name, and which GGUF file in it, if it
    is one."""
    try:
        return _place(path)
    except OSError as error:
        raise ValueError(f"{str(path)[:200]} cannot be read: {error.strerror or error}") from None


def _place(path: str | Path) -> tuple[str, dict[str, str]]:
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
    if local.exists() or str(path).startswith("runs/") or local.suffix == ".gguf":
        raise ValueError(
            f"no model at {path}: give a directory, a .gguf file, or a name on the Hugging Face hub"
        )
    check_model(str(path))
    return str(path), {}


def _line(error: Exception) -> str:
    """The beginning of an error's text in one line; with its name, if it says nothing by itself."""
    text = " ".join(str(error).split())[:300]
    return (
        text
        if isinstance(error, OSError | ValueError) and text
        else f"{type(error).__name__} {text}".strip()
    )


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
