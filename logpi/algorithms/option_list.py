"""The options of an algorithm, as one list: everything that `algorithm(name, …)` accepts.

`describe`, the tables, `--help` and the jobs read this list. An option is a parameter of the row's
function, a field of one of the parts, or a short word for a part (`kl_target`, `dual_clip`). Left
out: what other libraries call an option (`names.py`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from functools import partial, reduce
from typing import Any

from logpi.algorithms import names
from logpi.algorithms.composition import Algorithm
from logpi.algorithms.option_help import HELP, HELP_OF_ROW
from logpi.algorithms.parts import (
    Axis,
    axis_of,
    read_estimator,
    read_part,
    settings_of,
    text_of,
)
from logpi.algorithms.table import TABLE
from logpi.errors import UserError, did_you_mean, wrong_type
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.corrections import TruncatedIS
from logpi.ops.divergences import Divergence
from logpi.ops.kl import KL, AdaptiveKL
from logpi.ops.surrogates import Clip, DecayingClip, DualClip
from logpi.runs.user_code import from_user_code, is_user_code

__all__ = ["Method", "Option", "Options", "find_method", "known_as", "options"]

Change = Callable[[Algorithm, Any], Algorithm]
WORDS = {"bool", "int", "float", "str", "None"}


@dataclass(frozen=True)
class Option:
    """One option of an algorithm.

    Attributes:
        name: the keyword. kind: its annotation, e.g. "float | None". default: as the row has it.
        help: one line. aliases: what other libraries call it.
        change: the algorithm with this value; None for a parameter of the row's own function.

    >>> next(o for o in options("dapo") if o.name == "high")
    Option(name='high', kind='float', default=0.28, help="distance of the ratio's upper bound from 1
    (none: as low)", aliases=('epsilon_high', 'clip_ratio_high'))
    """

    name: str
    kind: str
    default: Any
    help: str = ""
    aliases: tuple[str, ...] = ()
    change: Change | None = field(default=None, repr=False, compare=False)

    @property
    def is_word(self) -> bool:
        """Whether a command line can give it; other options take objects, which only Python can
        give."""
        return self.axis is not None or bool(self._kinds & (WORDS - {"None"}))

    @property
    def axis(self) -> Axis | None:
        """The axis whose parts are its values, or None."""
        return None if self._kinds & (WORDS - {"None"}) else axis_of(self.kind)

    @property
    def _kinds(self) -> set[str]:
        return {k.strip() for k in self.kind.split("|")}

    def read(self, value: Any) -> Any:
        """The value in logpi's words: `none` is None, verl's `low_var_kl` is k3, `TokenMean` is
        that part.

        Raises:
            ValueError: it is not of the option's kind.
        """
        if isinstance(value, str):
            value = names.VALUES.get(self.name, {}).get(value, value)
            value = None if value.lower() == "none" and "None" in self.kind else value
        if self.axis is not None and not (value is None and "None" in self._kinds):
            return read_part(self.axis, value)
        if self.kind and (wanted := wrong_type(self.kind, value)) is not None:
            raise ValueError(f"{self.name} must be {wanted}, not {value!r}")
        return value


@dataclass(frozen=True)
class Method:
    """A method: its name and the function that makes it, or an algorithm that exists already.

    Attributes:
        name: of the method. make: returns the algorithm. own: the parameters of `make`.
        doc: the function's docstring, or "".
        value: the algorithm exists already, so the fields of its parts are its options.
    """

    name: str
    make: Callable[..., Algorithm]
    own: tuple[inspect.Parameter, ...] = ()
    doc: str = ""
    value: bool = False

    @classmethod
    def of_function(cls, function: Callable[..., Any]) -> Method:
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        parameters = inspect.signature(function).parameters.values()
        own = tuple(p for p in parameters if p.kind in kinds)
        return cls(function.__name__, function, own, inspect.getdoc(function) or "")

    @classmethod
    def of_value(cls, algorithm: Algorithm, name: str = "") -> Method:
        return cls(name or algorithm.name, lambda: algorithm, value=True)


def find_method(which: str | Algorithm) -> Method:
    """The method of this name, of a user's `FILE.py:NAME`, or of an algorithm that exists already.

    Raises:
        ValueError: an unknown name, with the nearest known one.
        UserError: the user's file has no such name, or it is not an algorithm.
    """
    if isinstance(which, Algorithm):
        return Method.of_value(which)
    if is_user_code(which):
        return _users_method(which)
    plain = which.lower().replace("-", "_")
    plain = names.ROWS.get(plain, plain)
    if plain not in TABLE:
        hint = did_you_mean(plain, [*TABLE, *names.ROWS])
        raise ValueError(f"unknown algorithm {which!r}{hint} (known: {', '.join(TABLE)})")
    return Method.of_function(TABLE[plain])


def _users_method(word: str) -> Method:
    value = from_user_code(word)
    if isinstance(value, Algorithm):
        return Method.of_value(value, word.rpartition(":")[2] if value.name == "custom" else "")
    if not callable(value) or inspect.isclass(value):
        raise UserError(f"{word} is neither an Algorithm nor a function that returns one")
    return Method.of_function(value)


class Options(tuple[Option, ...]):
    """The options of a method in order; `"beta" in options` asks whether one has this name."""

    __slots__ = ()

    def __contains__(self, option: object) -> bool:
        return any(o.name == option or o == option for o in self)


def options(which: str | Algorithm) -> Options:
    """Everything that `algorithm(which, …)` accepts, the row's own parameters first.

    >>> "beta" in options("grpo"), "betta" in options("grpo")
    (True, False)

    Raises:
        ValueError, UserError: as `find_method`.
    """
    return Options(options_of(find_method(which)).values())


def options_of(method: Method) -> dict[str, Option]:
    """The options of a method by name. A parameter of the row hides a part's option."""
    own = {p.name: _parameter(p) for p in method.own}
    required = [name for name, o in own.items() if o.default is inspect.Parameter.empty]
    if required:
        raise UserError(f"{method.name}: {required[0]} needs a default, as every option has one")
    a = make(method, {})
    fixed = _part_fields(a) if method.value else ()
    # In this order; of two options with one name the first.
    by_name = dict(own)
    for o in (*fixed, *_common(a, penalised="beta" in own)):
        by_name.setdefault(o.name, o)
    return {
        name: replace(o, help=_help(method, name), aliases=_aliases(method.name, name))
        for name, o in by_name.items()
    }


def values_of(a: Algorithm) -> dict[str, Any]:
    """The options of an algorithm as it is, with their values.

    >>> values_of(TABLE["grpo"]())["kl_place"]
    'loss'
    """
    return {name: o.default for name, o in options_of(Method.of_value(a)).items()}


def make(method: Method, own: dict[str, Any]) -> Algorithm:
    """What the row's function returns for these parameters."""
    a = method.make(**own)
    if not isinstance(a, Algorithm):
        raise UserError(f"{method.name} returned {type(a).__name__}, not an Algorithm")
    return a


def known_as(which: str | Algorithm, option: str) -> str:
    """This algorithm's name of an option that has another name in other libraries."""
    method = find_method(which)
    return own_name(method.name, option, set(options_of(method)))


def own_name(method: str, option: str, known: set[str]) -> str:
    """The option's name in logpi; `known` are the method's options."""
    if option in known:
        return option
    return names.OPTIONS_OF_ROW.get((method, option)) or names.OPTIONS.get(option, option)


def _aliases(method: str, option: str) -> tuple[str, ...]:
    special = [k for (of, k), v in names.OPTIONS_OF_ROW.items() if (of, v) == (method, option)]
    general = [k for k, v in names.OPTIONS.items() if v == option]
    return tuple(k for k in (*general, *special) if (method, k) not in names.ELSEWHERE_OF_ROW)


def _help(method: Method, option: str) -> str:
    """One line: from the table, or from `option: …` in the function's docstring."""
    line = re.search(rf"^\s*{option}: (.+)$", method.doc, re.MULTILINE)
    own = line[1] if line else HELP.get(option, "")
    return HELP_OF_ROW.get((method.name, option), own)


def _parameter(p: inspect.Parameter) -> Option:
    kind = "" if p.annotation is inspect.Parameter.empty else p.annotation
    return Option(p.name, text_of(kind), p.default)


def _common(a: Algorithm, penalised: bool) -> Iterator[Option]:
    """The options of the algorithm's parts. Whole parts come first, so that their fields are set
    afterwards, on the new part."""
    parts = {option.name: option for option in _fields(a)}
    yield from (parts[name] for name in ("keep", "truncation", "update"))
    yield from _fields(a, "update")
    o = a.objective
    if not isinstance(o, PolicyGradient):
        return
    yield from _fields(a, "objective")
    cap = o.correction.cap if isinstance(o.correction, TruncatedIS) else None
    yield Option("correction_cap", "float | None", cap, change=_correction_cap)
    if penalised or o.kl is not None:
        estimator, place = (None, None) if o.kl is None else (o.kl.estimator.name, o.kl.place)
        target = None if o.kl is None or o.kl.adapt is None else o.kl.adapt.target
        for name, kind, default, part, read in (
            ("kl_target", "float | None", target, "adapt", AdaptiveKL),
            (
                "kl_estimator",
                "str | None",
                estimator,
                "estimator",
                partial(read_estimator, "kl_estimator"),
            ),
            ("kl_place", "str | None", place, "place", str),
        ):
            yield Option(name, kind, default, change=partial(_penalty, name, part, read))
    if type(o.surrogate) is Clip:
        dual = partial(_other_clip, "dual_clip", "clip_decay", DualClip)
        yield Option("dual_clip", "float | None", None, change=dual)
        decaying = partial(_other_clip, "clip_decay", "dual_clip", DecayingClip)
        yield Option("clip_decay", "bool", False, change=decaying)


def _part_fields(a: Algorithm) -> Iterator[Option]:
    """Numbers and switches inside the parts of an algorithm that no function of the table makes."""
    for part in _fields(a, "objective"):
        if isinstance(part.default, KL):
            yield Option("beta", "float", part.default.coef, change=_beta)
        elif is_dataclass(part.default) and part.name != "correction":
            yield from (x for x in _fields(a, "objective", part.name) if x.is_word)
        elif not isinstance(a.objective, PolicyGradient):
            yield part


def _fields(a: Algorithm, *path: str) -> Iterator[Option]:
    """The fields of the part at this path as options."""
    part: Any = reduce(getattr, path, a)
    for name, kind in settings_of(part).items():
        yield Option(name, kind, getattr(part, name), change=partial(set_at, (*path, name)))


# --- how an option changes an algorithm ---


def set_at(path: Sequence[str], part: Any, value: Any) -> Any:
    """The algorithm, or a part of it, with the field at this path set.

    >>> from logpi.ops.advantages import GroupNorm
    >>> set_at(("ddof",), GroupNorm(ddof=1), 0)
    GroupNorm(eps=1e-06, ddof=0)
    """
    name, *rest = path
    if name not in settings_of(part):
        raise ValueError(f"{type(part).__name__} has no {name}")
    return replace(part, **{name: set_at(rest, getattr(part, name), value) if rest else value})


def _correction_cap(a: Algorithm, cap: float | None) -> Algorithm:
    """With truncated importance sampling; None takes that away, and no other correction."""
    correction = a.objective.correction  # type: ignore[attr-defined]
    if correction is not None and not isinstance(correction, TruncatedIS):
        if cap is None:
            return a
        raise ValueError(
            f"correction_cap is TruncatedIS's, and the correction is {correction!r}: give one"
        )
    return set_at(("objective", "correction"), a, None if cap is None else TruncatedIS(cap))


def _beta(a: Algorithm, coef: float) -> Algorithm:
    path = ("objective", "kl", "coef") if coef else ("objective", "kl")
    return set_at(path, a, coef or None)


def _penalty(
    option: str, part: str, read: Callable[[Any], Any], a: Algorithm, value: Any
) -> Algorithm:
    """With a part of the KL penalty set to `read(value)`; None leaves it as it is."""
    if value is None:
        return a
    if (kl := getattr(a.objective, "kl", None)) is None:
        raise ValueError(f"{option} needs a KL penalty: give a beta above 0")
    changes = {part: read(value)}
    if isinstance(changes[part], Divergence):
        # the only place that it has
        changes["place"] = "loss"
    return set_at(("objective", "kl"), a, replace(kl, **changes))


def _other_clip(option: str, other: str, kind: type, a: Algorithm, value: Any) -> Algorithm:
    """With the clip as one of another kind; None or False leaves it as it is."""
    if value is None or value is False:
        return a
    clip = getattr(a.objective, "surrogate", None)
    if type(clip) is not Clip:
        raise ValueError(f"{option} needs a clipped surrogate (without {other}), not {clip}")
    numbers = () if value is True else (value,)
    return set_at(("objective", "surrogate"), a, kind(clip.low, clip.high, *numbers))
