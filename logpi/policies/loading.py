"""Find and read a model and its tokenizer: a local directory, a hub name, a GGUF file. Every
failure is one clear line.

`files.py` checks a directory before memory is taken for it. After reading, weights that are
missing, of another shape or not finite are refused. A model's own code (`auto_map`) never runs.

A GGUF file is unpacked to plain weights, for packed ones can be neither trained nor saved. Weights
in 4 bits (`four_bits`) are for LoRA, which does not change them (`lora.py`).

Left out: what a model computes (`causal_lm.py`, `reward_model.py`), and heads of reward models
(`reward_heads.py`).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from logpi.distributed.parts import local
from logpi.distributed.sharding import NONE, Shard, settle
from logpi.distributed.world import alone, current
from logpi.policies import files, shards
from logpi.policies.hub import check_model

# kinds of devices that models are known to run on
PLACES = {"cpu", "cuda"}
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
    shard: Shard = NONE,
) -> Any:
    """A `transformers` causal language model, in eval mode.

    Args:
        device: as `place` takes it; None: the CPU.
        four_bit: hold linear layers in 4 bits, and compute in `dtype`; without a device, on the
            current GPU. shard: how weights are laid out over the ranks, which all call this.
    Raises:
        ValueError: nothing at `path`, not a causal language model, unknown dtype.
    """
    from transformers import AutoModelForCausalLM

    model, missing, unknown = read(path, AutoModelForCausalLM, dtype, device, four_bit, shard)
    if missing:
        raise ValueError(
            f"cannot load a model from {path}: there are no weights for"
            f" {missing[0]!r}{_more(missing)}"
        )
    if unknown:
        name = type(model).__name__
        warnings.warn(
            f"{path}: {name} has no {unknown[0]!r}{_more(unknown)}: these weights are left out",
            stacklevel=2,
        )
    return model


def parameters(path: str | Path) -> int:
    """How many parameters a causal language model has; reads no weights. Raises as `load_model`."""
    from transformers import AutoModelForCausalLM as Kind

    source, gguf = _find(path)
    try:
        return sum(p.numel() for p in _empty(Kind, _fitting(source, gguf, Kind, {})).parameters())
    except Exception as error:
        raise ValueError(f"cannot load a model from {path}: {_line(error)}") from None


def read(
    path: str | Path,
    kind: Any,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    four_bit: bool = False,
    shard: Shard = NONE,
    **settings: Any,
) -> tuple[Any, list[str], list[str]]:
    """A model of one of transformers' automatic classes, the names of weights that its files lack,
    and the names of those in the files that the model lacks.

    Args:
        kind: `AutoModelForCausalLM` or another. settings: of the configuration; they override
            config.json.
    Raises:
        ValueError: one line, as `load_model`.
    """
    device = None if device is None else place(device)
    source, gguf = _find(path)
    options = _options(path, gguf, dtype, device, four_bit, shard)
    try:
        config = _fitting(source, gguf, kind, settings)
        if shard or shard.auto:
            shard, layout = shards.layout(shard, _empty(kind, config), options["dtype"])
            options |= layout
        with quiet(reports=False), shards.same_chance(shard):
            model, info = kind.from_pretrained(
                source,
                config=config,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
        _refuse_misshapen(info["mismatched_keys"])
        (current() if shard else alone).each(lambda: _finite(model))
    # a library may raise anything on a stranger's files
    except Exception as error:
        raise ValueError(f"cannot load a model from {path}: {_line(error)}") from None
    if shard:
        settle(model)
    elif device is not None and not four_bit:
        model = model.to(device)
    return model, sorted(info["missing_keys"]), sorted(info["unexpected_keys"])


def _options(
    path: str | Path,
    gguf: dict[str, str],
    dtype: str,
    device: torch.device | None,
    four_bit: bool,
    shard: Shard,
) -> dict[str, Any]:
    """What `from_pretrained` is told. Raises ValueError: things that do not go together."""
    from transformers import GgufConfig

    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; one of {', '.join(DTYPES)}")
    options: dict[str, Any] = {"dtype": DTYPES[dtype], "trust_remote_code": False} | gguf
    if four_bit:
        options |= four_bits(dtype, device)
    if gguf and four_bit:
        raise ValueError(
            f"{path} is a GGUF file, which is unpacked to plain weights: 4 bits need a Hugging Face"
            " directory"
        )
    if (shard or shard.auto) and (gguf or four_bit):
        raise ValueError(f"{path}: neither GGUF files nor 4 bits go with --shard: leave one out")
    home = torch.accelerator.current_accelerator()
    kind = "cpu" if home is None else home.type
    if (shard or shard.auto) and device is not None and device.type != kind:
        raise ValueError(f"--shard puts weights on the {kind} of each rank: leave --device out")
    own = (
        {"quantization_config": GgufConfig(dequantize=True)} if gguf else {"use_safetensors": True}
    )
    return options | own


def _refuse_misshapen(keys: Any) -> None:
    """Raises ValueError: weights of other shapes than the configuration's, `keys` of (name, shape,
    shape that the configuration makes)."""
    for name, own, other in sorted(map(tuple, keys), key=str):
        raise ValueError(
            f"{name} has shape {tuple(own)} in the weights, config.json makes {tuple(other)}"
            f"{_more(list(keys))}"
        )


def _fitting(source: str, gguf: dict[str, str], kind: Any, settings: dict[str, Any]) -> Any:
    """The configuration. Raises ValueError: it is of another kind of model, or a local directory's
    makes a much larger model than its files hold."""
    from transformers import CONFIG_MAPPING, AutoConfig

    weights, local = None, Path(source)
    if gguf:
        weights = files.gguf(local / gguf["gguf_file"])
    elif local.is_dir():
        settings_file = files.config(local)
        name = str(settings_file.get("model_type"))
        if name not in CONFIG_MAPPING:
            own = (
                ", and code of its own (auto_map) is not run" if "auto_map" in settings_file else ""
            )
            raise ValueError(f"config.json: transformers knows no model_type {name!r}{own}")
        _refuse_other(kind, CONFIG_MAPPING[name], name)
        weights = files.weights(local)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, **gguf, **settings)
    except Exception as error:
        raise ValueError(f"config.json cannot be read: {_line(error)}") from None
    _refuse_other(kind, type(config), config.model_type)
    if config.is_encoder_decoder:
        raise ValueError(
            f"it is a {config.model_type} model with an encoder, not {KINDS[kind.__name__]}"
        )
    if weights is not None:
        weights.compare(_empty(kind, config))
    return config


def _refuse_other(kind: Any, config: type, name: str) -> None:
    if config not in kind._model_mapping:
        raise ValueError(f"it is a {name} model, not {KINDS[kind.__name__]}")


def _empty(kind: Any, config: Any) -> Any:
    """The model on torch's device `meta`, which takes no memory."""
    try:
        with torch.device("meta"):
            return kind.from_config(deepcopy(config), trust_remote_code=False)
    except Exception as error:
        raise ValueError(f"config.json describes no model: {_line(error)}") from None


