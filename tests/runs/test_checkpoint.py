"""What goes into a checkpoint comes out of it, bit for bit; damage is seen; a failing disk leaves
the old one."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file

from logpi.errors import RunError
from logpi.runs import checkpoint
from logpi.runs.checkpoint import load, save
from logpi.runs.rng import load_rng_state, rng_state, seed


def same(a: Any, b: Any) -> bool:
    """Equal in type, value and every bit."""
    if isinstance(a, torch.Tensor):
        whole = a.dtype == b.dtype and a.shape == b.shape
        raw = [x.detach().contiguous().reshape(-1).view(torch.uint8) for x in (a, b)]
        return whole and torch.equal(*raw)
    if isinstance(a, numpy.ndarray):
        return (
            isinstance(b, numpy.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.tobytes() == b.tobytes()
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return type(b) is float and (a.hex() == b.hex())
    return type(a) is type(b) and a == b


def round_trip(state: Any, path: Path) -> Any:
    save(state, path / "c")
    return load(path / "c")


def test_plain_values_keep_type_and_bits(tmp_path: Path) -> None:
    state = {
        "floats": [0.1, -0.0, 1e-310, 1 / 3, math.pi * 1e300, math.inf, -math.inf, math.nan],
        "ints": [0, -1, 2**63, 2**200],
        "flags": (True, False, None),
        "text": ["", "é ∇ 你", "\ud800 lone", "$tuple"],
        "bytes": b"\x00\xff\n",
        "nested": ((), [], {}, ((1,), [2.0])),
        "keys": {0: "a", "0": "b", (1, "x"): "c", None: "d", True: "e", 2.5: "f"},
        "$tensor": {"$tuple": [1]},
        "": 0,
    }
    assert same(state, round_trip(state, tmp_path))


@pytest.mark.parametrize("value", [1, 2.5, None, True, "x", b"", (), [], {}, torch.tensor(3.0)])
def test_anything_can_be_the_whole_state(tmp_path: Path, value: Any) -> None:
    assert same(value, round_trip(value, tmp_path))


def test_tensors_of_every_kind(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "types": [
            base.to(t)
            for t in (torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8)
        ],
        "flags": base > 3,
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "nan": torch.tensor([math.nan]),
        "transposed": base.t(),
        "strided": base[::2, 1::3],
        "expanded": torch.ones(1, 3).expand(5, 3),
        "rows": [base[0], base[1:3]],
        "parameter": torch.nn.Parameter(base.clone()),
        "arrays": (
            numpy.arange(3, dtype=numpy.uint32),
            numpy.float32([[1, 2]]).T,
            numpy.array(True)[None],
        ),
        "a.b": torch.ones(1),
        "a": {"b": torch.zeros(1)},
    }
    found = round_trip(state, tmp_path)
    assert same(state | {"parameter": state["parameter"].data}, found)
    assert not found["parameter"].requires_grad


def test_a_view_is_not_saved_with_the_buffer_behind_it(tmp_path: Path) -> None:
    round_trip({"row": torch.zeros(1000, 1000)[3]}, tmp_path)
    assert (tmp_path / "c/state.safetensors").stat().st_size < 10_000


def test_a_shared_tensor_is_stored_once_and_shared_again(tmp_path: Path) -> None:
    weight = torch.randn(5, 3)
    found = round_trip({"embed": weight, "head": weight, "alike": weight.clone()}, tmp_path)
    assert same(found["embed"], weight) and found["embed"] is found["head"]
    assert found["alike"] is not found["head"]
    assert sorted(load_file(tmp_path / "c/state.safetensors")) == ["alike", "embed"]


def test_numpy_scalars_come_back_as_what_they_were(tmp_path: Path) -> None:
    found = round_trip(
        {"i": numpy.int64(3), "b": numpy.bool_(True), "f": numpy.float64(0.1)}, tmp_path
    )
    assert type(found["i"]) is numpy.int64 and found["i"] == 3 and type(found["b"]) is numpy.bool_
    assert type(found["f"]) is float and found["f"] == 0.1  # a float64 is a float already


def test_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer, Any]:
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1)
        )
        adam = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.8, 0.9))
        return model, adam, torch.optim.lr_scheduler.CosineAnnealingLR(adam, 10)

    def train(model: Any, adam: Any, schedule: Any, steps: int) -> list[float]:
        out = []
        for _ in range(steps):
            adam.zero_grad()
            loss = (
                (model(torch.randn(6, 4)) - numpy.random.rand() - random.random()).square().mean()
            )
            loss.backward()
            adam.step()
            schedule.step()
            out.append(loss.item())
        return out

    seed(3)
    parts = make()
    train(*parts, steps=3)
    save({"rng": rng_state(), "parts": [p.state_dict() for p in parts]}, tmp_path / "c")
    expected = train(*parts, steps=4)

    seed(99)
    again, state = make(), load(tmp_path / "c")
    for part, saved in zip(again, state["parts"], strict=True):
        part.load_state_dict(saved)
    load_rng_state(state["rng"])
    assert train(*again, steps=4) == expected
    assert same(again[1].state_dict(), parts[1].state_dict())
    first = load(tmp_path / "c")["parts"][1][
        "state"
    ]  # what was loaded was trained on; the file was not
    assert first[0]["step"] == 3 and again[1].state_dict()["state"][0]["step"] == 7


def test_the_same_state_makes_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save({"x": torch.arange(3), "y": (1, 2.0)}, tmp_path / name)
    for file in ("state.json", "state.safetensors", "manifest.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_no_pickle_and_valid_json(tmp_path: Path) -> None:
    save({"x": math.nan, "t": torch.ones(2)}, tmp_path / "c")

    def refuse(name: str) -> None:
        raise AssertionError(f"not JSON: {name}")

    text = (tmp_path / "c/state.json").read_text()
    assert json.loads(text, parse_constant=refuse) == {
        "x": {"$float": "nan"},
        "t": {"$tensor": "t"},
    }
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "manifest.json",
        "state.json",
        "state.safetensors",
    ]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.Generator(), r"state\.env\.1 is a torch\._C\.Generator: give its state_dict"),
        ({1, 2}, r"state\.env\.1 is a builtins\.set"),
        (numpy.array(["a"]), r"NumPy array of <U1: state\.env\.1"),
        (torch.eye(2).to_sparse(), r"dense tensors with contents; state\.env\.1"),
        (torch.empty(2, device="meta"), r"dense tensors with contents; state\.env\.1"),
    ],
)
def test_what_cannot_be_saved_is_named(tmp_path: Path, value: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        save({"env": [0, value]}, tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


# --- damage ---


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["state.json", "state.safetensors", "manifest.json"])
@pytest.mark.parametrize("harm", ["cut", "flip", "missing", "empty"])
def test_damage_is_seen(tmp_path: Path, file: str, harm: str) -> None:
    save({"x": torch.arange(100), "y": "text"}, tmp_path / "c")
    path = tmp_path / "c" / file
    {
        "cut": lambda: os.truncate(path, path.stat().st_size - 1),
        "flip": lambda: flip(path),
        "missing": path.unlink,
        "empty": lambda: os.truncate(path, 0),
    }[harm]()
    with pytest.raises(RunError, match="checkpoint"):
        load(tmp_path / "c")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a whole checkpoint"):
        load(tmp_path / "none")


# --- a failing disk ---


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("state", [{"x": torch.zeros(50_000)}, {"x": list(range(50_000))}])
def test_a_write_that_the_system_cuts_short(tmp_path: Path, state: Any) -> None:
    save({"x": 1}, tmp_path / "c")
    with (
        file_size_limit(20_000),
        pytest.raises(RunError, match=r"cannot write .*c: File too large; do this") as error,
    ):
        save(state, tmp_path / "c", then="do this")
    assert "\n" not in str(error.value)
    assert load(tmp_path / "c") == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("step", ["write_text", "mkdir", "rename"])
def test_a_full_disk_at_any_step(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save({"x": 1}, tmp_path / "c")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, step, full)
        with pytest.raises(
            RunError, match=r"cannot write the checkpoint .*: No space left on device"
        ):
            save({"x": 2}, tmp_path / "c")
    assert load(tmp_path / "c") == {"x": 1}
    save({"x": 3}, tmp_path / "c")
    assert load(tmp_path / "c") == {"x": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_fault_of_the_tensor_writer_that_is_not_the_disk_s_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise checkpoint.SafetensorError("header too large")

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(checkpoint.SafetensorError):
        save({"x": torch.ones(1)}, tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_only_its_own_leftovers_are_cleared(tmp_path: Path) -> None:
    other = tmp_path / ".notes.partial"
    other.mkdir()
    shutil.copytree(other, tmp_path / ".c.partial")
    save({"x": 1}, tmp_path / "c")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".notes.partial", "c"]


def test_the_layout_on_disk_is_that_of_the_docstring(tmp_path: Path) -> None:
    w = torch.ones(2)
    state = {"a": w, "b": (w, 0.5), "rows": {3: float("nan")}}
    checkpoint.save(state, tmp_path / "x", {"step": 40})
    assert json.loads((tmp_path / "x/state.json").read_text()) == {
        "a": {"$tensor": "a"},
        "b": {"$tuple": [{"$tensor": "a"}, 0.5]},
        "rows": {"$dict": [[3, {"$float": "nan"}]]},
    }
    assert list(load_file(tmp_path / "x/state.safetensors")) == ["a"]
    manifest = json.loads((tmp_path / "x/manifest.json").read_text())
    assert manifest["about"] == {"step": 40} and set(manifest["state.json"]) == {"size", "sha256"}
