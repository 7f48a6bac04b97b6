"""Run directories for the viewer's tests, written as `logpi` writes them, without a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ARGUMENTS = {
    "algorithm": "grpo",
    "options": {"beta": 0},
    "model": "m",
    "task": "addition",
    "seed": 0,
}


def make_run(path: Path, command: str = "rl", **arguments: Any) -> Path:
    """A run without metrics and samples."""
    (path / "samples").mkdir(parents=True)
    record = {"command": command, "arguments": {**ARGUMENTS, "steps": 3, **arguments}}
    (path / "arguments.json").write_text(json.dumps(record))
    (path / "versions.json").write_text(json.dumps({"python": "3.11", "command_line": []}))
    return path


def log(run: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with open(run / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def row(completion: str = "4", **fields: Any) -> dict[str, Any]:
    """A response as a step records it."""
    ids = fields.get("ids", list(completion[:1000].encode("utf-8", "replace")))
    return {
        "prompt": "2+2=",
        "completion": completion,
        "answer": "4",
        "reward": 1.0,
        "rewards": {"exact": 1.0},
        "errors": {},
        "stop": "eos",
        "tokens": len(ids),
        "group": 0,
        "ids": ids,
        "advantage": 0.5,
        "logp": [-0.1] * len(ids),
        **fields,
    }


def samples(run: Path, step: int, rows: Sequence[Any], kind: str = "step") -> Path:
    """Adds rows to a samples file; a text is a line as it is."""
    path = run / "samples" / f"{kind}-{step:06d}.jsonl"
    with open(path, "ab") as file:
        for each in rows:
            line = each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n"
            file.write(line)
    return path


def byte_tokenizer() -> Any:
    """One token a byte: id 3 is "\\x03", 65 is "A"."""
    from tokenizers import Tokenizer, decoders, models

    byte_level = [chr(b) if 33 <= b < 127 or 161 <= b < 173 or b > 173 else "" for b in range(256)]
    free = iter(range(256, 512))
    vocabulary = {c or chr(next(free)): b for b, c in enumerate(byte_level)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.decoder = decoders.ByteLevel()
    return core


def keep_tokenizer(run: Path) -> None:
    (run / "tokenizer").mkdir()
    (run / "tokenizer" / "tokenizer.json").write_text(byte_tokenizer().to_str())
