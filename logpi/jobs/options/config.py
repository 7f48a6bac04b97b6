"""A job's options from a file: `--config run.yaml`, JSON, or the `arguments.json` of a run.

    model: Qwen/Qwen3-0.6B            # the names of the command line, with - or _
    task: rows.jsonl
    rewards: [math, "think_answer:0.1"]
    algorithm: dapo
    high: 0.3                         # a setting of the algorithm is a key as well as a flag,
    options: {entropy_coef: 0.01}     # or stands in the mapping

The command line wins. Left out: files in files, and variables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from logpi.errors import UserError, did_you_mean
from logpi.jobs.options.command_line import CommandLine
from logpi.jobs.options.fields import OptionField, option_fields, value
from logpi.jobs.options.saved import restored


def from_file(line: CommandLine, path: Path, command: str, trust: bool = False) -> dict[str, Any]:
    """The options that a file gives, by name.

    Args:
        line: the command line of the job. trust: run the code that a stranger's run names.
    Raises:
        UserError: it cannot be read, is of another command, or has an unknown name or a wrong
            value; the message names the file.
    """
    record = _record(path)
    if set(record) >= {"command", "arguments"}:
        _check_run(path, record, command, trust)
        record = record["arguments"]
    written = {str(name).replace("-", "_"): v for name, v in record.items()}
    own = option_fields(line.cls)
    fields = {name: f for f in own if f.saved for name in (f.name, *f.aliases)}
    values = {
        fields[k].name: restored(fields[k], _listed(fields[k], v), str(path))
        for k, v in written.items()
        if k in fields
    }
    rest = {k: v for k, v in written.items() if k not in fields}
    if rest:
        defaults = {f.name: f.default for f in line.fields if not f.required}
        for mapping, field in line.settings({**defaults, **values}):
            for name in (field.name, *field.aliases):
                if name in rest:
                    setting = restored(field, _listed(field, rest.pop(name)), str(path))
                    values[mapping] = {**values.get(mapping, {}), field.name: setting}
            fields.setdefault(field.name, field)
    if rest:
        name = next(iter(rest))
        raise UserError(f"{path}: unknown option {name!r}{did_you_mean(name, fields)}")
    return values


def merged(line: CommandLine, base: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """Both, where the words win; of a mapping, name by name."""
    named = {f.name for f in line.fields if f.kind.named} & set(base) & set(words)
    return {**base, **words, **{name: {**base[name], **words[name]} for name in named}}


def _record(path: Path) -> dict[str, Any]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        record = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not isinstance(record, dict):
        raise UserError(f"{path} has no options: it should say `model: …`, `steps: …`")
    return record


def _check_run(path: Path, record: Mapping[str, Any], command: str, trust: bool) -> None:
    """A run's own record: of this command, and its code is the user's own or trusted."""
    from logpi.runs.directory import allow

    if record["command"] != command or not isinstance(record["arguments"], dict):
        raise UserError(f"{path} is of a run of `logpi {record['command']}`, not {command}")
    allow(path.parent, trust)


def _listed(field: OptionField, written: Any) -> Any:
    """YAML reads 1e-5 as a text; and one item needs no brackets."""
    if isinstance(written, Mapping):
        return {k: value(v) if isinstance(v, str) else v for k, v in written.items()}
    one = field.kind.many and not field.kind.named and not isinstance(written, list)
    return [written] if one and written is not None else written