def _finite(model: torch.nn.Module) -> None:
    """Raises ValueError: a weight is NaN or infinite (in float16 perhaps only there)."""
    for name, p in model.named_parameters():
        held = local(p.detach())
        if not p.is_floating_point() or not held.numel():
            continue
        # either is NaN if any weight is
        low, high = held.aminmax()
        if not isfinite(low) or not isfinite(high):
            dtype = str(p.dtype).removeprefix("torch.")
            raise ValueError(f"{name} holds NaN or infinite numbers, as {dtype}")


def place(device: str | torch.device) -> torch.device:
    """A device by its name; "auto" is a CUDA GPU if there is one, else the CPU.

    Raises:
        ValueError: one line: no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        named = torch.device(device)
    except RuntimeError:
        named = None
    if named is None or named.type not in PLACES:
        raise ValueError(f"unknown device {str(device)!r}: cpu, cuda, cuda:1, … or auto")
    if named.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            built = torch.version.cuda
            why = "PyTorch finds no GPU" if built else "this PyTorch was built without CUDA"
            raise ValueError(f"no CUDA device here: {why}; --device cpu does without")
        if (named.index or 0) >= count:
            devices = ", ".join(f"cuda:{i}" for i in range(count))
            raise ValueError(f"no device {named} here: there are {devices}")
        # graphs and kernels name no device: they run on the current one
        torch.cuda.set_device(named)
    return named


def four_bits(dtype: str, device: str | torch.device | None = None) -> dict[str, Any]:
    """Options of `from_pretrained` that hold linear layers in 4 bits (QLoRA, arXiv:2305.14314):
    NF4, with quantised constants, computing in `dtype`; output layers stay as they are. Raises
    ValueError: float16, in which adapters do not learn."""
    if dtype == "float16":
        raise ValueError("adapters on weights of 4 bits do not learn in float16: use bfloat16")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[dtype],
    )
    here = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {"quantization_config": config, "device_map": {"": here if device is None else device}}


def load_tokenizer(path: str | Path) -> Any:
    """The tokenizer beside the model at `path`.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    source, gguf = _find(path)
    try:
        kind: Any = PreTrainedTokenizerFast if _as_it_is(Path(source)) else AutoTokenizer
        tokenizer = kind.from_pretrained(source, trust_remote_code=False, **gguf)
        if not tokenizer.vocab_size:
            raise ValueError("its vocabulary is empty")
    # a library may raise anything on a stranger's files
    except Exception as error:
        fix = "save the model's tokenizer there too, with tokenizer.save_pretrained(...)"
        raise ValueError(f"no tokenizer can be read from {path} ({_line(error)}): {fix}") from None
    _refuse_unreadable(tokenizer, path)
    return tokenizer


