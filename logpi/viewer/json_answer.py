"""JSON that a browser reads, whatever a model wrote: NaN is null, half characters are escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from logpi.runs.summary import number


def to_json(value: Any) -> bytes:
    """JSON for a browser: NaN is null, and half characters of a model's text stay readable.

    >>> to_json({"a": float("nan"), "b": "é\\ud83d"})
    b'{"a":null,"b":"\\xc3\\xa9\\\\ud83d"}'
    """
    options: dict[str, Any] = {"ensure_ascii": False, "separators": (",", ":")}
    try:
        text = json.dumps(value, allow_nan=False, **options)
    except ValueError:
        text = json.dumps(finite(value), **options)
    return text.encode("utf-8", "backslashreplace")


def finite(value: Any) -> Any:
    """A value without NaN and infinities: None in their places."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    return [finite(v) for v in value] if isinstance(value, list | tuple) else value
