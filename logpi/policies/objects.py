"""A model given as an object, or named by a user's file, where a path would do.

    CausalLM.load("dir")                              files (`loading.py`)
    CausalLM.load(model, tokenizer=tokenizer)         a loaded `transformers` model, used in place
    CausalLM.load(policy)                             returned as it is
    CausalLM.load("mine.py:make")                     an object of a Python file; a function or a
                                                      class is called, and gives one of the above
                                                      (or a pair: model, tokenizer)

Jobs pass the options of their command line whatever the model is. An object has settings of its
own: an option at its default changes nothing, and any other must agree with the object.

Left out: reading files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from logpi.policies.loading import place
from logpi.runs.user_code import from_user_code, is_user_code


def source_of(source: Any, tokenizer: Any = None) -> tuple[Any, Any]:
    """(what to load, its tokenizer or None): a path as it is; a word `FILE.py:NAME` as the object
    that it names.

    Raises:
        ValueError: a tokenizer beside a path; the file's object is no model.
        UserError: the file cannot be run, or has no such name.
    """
    if not isinstance(source, str | Path):
        return source, tokenizer
    if tokenizer is not None:
        raise ValueError(f"{source} is read with the tokenizer beside it: leave tokenizer out")
    if not is_user_code(str(source)):
        return source, None
    value = from_user_code(str(source))
    if not isinstance(value, nn.Module) and callable(value):
        value = value()
    model, tokenizer = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{source} gives {type(value).__name__}, not a model: return a CausalLM, or a"
            " transformers model with its tokenizer"
        )
    return model, tokenizer


@contextmanager
def named_errors(source: Any, kind: str = "model") -> Iterator[None]:
    """ValueErrors inside say what cannot be loaded, and from which source."""
    try:
        yield
    except ValueError as error:
        name = source if isinstance(source, str | Path) else type(source).__name__
        reason = str(error).removeprefix(f"cannot load a model from {name}: ")
        raise ValueError(f"cannot load a {kind} from {name}: {reason}") from None


def check_model(model: Any, tokenizer: Any, kind: str) -> None:
    """Raises ValueError: no `transformers` model, or none with a tokenizer."""
    name = type(model).__name__
    if not isinstance(model, nn.Module):
        raise ValueError(f"a model is a path, a hub name or an object, not {name}")
    if not callable(getattr(model, "get_input_embeddings", None)):
        raise ValueError(f"{name} is no model of transformers, so no {kind} can be made of it")
    if type(model).__module__.startswith("peft."):
        raise ValueError(
            f"{name} is wrapped by peft: give the plain model and a LoraConfig, or what"
            " model.merge_and_unload() returns"
        )
    if tokenizer is None:
        raise ValueError(
            f"{name} needs its tokenizer: logpi.LanguageModel.load(model, tokenizer=tokenizer), or"
            " tokenizer= beside model="
        )


def check_options(module: Any, dtype: str, four_bit: bool) -> None:
    """Raises ValueError: the object is of another precision than what is asked for."""
    name = type(module).__name__
    if four_bit and not getattr(module, "is_loaded_in_4bit", False):
        raise ValueError(f"{name} is loaded already, and not in 4 bits: give its path instead")
    own = str(next(module.parameters()).dtype).removeprefix("torch.")
    if dtype not in ("float32", own):
        raise ValueError(f"{name} is loaded already, in {own}: leave dtype {dtype} out")


def check_settings(policy: Any, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Turn gradient checkpointing on, if an option says so.

    Raises:
        ValueError: another option that is neither at its default nor what the policy has.
    """
    for name, value in options.items():
        if name == "gradient_checkpointing":
            if value:
                policy.checkpoint()
            continue
        if name not in defaults:
            raise TypeError(f"load() has no option {name!r}")
        if value != defaults[name] and value != getattr(policy, name, value):
            raise ValueError(
                f"this {type(policy).__name__} was made with {name}={getattr(policy, name)!r}:"
                f" set {name} where it is made"
            )


def moved(module: Any, device: Any) -> Any:
    """The module on a device; None and "auto" leave it where it is. Raises ValueError: no such
    device."""
    return module if device in (None, "auto") else module.to(place(device))
