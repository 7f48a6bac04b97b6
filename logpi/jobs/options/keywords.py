"""A job's options as keyword arguments of its class: words as on the command line, or the objects
that they stand for.

    RL(model=model, task=dataset, rewards=[score, "think_answer:0.1"], beta=0, learning_rate=1e-5)

An algorithm's own settings (`beta`) and other libraries' names (`learning_rate`) are understood, as
flags are. Left out: checks of an object, which are where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from logpi.algorithms.names import ELSEWHERE, JOB_NAMES
from logpi.errors import UserError, as_user_errors, did_you_mean
from logpi.jobs.options.command_line import CommandLine
from logpi.jobs.options.config import from_file
from logpi.jobs.options.fields import OptionField, option_fields, pairs
from logpi.jobs.options.fingerprint import has_record
from logpi.jobs.options.saved import values_of


def from_keywords(cls: type, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Field values of the job class `cls`: a recipe's, then those of the file `config` or the run
    `resume`, then the caller's.

    Raises:
        UserError: an unknown name, or a value of another type than the option's.
    """
    fields = {o.name: o for o in option_fields(cls)}
    arguments = dict(_own_names(cls, fields, keywords))
    base = _file(cls, arguments)
    recipe = getattr(cls, "RECIPES", {}).get({**base, **arguments}.get("recipe"), {})
    values: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for name, value in (*recipe.items(), *base.items(), *arguments.items()):
        if name not in fields:
            settings[name] = value
        elif fields[name].kind.named:
            values[name] = values.get(name, {}) | coerced(fields[name], value)
        else:
            values[name] = coerced(fields[name], value)
    if settings:
        known = _settings(cls, fields, values, settings)
        values["options"] = {**values.get("options", {}), **known}
    return values


def _own_names(
    cls: type, fields: Mapping[str, OptionField], keywords: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """The keywords by the job's own names: `learning_rate=` is `lr`.

    Raises:
        UserError: one option is given under two names.
    """
    names = JOB_NAMES | {alias: o.name for o in fields.values() for alias in o.aliases}
    has = {*fields, *getattr(cls, "SETTINGS", ())}
    arguments: dict[str, str] = {}
    for name, value in keywords.items():
        other = names.get(name, name)
        own = name if name in has or other not in has else other
        if own in arguments:
            raise UserError(f"{arguments[own]} and {name} are the same option: give one of them")
        arguments[own] = name
        yield own, value


class _CommandLine(CommandLine):
    """The command line of a job made in Python: a mistake is an exception."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _file(cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """The options of the file `config`, which is taken out of `given`, or of the run `resume`.

    Raises:
        UserError: as `from_file`; or `repeat` is given, which is a command's.
    """
    if arguments.get("repeat") is not None:
        raise UserError(f"repeat: from Python say config='{arguments['repeat']}/arguments.json'")
    path, run = arguments.pop("config", None), arguments.get("resume")
    if path is not None:
        command = getattr(cls, "COMMAND", "")
        return from_file(
            _CommandLine(cls, command), Path(path), command, arguments.get("trust", False)
        )
    return _run(cls, Path(run), arguments) if isinstance(run, str | Path) else {}


def _run(cls: type, path: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the run at `path`, which is resumed; but for the caller's own.

    Raises:
        UserError: there is no such run, or one of them was an object, which must be given.
    """
    from logpi.runs.directory import allow, read_arguments

    _, saved = read_arguments(path, getattr(cls, "COMMAND", ""))
    rest = {name: value for name, value in saved.items() if name not in arguments}
    objects = [name for name, value in rest.items() if has_record(value)]
    if objects:
        raise UserError(f"{path} was begun with objects: give the same {', '.join(objects)} again")
    if rest:
        allow(path, bool(arguments.get("trust")))
    return values_of(cls, rest, str(path))


def _settings(
    cls: type,
    fields: Mapping[str, OptionField],
    values: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Settings of the job's algorithm by its own names: `epsilon=` is `low`.

    Raises:
        UserError: neither the job nor its algorithm has one, or one is given under two names.
    """
    has_method = {"algorithm", "options"} <= fields.keys()
    method = values.get("algorithm", fields["algorithm"].default) if has_method else None
    known, own_name = set(getattr(cls, "SETTINGS", ())), {name: name for name in settings}
    if isinstance(method, str):
        from logpi.algorithms import known_as, options

        with as_user_errors():
            known |= {o.name for o in options(method)}
        own_name = {name: known_as(method, name) for name in settings}
    elif more := [name for name in settings if method is not None and name not in known]:
        raise UserError(f"{', '.join(more)}: an algorithm that is an object has its own settings")
    named: dict[str, Any] = {}
    for name, value in settings.items():
        own = own_name[name]
        if own not in known:
            hint = ELSEWHERE.get(name)
            words = {x for o in fields.values() for x in (o.name, *o.aliases)}
            hint = f": {hint}" if hint else did_you_mean(name, known | words)
            job = getattr(cls, "PUBLIC", cls.__name__)
            raise UserError(f"{job} has no option {name!r}{hint}")
        if own in named:
            raise UserError(f"{name} is {own}, which is given too")
        named[own] = value
    return named


def coerced(option: OptionField, value: Any) -> Any:
    """The field's value: a word is read as on the command line, an object stays as it is.

    Raises:
        UserError: it is neither, or out of the option's range.
    """
    try:
        if option.kind.named:
            return pairs([value] if isinstance(value, str) else value)
        if option.kind.many:
            many = value if isinstance(value, list | tuple) else (value,)
            return None if value is None else tuple(_one(option, item) for item in many)
        return _one(option, value)
    except ValueError as error:
        raise UserError(f"{option.name}: {error}") from None


def _one(option: OptionField, value: Any) -> Any:
    if value is None and (option.kind.optional or option.default is None):
        return None
    if isinstance(value, str | Path) or (isinstance(value, int | float) and not option.objects):
        return option.read(str(value))
    if not option.objects:
        raise ValueError(f"{value!r} is not {option.kind.expected}")
    return value