def _as_it_is(directory: Path) -> bool:
    """Whether a local tokenizer.json is the whole tokenizer. `AutoTokenizer` would give it the
    splitting rules of its model's family."""
    settings = directory / "tokenizer_config.json"
    if not settings.is_file() or not (directory / "tokenizer.json").is_file():
        return False
    return json.loads(settings.read_text("utf-8")).get("tokenizer_class") in (
        "TokenizersBackend",
        "PreTrainedTokenizerFast",
    )


def _refuse_unreadable(tokenizer: Any, path: str | Path) -> None:
    """Raises ValueError: the chat template is not valid Jinja. Whether it takes messages shows
    when there are messages."""
    from jinja2 import TemplateSyntaxError

    try:
        tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
    except TemplateSyntaxError as error:
        raise ValueError(
            f"the chat template of {path} cannot be read: line {error.lineno}: {error.message}"
        ) from None
    # it wants other messages, or there is none
    except Exception:
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
    """Without progress bars of reading and writing files, which take no time; downloads keep
    theirs. reports: let `transformers` report missing and superfluous weights.
    """
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

    has_bars, loudness = logging.is_progress_bar_enabled(), logging.get_verbosity()
    if not reports:
        logging.set_verbosity_error()
    logging.disable_progress_bar()
    enable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(loudness)
        if has_bars:
            logging.enable_progress_bar()


def _find(path: str | Path) -> tuple[str, dict[str, str]]:
    """Arguments of `from_pretrained`: a directory or hub name, and the GGUF file in it, if any."""
    local = Path(path).expanduser()
    try:
        if local.is_file() and local.suffix == ".gguf":
            return str(local.parent), {"gguf_file": local.name}
        ggufs = sorted(local.glob("*.gguf")) if local.is_dir() else []
        if local.is_dir() and ((local / "config.json").is_file() or not ggufs):
            return str(local), {}
        exists = local.exists()
    except OSError as error:
        raise ValueError(f"{str(path)[:200]} cannot be read: {error.strerror or error}") from None
    if len(ggufs) > 1:
        raise ValueError(f"{path} holds {len(ggufs)} GGUF files; name one, such as {ggufs[0]}")
    if ggufs:
        return str(local), {"gguf_file": ggufs[0].name}
    if exists or str(path).startswith("runs/") or local.suffix == ".gguf":
        raise ValueError(
            f"no model at {path}: give a directory, a .gguf file, or a name on the Hugging Face hub"
        )
    check_model(str(path))
    return str(path), {}


def _line(error: Exception) -> str:
    """The beginning of an error's text in one line; with the error's name, if the text needs it."""
    text = " ".join(str(error).split())[:300]
    if text and isinstance(error, OSError | ValueError):
        return text
    return f"{type(error).__name__} {text}".strip()


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
