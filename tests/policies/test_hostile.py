"""Strangers' model directories: broken, cut short, absurd, or made to hurt. Each is refused in one
line; none takes memory."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from logpi.policies.causal_lm import CausalLM
from tests.tiny import tiny_model, tiny_tokenizer

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
Mutation = Callable[[Path], object]


def text(name: str, content: str | bytes) -> Mutation:
    """The file with this content."""
    return lambda d: (d / name).write_bytes(
        content.encode() if isinstance(content, str) else content
    )


def said(name: str = CONFIG, **values: object) -> Mutation:
    """The JSON file with other values; None leaves one out."""

    def change(d: Path) -> None:
        old = json.loads((d / name).read_text())
        (d / name).write_text(
            json.dumps({k: v for k, v in (old | values).items() if v is not None})
        )

    return change


def head(name: str, keep: float | int) -> Mutation:
    """The beginning of the file: so many bytes, or this part of it."""

    def cut(d: Path) -> None:
        data = (d / name).read_bytes()
        (d / name).write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])

    return cut


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Mutation:
    """Other weights in a sound file."""

    def write(d: Path) -> None:
        held = load_file(d / WEIGHTS)
        change(held)
        save_file(held, d / WEIGHTS, metadata={"format": "pt"})

    return write


def header(change: Callable[[dict], object]) -> Mutation:
    """Another safetensors header before the same bytes."""

    def write(d: Path) -> None:
        data = (d / WEIGHTS).read_bytes()
        (size,) = struct.unpack("<Q", data[:8])
        made = json.loads(data[8 : 8 + size])
        change(made)
        again = json.dumps(made).encode()
        (d / WEIGHTS).write_bytes(struct.pack("<Q", len(again)) + again + data[8 + size :])

    return write


def filled(value: float, name: str = "model.norm.weight") -> Mutation:
    return tensors(lambda held: held[name].view(-1)[-1:].fill_(value))


def shards(change: Callable[[dict[str, str]], object]) -> Mutation:
    """The same weights in two files, with another index."""

    def write(d: Path) -> None:
        held = load_file(d / WEIGHTS)
        (d / WEIGHTS).unlink()
        names = sorted(held)
        files = {n: f"model-0000{1 + (i > 5)}-of-00002.safetensors" for i, n in enumerate(names)}
        for file in set(files.values()):
            save_file(
                {n: held[n] for n in names if files[n] == file}, d / file, metadata={"format": "pt"}
            )
        change(files)
        (d / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))

    return write


def gone(*names: str) -> Mutation:
    return lambda d: [(d / n).unlink() for n in names]


def swapped(name: str, make: Callable[[Path], object]) -> Mutation:
    """Something else of that name."""

    def change(d: Path) -> None:
        (d / name).unlink()
        make(d / name)

    return change


def both(*changes: Mutation) -> Mutation:
    return lambda d: [change(d) for change in changes]


def remote(d: Path) -> None:
    """A model with code of its own, which would leave a trace."""
    (d / "modeling_x.py").write_text(f"open({str(d / 'executed')!r}, 'w')\n")
    auto = {"AutoConfig": "modeling_x.C", "AutoModelForCausalLM": "modeling_x.M"}
    said(model_type="never_heard_of", auto_map=auto)(d)


def pickled(d: Path) -> None:
    """Weights that would run code."""
    (d / WEIGHTS).unlink()
    (d / "pytorch_model.bin").write_bytes(
        b"cos\nsystem\n(S'touch " + str(d / "executed").encode() + b"'\ntR."
    )


def adapter(d: Path) -> None:
    (d / CONFIG).unlink()
    (d / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "/etc", "peft_type": "LORA"})
    )


def gguf(body: bytes) -> Mutation:
    """A directory of one GGUF file."""
    return lambda d: [f.unlink() for f in d.iterdir()] and (d / "m.gguf").write_bytes(body)


def pair(key: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


def g(tensors: int, pairs: int, body: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + body


def block(d: Path) -> None:
    """A rope type that nobody knows."""
    said(rope_parameters={"rope_type": "spiral", "rope_theta": 1e4})(d)


HUGE = 10**12
HOSTILE: dict[str, Mutation] = {
    # config.json
    "no config": gone(CONFIG),
    "config empty": text(CONFIG, ""),
    "config cut": head(CONFIG, 0.5),
    "config a list": text(CONFIG, "[]"),
    "config a word": text(CONFIG, '"llama"'),
    "config binary": text(CONFIG, b"\xff\xfe\x00\x01"),
    "config deep": text(CONFIG, '{"a":' * 100_000),
    "config digits": text(CONFIG, '{"model_type": "llama", "hidden_size": ' + "9" * 10_000 + "}"),
    "config a directory": swapped(CONFIG, lambda f: f.mkdir()),
    "config a pipe": swapped(CONFIG, os.mkfifo),
    "config leads nowhere": swapped(CONFIG, lambda f: f.symlink_to("nowhere")),
    "config leads to itself": swapped(CONFIG, lambda f: f.symlink_to(f)),
    "config endless": swapped(CONFIG, lambda f: f.symlink_to("/dev/zero")),
    "no model type": said(model_type=None),
    "unknown model type": said(model_type="never_heard_of"),
    "model type a number": said(model_type=7),
    "model type a list": said(model_type=["llama"]),
    "an encoder": said(model_type="bert"),
    "encoder and decoder": said(model_type="t5"),
    "half of one": said(model_type="bart", is_encoder_decoder=True),
    "a picture model": said(model_type="vit"),
    "another family": said(model_type="gpt2"),
    "remote code": remote,
    "layers absurd": said(num_hidden_layers=HUGE),
    "layers many": said(num_hidden_layers=50_000),
    "layers one more": said(num_hidden_layers=3),
    "layers negative": said(num_hidden_layers=-1),
    "layers a word": said(num_hidden_layers="two"),
    "layers a fraction": said(num_hidden_layers=1.5),
    "width absurd": said(hidden_size=HUGE),
    "width large": said(hidden_size=2**16),
    "width double": said(hidden_size=64),
    "width zero": said(hidden_size=0),
    "width negative": said(hidden_size=-32),
    "width a list": said(hidden_size=[32]),
    "width infinite": text(CONFIG, '{"model_type": "llama", "hidden_size": Infinity}'),
    "gate absurd": said(intermediate_size=HUGE),
    "vocabulary absurd": said(vocab_size=HUGE),
    "vocabulary large": said(vocab_size=2**28),
    "vocabulary smaller": said(vocab_size=10),
    "heads absurd": said(num_attention_heads=HUGE),
    "heads zero": said(num_attention_heads=0),
    "heads odd": said(num_attention_heads=5),
    "key heads zero": said(num_key_value_heads=0),
    "head size absurd": said(head_dim=HUGE),
    "head size odd": said(head_dim=7),
    "experts absurd": said(model_type="mixtral", num_local_experts=HUGE),
    "unknown activation": said(hidden_act="magic"),
    "unknown rope": block,
    "rope without a factor": said(rope_parameters={"rope_type": "linear", "rope_theta": 1e4}),
    "rope a list": said(rope_parameters=[1, 2]),
    "unknown dtype": said(dtype="float99"),
    "table absurd": said(model_type="gptj", n_positions=HUGE, n_embd=32, n_layer=2, n_head=4),
    # weights
    "no weights": gone(WEIGHTS),
    "pickled weights": pickled,
    "weights empty": text(WEIGHTS, b""),
    "weights seven bytes": head(WEIGHTS, 7),
    "weights half a header": head(WEIGHTS, 200),
    "weights half": head(WEIGHTS, 0.5),
    "weights without a byte": lambda d: head(WEIGHTS, (d / WEIGHTS).stat().st_size - 1)(d),
    "weights and more": lambda d: (d / WEIGHTS).write_bytes((d / WEIGHTS).read_bytes() + b"more"),
    "weights of words": text(WEIGHTS, "these are the weights " * 100),
    "weights zeros": text(WEIGHTS, bytes(10_000)),
    "weights a directory": swapped(WEIGHTS, lambda f: f.mkdir()),
    "weights a pipe": swapped(WEIGHTS, os.mkfifo),
    "weights lead nowhere": swapped(WEIGHTS, lambda f: f.symlink_to("nowhere")),
    "weights endless": swapped(WEIGHTS, lambda f: f.symlink_to("/dev/zero")),
    "header absurd": lambda d: (d / WEIGHTS).write_bytes(struct.pack("<Q", 2**62) + b"{}"),
    "header no JSON": lambda d: (d / WEIGHTS).write_bytes(
        struct.pack("<Q", 8) + b"{{{{{{{{" + bytes(99)
    ),
    "header a list": lambda d: (d / WEIGHTS).write_bytes(struct.pack("<Q", 2) + b"[]"),
    "shape absurd": header(lambda h: h["model.norm.weight"].update(shape=[HUGE])),
    "shape negative": header(lambda h: h["model.norm.weight"].update(shape=[-32])),
    "offsets beyond": header(lambda h: h["model.norm.weight"].update(data_offsets=[0, HUGE])),
    "offsets backwards": header(lambda h: h["model.norm.weight"].update(data_offsets=[64, 0])),
    "offsets on another": header(lambda h: h["model.norm.weight"].update(data_offsets=[0, 128])),
    "unknown type of numbers": header(lambda h: h["model.norm.weight"].update(dtype="F99")),
    "NaN": filled(float("nan")),
    "infinite": filled(float("inf")),
    "minus infinite": filled(-float("inf"), "model.embed_tokens.weight"),
    "a weight missing": tensors(lambda t: t.pop("model.norm.weight")),
    "a layer missing": tensors(lambda t: [t.pop(n) for n in list(t) if ".layers.1." in n]),
    "the head missing": tensors(lambda t: t.pop("lm_head.weight")),
    "all missing": tensors(lambda t: t.clear()),
    "wrong shape": tensors(lambda t: t.update({"model.norm.weight": torch.ones(31)})),
    "wrong rank": tensors(lambda t: t.update({"model.norm.weight": torch.ones(4, 8)})),
    "embeddings too few": tensors(
        lambda t: t.update({"model.embed_tokens.weight": torch.ones(9, 32)})
    ),
    "embeddings none": tensors(
        lambda t: t.update({"model.embed_tokens.weight": torch.ones(0, 32)})
    ),
    "of another family": tensors(lambda t: [t.update({f"gpt.{n}": t.pop(n)}) for n in list(t)]),
    "shard missing": both(shards(lambda m: None), lambda d: next(d.glob("*1-of*")).unlink()),
    "shard cut": both(shards(lambda m: None), head("model-00002-of-00002.safetensors", 0.7)),
    "shard without a weight": shards(
        lambda m: m.update({"model.norm.weight": "model-00001-of-00002.safetensors"})
    ),
    "shard outside": shards(
        lambda m: m.update({"model.norm.weight": "../other/model.safetensors"})
    ),
    "shard absolute": shards(lambda m: m.update({"model.norm.weight": "/etc/passwd"})),
    "shard a pickle": both(
        shards(lambda m: m.update({"model.norm.weight": "w.bin"})), text("w.bin", b"cos\nsystem\n")
    ),
    "shard a number": both(
        shards(lambda m: None), said(INDEX, weight_map={"model.norm.weight": 3})
    ),
    "index cut": both(shards(lambda m: None), head(INDEX, 0.5)),
    "index empty": both(shards(lambda m: None), text(INDEX, "{}")),
    "index a list": both(shards(lambda m: None), said(INDEX, weight_map=["a"])),
    "index forgets": shards(lambda m: [m.pop(n) for n in list(m) if "2-of" in m[n]]),
    "adapter": adapter,
    # tokenizer
    "no tokenizer": gone("tokenizer.json", "tokenizer_config.json"),
    "tokenizer empty": text("tokenizer.json", ""),
    "tokenizer cut": head("tokenizer.json", 0.5),
    "tokenizer a list": text("tokenizer.json", "[]"),
    "tokenizer binary": text("tokenizer.json", b"\xff\xfe\x00"),
    "tokenizer of no model": said("tokenizer.json", model={"type": "Magic"}),
    "tokenizer config cut": head("tokenizer_config.json", 0.5),
    "tokenizer config a list": text("tokenizer_config.json", "[]"),
    "tokenizer of an unknown class": both(
        gone("tokenizer.json"), said("tokenizer_config.json", tokenizer_class="NeverHeardOf")
    ),
    "tokenizer's remote code": both(
        gone("tokenizer.json"),
        said(
            "tokenizer_config.json",
            tokenizer_class="X",
            auto_map={"AutoTokenizer": ["tok_x.X", None]},
        ),
        text("tok_x.py", "raise SystemExit\n"),
    ),
    "vocabulary empty": said(
        "tokenizer.json", model={"type": "BPE", "vocab": {}, "merges": []}, added_tokens=[]
    ),
    "token beyond the embeddings": lambda d: extended(d),
    "template broken": text("chat_template.jinja", "{% for m in messages %}{{ m.content "),
    "template of unknown tags": text("chat_template.jinja", "{% magic %}"),
    # GGUF
    "gguf empty": gguf(b""),
    "gguf of words": gguf(b"this is a model" * 99),
    "gguf of another version": gguf(b"GGUF" + struct.pack("<IQQ", 99, 0, 0) + bytes(99)),
    "gguf header alone": gguf(g(0, 0)),
    "gguf tensors absurd": gguf(g(2**60, 0, bytes(99))),
    "gguf pairs absurd": gguf(g(0, 2**60, bytes(99))),
    "gguf key absurd": gguf(g(0, 1, struct.pack("<Q", 2**60) + bytes(99))),
    "gguf array absurd": gguf(g(0, 1, pair("a", 9, struct.pack("<IQ", 4, 2**60)) + bytes(99))),
    "gguf array of strings absurd": gguf(
        g(0, 1, pair("a", 9, struct.pack("<IQ", 8, 2**40)) + bytes(99))
    ),
    "gguf unknown kind": gguf(g(0, 1, pair("a", 77, bytes(8)) + bytes(99))),
    "gguf arrays in arrays": gguf(
        g(0, 1, pair("a", 9, struct.pack("<IQ", 9, 1) * 3000) + bytes(99))
    ),
    "gguf no architecture": gguf(g(0, 1, pair("a", 4, bytes(4)) + bytes(99))),
    "gguf unknown architecture": gguf(
        g(0, 1, pair("general.architecture", 8, struct.pack("<Q", 5) + b"magic") + bytes(99))
    ),
    "gguf tensor absurd": gguf(
        g(1, 0, struct.pack("<Q", 1) + b"w" + struct.pack("<IQIQ", 1, 2**60, 0, 0) + bytes(99))
    ),
    "gguf blocks absurd": gguf(
        g(
            0,
            2,
            pair("general.architecture", 8, struct.pack("<Q", 5) + b"llama")
            + pair("llama.block_count", 4, struct.pack("<I", 2**31))
            + bytes(99),
        )
    ),
}


def extended(d: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(d)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    d = tmp_path_factory.mktemp("sound")
    tiny_model("llama").save_pretrained(d)
    tiny_tokenizer().save_pretrained(d)
    CausalLM.load(d)  # what follows fails for the mutation's sake
    return d


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_directory_is_refused_in_one_line(name: str, sound: Path, tmp_path: Path):
    d = tmp_path / "model"
    shutil.copytree(sound, d)
    HOSTILE[name](d)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"^[^\n]{10,900}$") as error:
        CausalLM.load(d)
    assert str(d) in str(error.value), "the line names what could not be loaded"
    assert "Traceback" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18, (
        "KiB: less than a quarter of a GiB"
    )
    assert not (d / "executed").exists(), "nothing of the directory is run"
