"""A checkpoint: nested plain data in a directory, written whole or not at all, checked when it is
read. No pickle.

    save({"policy": policy.state_dict(), "optimizer": adam.state_dict(), "step": 40}, directory)
    state = load(directory)

On disk it is three files. For {"a": w, "b": (w, 0.5), "rows": {3: nan}}, with a tensor w:

    state.safetensors   the tensors, each once, by the place where it stood first:  a
    state.json          everything else, with references to them:
                        {"a": {"$tensor": "a"}, "b": {"$tuple": [{"$tensor": "a"}, 0.5]},
                         "rows": {"$dict": [[3, {"$float": "nan"}]]}}
    manifest.json       size and SHA-256 of both, and a few values to find the checkpoint by:
                        {"state.json": {"size": …, "sha256": …}, …, "about": {"step": 40}}

What comes back is what went in, bit for bit: tuples stay tuples, integer keys stay integers, floats
keep every bit, and a tensor that stood in two places is one tensor again.

Left out: objects (give their `state_dict`), devices (tensors come back on the CPU), which
checkpoint to keep or to take up again (`runs.directory`), and whose state it is.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from logpi.errors import RunError
from logpi.runs.disk import replaced, reported

_FILES = ("state.json", "state.safetensors")


class Damaged(RunError):
    """A checkpoint that was read, and is not what was written."""


def save(
    state: Any, directory: str | Path, about: Mapping[str, Any] | None = None, then: str = ""
) -> None:
    """Write `state` as `directory`, replacing what was there. After a kill it is the old one or the
    new one.

    Args:
        state: dicts, lists, tuples of tensors, NumPy arrays, numbers, strings, bytes, booleans and
            None.
        directory: where; its parents are made.
        about: a few JSON values to find the checkpoint by, read back by `about` without loading the
            state.
        then: what to tell the user to do if the disk fails.

    Raises:
        RunError: the disk is full, permission is lost, …; an earlier checkpoint stays intact.
        TypeError: something in the state is not plain data; the message says where.
    """
    directory = Path(directory)
    encoder = _Encoder()
    text = json.dumps(encoder.encode(state, "state"), allow_nan=False, separators=(",", ":"))
    with reported(f"write the checkpoint {directory}", then), replaced(directory) as partial:
        (partial / "state.json").write_text(text)
        _save_tensors(encoder.tensors, partial / "state.safetensors")
        manifest = {name: _fingerprint(partial / name) for name in _FILES} | {
            "about": dict(about or {})
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))


def load(directory: str | Path, step: int | None = None) -> Any:
    """The state that `save` was given; tensors on the CPU.

    Args:
        step: the step that the checkpoint must be of, if given.

    Raises:
        Damaged: it is not whole: a file is missing, of another size or with other contents, or the
            step is another.
        RunError: it cannot be read: permission, an I/O error, ….
    """
    directory = Path(directory)
    with reported(
        f"read the checkpoint {directory}",
        "nothing was changed; mend the disk and go on with --resume",
    ):
        try:
            manifest = json.loads((directory / "manifest.json").read_bytes())
            wrong = [name for name in _FILES if manifest[name] != _fingerprint(directory / name)]
            if wrong:
                raise Damaged(
                    f"the checkpoint {directory} is damaged: {wrong[0]} is not what was written"
                )
            if step is not None and manifest["about"].get("step") != step:
                raise Damaged(f"{directory} is not a checkpoint of step {step}")
            tensors = load_file(directory / "state.safetensors")
            return _decode(json.loads((directory / "state.json").read_bytes()), tensors)
        except FileNotFoundError as error:
            missing = Path(error.filename or "").name
            raise Damaged(f"{directory} is not a whole checkpoint: {missing} is missing") from None
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RecursionError,
            SafetensorError,
        ) as error:
            raise Damaged(
                f"the checkpoint {directory} is damaged: {type(error).__name__}: {error}"
            ) from None


def about(directory: Path) -> dict[str, Any]:
    """The values that `save` was given to find the checkpoint by; {} if they cannot be read."""
    try:
        values = json.loads((directory / "manifest.json").read_bytes())["about"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


# --- files ---


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        # It wraps the system's errors in its own.
        number = re.search(r"os error (\d+)", str(error))
        if not number:
            raise
        raise OSError(
            int(number[1]), str(error).split(" (os error")[0].rpartition(": ")[2]
        ) from error


def _fingerprint(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():
        raise IsADirectoryError(errno.EISDIR, "not a file", str(path))
    with open(path, "rb") as file:
        return {
            "size": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


# --- plain data <-> JSON and tensors ---


class _Encoder:
    """Turns a state into JSON and gathers its tensors.

    What JSON lacks is an object with one key that starts with "$": {"$tuple": [...]}, {"$tensor":
    name}, … A dict whose keys are not all strings, or whose keys might be mistaken for such, is
    {"$dict": [[key, value], …]}.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._seen: dict[tuple[Any, ...], str] = {}
        # An address names a tensor only for as long as the tensor lives.
        self._alive: list[Tensor] = []

    def encode(self, value: Any, path: str) -> Any:
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int | float):
            return _number(value)
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if isinstance(value, list | tuple):
            items = [self.encode(v, f"{path}.{i}") for i, v in enumerate(value)]
            return {"$tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, bytes):
            return {"$bytes": base64.b64encode(value).decode()}
        if isinstance(value, Tensor):
            if value.layout is not torch.strided or value.is_meta:
                raise TypeError(
                    f"a checkpoint holds dense tensors with contents; {path} is not one"
                )
            return {"$tensor": self._tensor(value.detach(), path)}
        if type(value).__module__ == "numpy":
            return {"$array": self._tensor(_from_numpy(value, path), path)}
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(
            f"a checkpoint holds plain data and tensors; {path} is a {kind}: give its state_dict()"
        )

    def _mapping(self, value: Mapping[Any, Any], path: str) -> Any:
        if all(isinstance(k, str) and not k.startswith("$") for k in value):
            return {k: self.encode(v, f"{path}.{k}") for k, v in value.items()}
        pairs = [
            [self.encode(k, f"{path} (a key)"), self.encode(v, f"{path}.{k}")]
            for k, v in value.items()
        ]
        return {"$dict": pairs}

    def _tensor(self, value: Tensor, path: str) -> str:
        same = (value.device, value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if value.numel() and same in self._seen:
            return self._seen[same]
        name = path.removeprefix("state.")
        while name in self.tensors:  # {"a.b": x} beside {"a": {"b": y}}
            name += "'"
        # A copy where it shares memory with another (a row of a flat parameter buffer): the format
        # forbids overlap.
        plain = value.cpu().contiguous()
        shares = plain.untyped_storage().nbytes() != plain.numel() * plain.element_size()
        self.tensors[name] = plain.clone() if shares else plain
        self._seen[same] = name
        self._alive.append(value)
        return name


def _number(value: int | float) -> Any:
    if isinstance(value, int):
        return int(value)
    return float(value) if math.isfinite(value) else {"$float": str(float(value))}


def _from_numpy(value: Any, path: str) -> Tensor:
    import numpy

    array = numpy.asarray(value)
    try:
        return torch.from_numpy(array.copy()).reshape(array.shape)
    except TypeError:
        raise TypeError(
            f"a checkpoint cannot hold a NumPy array of {array.dtype}: {path}"
        ) from None


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if len(value) != 1 or not tag.startswith("$"):
        return {k: _decode(v, tensors) for k, v in value.items()}
    content = value[tag]
    match tag:
        case "$tuple":
            return tuple(_decode(v, tensors) for v in content)
        case "$dict":
            return {_decode(k, tensors): _decode(v, tensors) for k, v in content}
        case "$float":
            return float(content)
        case "$bytes":
            return base64.b64decode(content)
        case "$tensor":
            return tensors[content]
        case "$array":
            return tensors[content].numpy()[()]
    raise RunError(
        f"the checkpoint has a {tag!r} that this version does not know; it was written by a"
        " newer one"
    )
