"""What a request may say: the fields of the two routes, and those that pass or are refused.

A field is understood, or it passes because it changes nothing (`user`; a penalty of 0), or the
request is refused: nothing is left out in silence. Left out: prompts and messages themselves
(`prompts.py`, `calls/messages.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from logpi.calls.json_schema import problem, short
from logpi.engine.openai_server.errors import RequestError
from logpi.errors import did_you_mean

# samples of a prompt; prompts of a request; likeliest tokens; stop strings and their length
SAMPLES, PROMPTS, LIKELIEST, STOPS, STOP = 128, 1024, 20, 16, 256
# below this a temperature means the likeliest token
COLD = 1e-3

_WHOLE = {"type": "integer"}
_FLAG = {"type": "boolean"}
_STOP = {"type": "string", "maxLength": STOP}
_OBJECT = {"type": "object"}
_COUNT = {**_WHOLE, "minimum": 0, "maximum": LIKELIEST}
_LIMIT = {**_WHOLE, "minimum": 0}
_COMMON = {
    "model": {"type": "string"},
    "n": {**_WHOLE, "minimum": 1, "maximum": SAMPLES},
    "max_tokens": _LIMIT,
    "temperature": {"type": "number", "minimum": 0, "maximum": 100},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "top_k": {**_WHOLE, "minimum": -1},
    "seed": {**_WHOLE, "minimum": -(2**63), "maximum": 2**63 - 1},
    "stop": {"anyOf": [_STOP, {"type": "array", "items": _STOP, "maxItems": STOPS}]},
    "stream": _FLAG,
    "stream_options": {**_OBJECT, "properties": {"include_usage": _FLAG}},
    "return_token_ids": _FLAG,
    "return_tokens_as_token_ids": _FLAG,
    "skip_special_tokens": _FLAG,
}
COMPLETION = {
    "type": "object",
    "properties": {
        **_COMMON,
        "prompt": True,
        "echo": _FLAG,
        "logprobs": _COUNT,
        "add_special_tokens": _FLAG,
    },
    "required": ["prompt"],
}
CHAT = {
    "type": "object",
    "properties": {
        **_COMMON,
        "messages": {"type": "array", "items": _OBJECT, "minItems": 1},
        "tools": {"type": "array", "items": _OBJECT},
        "tool_choice": True,
        "logprobs": _FLAG,
        "top_logprobs": _COUNT,
        "max_completion_tokens": _LIMIT,
        "chat_template_kwargs": _OBJECT,
    },
    "required": ["messages"],
}
TOKENIZE = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "prompt": {"type": "string"},
        "messages": {"type": "array", "items": _OBJECT, "minItems": 1},
        "tools": {"type": "array", "items": _OBJECT},
        "add_special_tokens": _FLAG,
        "add_generation_prompt": _FLAG,
        "return_token_strs": _FLAG,
        "chat_template_kwargs": _OBJECT,
    },
    "oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
}
DETOKENIZE = {
    "type": "object",
    "properties": {"model": {"type": "string"}, "tokens": True},
    "required": ["tokens"],
}
WEIGHTS = {"type": "object", "properties": {"path": {"type": "string", "minLength": 1}}}
# These change nothing, whatever they say.
PASS = {"user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "request_id"}
# These change nothing with one of these values.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "best_of": (1,),
    "continue_final_message": (False,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "priority": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "spaces_between_special_tokens": (True, False),
    "stop_token_ids": ([],),
    "store": (False,),
    "suffix": ("",),
    "use_beam_search": (False,),
}


def checked(body: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request that are understood; null is not given.

    Raises:
        RequestError: a field of another type or range, one that is not supported, or unknown.

    >>> checked({"prompt": "a", "user": "me", "top_p": None}, COMPLETION)
    {'prompt': 'a'}
    """
    if not isinstance(body, Mapping):
        raise RequestError("the body must be a JSON object")
    known: Mapping[str, Any] = schema["properties"]
    fields = {}
    for name, value in body.items():
        if value is None or name in PASS:
            continue
        if name in known:
            fields[name] = value
        elif name not in NEUTRAL:
            hint = did_you_mean(name[:60], known)
            raise RequestError(f"this server has no parameter {name[:60]!r}{hint}")
        elif value not in NEUTRAL[name]:
            passes = " or ".join(map(repr, NEUTRAL[name]))
            raise RequestError(f"{name}={short(value)} is not supported here (only {passes})")
    # long lists of ids are looked at where they are read
    light = {k: True if known[k] is True else v for k, v in fields.items()}
    if fault := problem(light, schema):
        raise RequestError(fault)
    return fields


@dataclass(frozen=True)
class Wish:
    """How a request wants to be answered; both routes.

    Attributes:
        n: samples of each prompt. max_tokens: of each, or None for what fits.
        temperature, top_p, top_k, seed, stop: of sampling; greedy: the likeliest tokens instead.
        logprobs: likeliest tokens to report beside each token's own, or None for no numbers.
        stream, usage: answer in pieces, and at the end with the count of tokens.
        token_ids: report them and the prompt's. as_ids: tokens are called token_id:N.
        skip_special: special tokens have no text.
        goes_on: the text goes on from the prompt's, as it does not in a chat.
    """

    n: int = 1
    max_tokens: int | None = None
    temperature: float = 1.0
    greedy: bool = False
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    stream: bool = False
    usage: bool = False
    token_ids: bool = False
    as_ids: bool = False
    skip_special: bool = False
    goes_on: bool = False


def wish(fields: Mapping[str, Any], max_tokens: int | None, logprobs: int | None) -> Wish:
    """The wish that checked fields state; `max_tokens` and `logprobs` as their route has them."""
    stop = fields.get("stop", ())
    temperature = float(fields.get("temperature", 1.0))
    options = fields.get("stream_options", {})
    if options and not fields.get("stream"):
        raise RequestError("stream_options is for stream=true")
    return Wish(
        n=int(fields.get("n", 1)),
        max_tokens=None if max_tokens is None else int(max_tokens),
        temperature=max(temperature, COLD),
        greedy=temperature < COLD,
        top_p=float(fields.get("top_p", 1.0)),
        top_k=max(0, int(fields.get("top_k", 0))),
        seed=None if "seed" not in fields else int(fields["seed"]),
        stop=tuple(s for s in ((stop,) if isinstance(stop, str) else stop) if s),
        logprobs=None if logprobs is None else int(logprobs),
        stream=bool(fields.get("stream")),
        usage=bool(options.get("include_usage")),
        token_ids=bool(fields.get("return_token_ids")),
        as_ids=bool(fields.get("return_tokens_as_token_ids")),
        skip_special=bool(fields.get("skip_special_tokens")),
    )
