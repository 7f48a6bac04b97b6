"""Check a model directory before it is loaded: is it whole, and are its weights as large as its
configuration says?

A stranger's directory may be broken, cut short, or made to hurt. These checks read JSON and the
headers of weights, a few kilobytes. They take no memory for weights, unpickle nothing, and run no
code of the directory. `loading.py` reads a directory that passes, and then checks its numbers.

    config.json            JSON, no more layers than there are tensors, sizes that make as many
                           numbers as the files hold
    *.safetensors          headers that fit their files; an index whose shards are in this directory
    *.gguf                 a header whose counts and lengths fit the file

Left out: names on the hub, whose files are not here yet; their numbers are checked all the same.
"""

from __future__ import annotations

import json
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

# most bytes of a JSON file; an index of the largest models has a tenth
SMALL = 2**26
# a model may have so many times the numbers of its files: reading finds what is missing in detail
SLACK = 2
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
LAYERS = (
    "num_hidden_layers",
    "num_layers",
    "n_layers",
    "n_layer",
    "encoder_layers",
    "decoder_layers",
    "block_count",
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class Weights:
    """The tensors of a directory's safetensors, by their headers.

    Attributes:
        config: config.json. shapes: of each tensor, by name.

    Raises:
        ValueError: more layers, or larger ones, than there are weights.
    """

    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def numbers(self) -> int:
        """All of them. Up to 16 numbers of a quantised model share one element of its files."""
        packed = 16 if self.config.get("quantization_config") else 1
        return packed * sum(map(prod, self.shapes.values()))

    def __post_init__(self) -> None:
        for name, value in _numbers(self.config):
            if name in LAYERS and not 0 < value <= len(self.shapes):
                raise ValueError(
                    f"config.json says {name} {value:,}, there are {len(self.shapes):,} weights"
                )
            if ("expert" in name or "layer" in name) and value > self.numbers:
                raise ValueError(
                    f"config.json says {name} {value:,}, the weights are {self.numbers:,} numbers"
                )

    def compare(self, model: Any) -> None:
        """Raises ValueError: `model`, on torch's device `meta`, is much larger than the files."""
        for what, tensors in (("weights", model.parameters()), ("tables", model.buffers())):
            numbers = sum(x.numel() for x in tensors)
            room = SLACK * self.numbers + (2**28 if what == "tables" else 0)
            if numbers > room:
                raise ValueError(
                    f"config.json makes a model with {what} of {numbers:,} numbers, the files hold"
                    f" {self.numbers:,}"
                )


def config(directory: Path) -> dict[str, Any]:
    """config.json. Raises ValueError: one line: it is not there, or no JSON object; or the
    directory has only an adapter."""
    if not (directory / "config.json").exists():
        if (directory / "adapter_config.json").exists():
            base = _json(directory / "adapter_config.json").get("base_model_name_or_path")
            raise ValueError(
                f"it is an adapter of {base!r}, not a model: merge it first (peft:"
                " merge_and_unload), and save"
            )
        raise ValueError("there is no config.json")
    return _json(directory / "config.json")


def weights(directory: Path) -> Weights:
    """The weights of a directory, from JSON and headers.

    Raises:
        ValueError: one line with the file's name: missing, of another format, cut short, outside
            the directory.
    """
    return Weights(config(directory), dict(_shapes(directory)))


def _json(file: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        if _regular(file).stat().st_size > SMALL:
            raise ValueError("too large")
        value = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{file.name} cannot be read: {error or type(error).__name__}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{file.name} is not a JSON object")
    return value


def _regular(file: Path) -> Path:
    """`file`, if it is a regular file: a pipe would never end."""
    if not file.exists():
        raise ValueError(
            f"{file.name} leads nowhere" if file.is_symlink() else f"there is no {file.name}"
        )
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError(f"{file.name} is not a file")
    return file


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Every whole number in a configuration, with its name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, str(key))
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, value


def _shapes(directory: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    from safetensors import SafetensorError, safe_open

    for shard, names in shards(directory).items():
        try:
            with safe_open(_regular(directory / shard), "pt") as file:
                shapes = {n: tuple(file.get_slice(n).get_shape()) for n in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{shard} is damaged: {error}") from None
        if missing := sorted(names - shapes.keys()):
            raise ValueError(f"{INDEX} looks for {missing[0]!r} in {shard}, which does not have it")
        yield from shapes.items()


def shards(directory: Path) -> dict[str, set[str]]:
    """Files of weights, and the names of tensors that the index looks for in each."""
    if (directory / WHOLE).exists() or (directory / WHOLE).is_symlink():
        return {WHOLE: set()}
    if not (directory / INDEX).exists():
        if pickles := sorted(f.name for p in PICKLES for f in directory.glob(p)):
            raise ValueError(
                f"{pickles[0]} is a pickle, which may run code: save the model as safetensors"
                " (save_pretrained does)"
            )
        raise ValueError(f"there are no weights: neither {WHOLE} nor {INDEX}")
    places = _json(directory / INDEX).get("weight_map")
    if not isinstance(places, dict):
        places = {}
    if not places or not all(isinstance(x, str) for x in places.values()):
        raise ValueError(f"{INDEX} has no weight_map of names and files")
    out: dict[str, set[str]] = {}
    for name, shard in places.items():
        if Path(shard).name != shard or "\\" in shard:
            raise ValueError(f"{INDEX} looks for weights outside the directory: {shard!r}")
        out.setdefault(shard, set()).add(name)
    return out


# --- GGUF ---

# bytes of plain values, by type
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
WHOLES = {4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
STRING, ARRAY = 8, 9


def gguf(file: Path) -> Weights:
    """The weights of a GGUF file; its configuration is the whole numbers of its metadata.

    Raises:
        ValueError: one line with the file's name: no GGUF file, or its counts and lengths do not
            fit it.
    """
    try:
        with _regular(file).open("rb") as stream:
            settings, shapes = _Header(stream, file.stat().st_size).read()
    except (ValueError, OSError) as error:
        raise ValueError(f"{file.name} is damaged: {error}") from None
    return Weights(settings, shapes)


@dataclass
class _Header:
    """Walks over a header. Every count and length is held against the file's size before it is
    used, so a lying header costs no time.

    GGUF 3 [tensors] [pairs] · each pair: key type value · each tensor: name rank sizes kind place
    """

    stream: BinaryIO
    size: int

    def read(self) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
        if self._take(4) != b"GGUF":
            raise ValueError("it does not begin as a GGUF file does")
        version, tensors, pairs = struct.unpack("<IQQ", self._take(20))
        if version not in (2, 3):
            raise ValueError(f"version {version} of the format is not known")
        self._fits(13 * pairs + 24 * tensors)
        settings = {}
        for _ in range(pairs):
            # "llama.block_count"
            name = self._text().rpartition(".")[2]
            value = self._value(self._whole("<I"))
            if value is not None:
                settings[name] = value
        return settings, dict(self._tensor() for _ in range(tensors))

    def _value(self, kind: int) -> int | None:
        """A whole number; any other value is skipped, and None."""
        if kind in WHOLES:
            return self._whole(WHOLES[kind])
        if kind == STRING:
            self._text()
        elif kind == ARRAY:
            inner, count = self._whole("<I"), self._whole("<Q")
            if inner in WIDTHS:
                self._skip(count * WIDTHS[inner])
            else:
                self._fits(8 * count)
                for _ in range(count):
                    self._value(inner)
        else:
            self._skip(WIDTHS.get(kind, self.size))
        return None

    def _tensor(self) -> tuple[str, tuple[int, ...]]:
        name, rank = self._text(), self._whole("<I")
        self._fits(8 * rank)
        shape = tuple(self._whole("<Q") for _ in range(rank))
        self._take(4)
        self._fits(self._whole("<Q"))
        if prod(shape) > 64 * self.size:
            raise ValueError(f"{name!r} of {prod(shape):,} numbers is larger than the file")
        return name, shape

    def _text(self) -> str:
        return self._take(self._whole("<Q")).decode("utf-8", "replace")

    def _whole(self, form: str) -> int:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, count: int) -> bytes:
        self._fits(count)
        return self.stream.read(count)

    def _skip(self, count: int) -> None:
        self._fits(count)
        self.stream.seek(count, 1)

    def _fits(self, count: int) -> None:
        """Raises ValueError: so many bytes do not follow."""
        if self.stream.tell() + count > self.size:
            raise ValueError("it is cut short, or says so")
