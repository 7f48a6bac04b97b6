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

Where weights are in shards over several ranks, every rank writes its own beside them:

    shards/shard-00001-….safetensors, …    tensors by name, in parts; {"$shard": "policy.w"}
    manifest.json                          their hashes too, and "shards": {"policy.w": what it is}

Of several ranks every one calls `save` and `load`, and any number of ranks can read what any other
number has written. What comes back is what went in, bit for bit: tuples stay tuples, integer keys
stay integers, floats keep every bit, and a tensor that stood in two places is one tensor again.

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as to_tensors
from safetensors.torch import load_file, save_file
from safetensors.torch import save as from_tensors
from torch import Tensor

from logpi.distributed import shard_files
from logpi.distributed.parts import local
from logpi.distributed.world import TOLD, World, current, is_sharded
from logpi.errors import RunError
from logpi.runs.disk import replaced, reported

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

R = TypeVar("R")

_FILES = ("state.json", "state.safetensors")
_SHARDS = "shards"


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
    world, directory = current(), Path(directory)
    encoder = _Encoder(world.first)
    text = json.dumps(encoder.encode(state, "state"), allow_nan=False, separators=(",", ":"))

    def told(work: Callable[[], R]) -> Callable[[], R]:
        """`work`, its errors of the disk in one line."""
        return reported(f"write the checkpoint {directory}", then)(work)

    with ExitStack() as stack:

        def begin() -> Path:
            partial = stack.enter_context(replaced(directory))
            (partial / "state.json").write_text(text)
            _save_tensors(encoder.tensors, partial / "state.safetensors")
            if encoder.shards:
                (partial / _SHARDS).mkdir()
            return partial

        def end() -> None:
            known = dict(x for files in written for x in files.items())
            manifest = known | {"about": dict(about or {})}
            if encoder.shards:
                kinds = {name: shard_files.described(x) for name, x in encoder.shards.items()}
                manifest["shards"] = kinds
            (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
            stack.close()  # the partial directory takes its name

        partial = world.by_first(told(begin))
        if encoder.shards:
            told(lambda: shard_files.write(encoder.shards, partial / _SHARDS))()
        written = world.each(told(lambda: _fingerprints(partial, world)))
        world.by_first(told(end))


def load(directory: str | Path, step: int | None = None, mesh: DeviceMesh | None = None) -> Any:
    """The state that `save` was given; tensors on the CPU.

    Args:
        step: the step that the checkpoint must be of, if given.
        mesh: where tensors in shards go (`sharding.mesh_of`); without it they come whole.

    Raises:
        Damaged: it is not whole: a file is missing, of another size or with other contents, or the
            step is another. Of several ranks, all raise it.
        RunError: it cannot be read: permission, an I/O error, ….
    """
    world, directory = current(), Path(directory)
    manifest = _agreed(world, lambda: _checked(world, directory, step))
    text, tensors = _agreed(world, lambda: _plain(directory) if world.first else (None, {}))
    text, tensors = world.broadcast(text), _by_first(world, tensors)
    shards = manifest.get("shards")
    if shards:
        tensors |= _agreed(world, lambda: _in_shards(directory, shards, mesh))
    with _sound(directory):
        return _decode(text, tensors)


def _checked(world: World, directory: Path, step: int | None) -> dict[str, Any]:
    """The manifest; this rank looks at its share of the files."""
    with _sound(directory):
        manifest = json.loads((directory / "manifest.json").read_bytes())
        names = sorted({*_FILES, *manifest} - {"about", "shards"})
        for name in names[world.rank :: world.size]:
            if manifest[name] != _fingerprint(directory / name):
                raise Damaged(
                    f"the checkpoint {directory} is damaged: {name} is not what was written"
                )
        if step is not None and manifest["about"].get("step") != step:
            raise Damaged(f"{directory} is not a checkpoint of step {step}")
        return manifest


def _plain(directory: Path) -> tuple[Any, dict[str, Tensor]]:
    """What is not in shards: JSON, and the tensors in it."""
    with _sound(directory):
        tensors = load_file(directory / "state.safetensors")
        return json.loads((directory / "state.json").read_bytes()), tensors


def _by_first(world: World, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The first rank's tensors, one at a time, on every rank. They travel as safetensors: torch
    pickles unsigned whole numbers (random generators have some) in a way that it cannot read."""
    if world.size == 1:
        return tensors
    names = world.broadcast(list(tensors))
    files = (world.broadcast(from_tensors({n: tensors[n]}) if world.first else b"") for n in names)
    return {name: tensor for file in files for name, tensor in to_tensors(file).items()}


def _in_shards(
    directory: Path, wanted: Mapping[str, Any], mesh: DeviceMesh | None
) -> dict[str, Tensor]:
    with _sound(directory):
        return shard_files.read(wanted, directory / _SHARDS, mesh)


def _agreed(world: World, work: Callable[[], R]) -> R:
    """What `work` returns here; if a rank finds damage, all do."""
    result, failure = None, None
    try:
        result = work()
    except RunError as error:
        failure = type(error), str(error)
    for kind, text in filter(None, world.gather(failure)):
        error = kind(text)
        setattr(error, TOLD, world.size > 1)
        raise error
    return result  # type: ignore[return-value]


@contextmanager
def _sound(directory: Path) -> Iterator[None]:
    """What can go wrong in reading, as `Damaged` or as an error of the disk."""
    with reported(
        f"read the checkpoint {directory}",
        "nothing was changed; mend the disk and go on with --resume",
    ):
        try:
            yield
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


def _fingerprints(directory: Path, world: World) -> dict[str, dict[str, Any]]:
    """Of the files that this rank has written, by name."""
    paths = [directory / name for name in _FILES] if world.first else []
    paths += shard_files.mine(directory / _SHARDS)
    return {str(path.relative_to(directory)): _fingerprint(path) for path in paths}


# --- plain data <-> JSON and tensors ---


class _Encoder:
    """Turns a state into JSON and gathers its tensors.

    What JSON lacks is an object with one key that starts with "$": {"$tuple": [...]}, {"$tensor":
    name}, … A dict whose keys are not all strings, or whose keys might be mistaken for such, is
    {"$dict": [[key, value], …]}.

    Args:
        keep: tensors are copied to be written; else they only get their names.
    """

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.tensors: dict[str, Tensor] = {}
        self.shards: dict[str, Tensor] = {}
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
            if is_sharded(value):
                return {"$shard": self._shard(value.detach(), path)}
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
        name = self._name(path)
        # A copy where it shares memory with another (a row of a flat parameter buffer): the format
        # forbids overlap.
        plain = value.cpu().contiguous() if self.keep else torch.empty(0)
        shares = plain.untyped_storage().nbytes() != plain.numel() * plain.element_size()
        self.tensors[name] = plain.clone() if shares else plain
        self._seen[same] = name
        self._alive.append(value)
        return name

    def _shard(self, value: Tensor, path: str) -> str:
        held = local(value)
        where = held.untyped_storage().data_ptr()
        same = (where, held.storage_offset(), value.dtype, tuple(value.shape))
        if where and same in self._seen:
            return self._seen[same]
        name = self._name(path)
        self.shards[name] = value
        self._seen[same] = name
        self._alive.append(value)
        return name

    def _name(self, path: str) -> str:
        name = path.removeprefix("state.")
        while name in self.tensors or name in self.shards:  # {"a.b": x} beside {"a": {"b": y}}
            name += "'"
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
        case "$tensor" | "$shard":
            return tensors[content]
        case "$array":
            return tensors[content].numpy()[()]
    raise RunError(
        f"the checkpoint has a {tag!r} that this version does not know; it was written by a"
        " newer one"
    )
