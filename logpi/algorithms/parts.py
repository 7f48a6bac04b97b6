"""The parts of an algorithm by word: `GroupNorm`, `Clip(low=0.1, high=0.3)`, `mine.py:Mine(k=2)`.

    advantage="GroupNorm(ddof=0)"  ->  GroupNorm(eps=1e-06, ddof=0)
    weight="token_mean"            ->  TokenMean()
    kl="KL(0.04, k2, loss)"        ->  KL(coef=0.04, estimator=k2, place='loss', adapt=None)

The parts of an axis are the public classes of its module, so a new class has a word at once. Left
out: how a part is put into an algorithm (`option_list.py`, `by_name.py`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from types import ModuleType
from typing import Any

from logpi.errors import UserError, nearest, wrong_type
from logpi.ops import (
    advantages,
    constant_advantages,
    corrections,
    divergences,
    gates,
    group_advantages,
    kl,
    ratios,
    selection,
    surrogates,
    weights,
)
from logpi.runs.user_code import from_user_code, is_user_code
from logpi.runs.words import build, parse_call
from logpi.updates import sgd, trust_region

__all__ = [
    "AXES",
    "ESTIMATORS",
    "Axis",
    "axis_of",
    "given_in",
    "part_at",
    "read_estimator",
    "read_part",
    "settings_of",
    "text_of",
    "word_of",
]

_DIVERGENCES = (divergences.ReverseKL(), divergences.ForwardKL(), divergences.JensenShannon())
ESTIMATORS: dict[str, kl.Estimator | divergences.Divergence] = {
    e.name: e for e in (kl.k1, kl.k2, kl.k3, *_DIVERGENCES)
}
_CALL = re.compile(r"(.+\.py:\w+)(\(.*\))?", re.DOTALL)


@dataclass(frozen=True)
class Axis:
    """An independent choice of an algorithm.

    Attributes:
        name: of the option. help: what is chosen. path: from an `Algorithm` to its place.
        bases: every part is of one of these classes. modules: where the library's parts are.
        texts: the attributes of a part that are texts, which descriptions print.
    """

    name: str
    help: str
    path: tuple[str, ...]
    bases: tuple[type, ...]
    modules: tuple[ModuleType, ...]
    texts: tuple[str, ...] = ()

    @property
    def parts(self) -> dict[str, type]:
        """The library's parts by name.

        >>> list(AXES["ratio"].parts)
        ['GeometricMeanRatio', 'SequenceRatio', 'TokenRatio']
        """
        named = ((name, vars(m)[name]) for m in self.modules for name in m.__all__)
        return {
            name: c
            for name, c in named
            if inspect.isclass(c) and issubclass(c, self.bases) and not inspect.isabstract(c)
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """Each part as it is written, with its settings, and the first paragraph of its
        docstring."""
        for name, part in self.parts.items():
            text = " ".join((inspect.getdoc(part) or "").split("\n\n")[0].split())
            settings = [x for p in inspect.signature(part).parameters.values() for x in _setting(p)]
            yield name + (f"({', '.join(settings)})" if settings else ""), text


def _setting(p: inspect.Parameter) -> Iterator[str]:
    """A setting that a word can give, with its default."""
    if p.default is inspect.Parameter.empty:
        yield p.name
    elif isinstance(p.default, str | int | float | kl.Estimator | None):
        yield f"{p.name}={p.default}"


def _axes() -> Iterator[Axis]:
    text = ("equation", "source")
    estimators = (advantages, group_advantages, constant_advantages)
    for name, help, base, modules, texts in (
        ("advantage", "estimator of the advantage", advantages.Advantage, estimators, text),
        ("ratio", "the importance ratio", ratios.Ratio, (ratios,), text),
        (
            "surrogate",
            "what is maximised at each action",
            surrogates.Surrogate,
            (surrogates, gates),
            text,
        ),
        ("kl", "the penalty to the reference", kl.KL, (kl,), ()),
        ("weight", "weight of an action in the loss", weights.Weight, (weights,), text),
        ("correction", "for another sampler", corrections.Correction, (corrections,), text),
    ):
        yield Axis(name, help, ("objective", name), (base,), modules, texts)
    updates = (sgd.SGD, trust_region.TrustRegion)
    yield Axis("update", "how parameters move", ("update",), updates, (sgd, trust_region))
    yield Axis("shuffle", "how rows are dealt out", ("update", "shuffle"), (sgd.Shuffle,), (sgd,))
    for name, help, base in (
        ("keep", "which groups enter the batch", selection.Keep),
        ("truncation", "treatment of rows that were cut off", selection.Truncation),
    ):
        yield Axis(name, help, (name,), (base,), (selection,))


_DIVERGENCE = Axis(
    "divergence", "between whole distributions", (), (divergences.Divergence,), (divergences,)
)
AXES: dict[str, Axis] = {axis.name: axis for axis in _axes()}


def axis_of(kind: str) -> Axis | None:
    """The axis of an option's annotation, or None if its values are no parts.

    >>> axis_of("Weight").name, axis_of("SGD | TrustRegion").name, axis_of("float | None")
    ('weight', 'update', None)
    """
    names = {k.strip() for k in kind.split("|")}
    return next((x for x in AXES.values() if names & {b.__name__ for b in x.bases}), None)


def read_part(axis: Axis, value: Any) -> Any:
    """The part that a word names; a part itself stays as it is.

    Raises:
        ValueError: in one line: an unknown name and the nearest known one, wrong settings, an
            object of another kind.
        UserError: the user's file cannot be run, or what it names is no such part.

    >>> read_part(AXES["surrogate"], "clip(low=0.1, high=inf)")
    Clip(low=0.1, high=inf)
    """
    part = _of_word(axis, value) if isinstance(value, str) else value
    if not isinstance(part, axis.bases) or isinstance(part, type):
        kinds = " or ".join(b.__name__ for b in axis.bases)
        if isinstance(value, str):
            made = "a class" if isinstance(part, type) else type(part).__name__
            raise ValueError(f"{axis.name}: what {value} names is no {kinds} but {made}")
        article = "an" if kinds[0] in "AEIOU" else "a"
        raise ValueError(f"{axis.name} must be a word or {article} {kinds}, not {value!r}")
    for text in axis.texts:
        if not getattr(part, text, ""):
            raise UserError(
                f"{value} has no {text}, which `logpi describe` prints: give the class one, as a"
                " text"
            )
    return part


def word_of(value: Any) -> str | None:
    """The word that names a part, or None for what is none of the library's.

    >>> word_of(read_part(AXES["weight"], "FixedLength(8)")), word_of(3)
    ('FixedLength(length=8)', None)
    """
    for axis in AXES.values():
        if type(value) in axis.parts.values():
            with suppress(ValueError):  # a part with parts of its own prints no word
                return str(value) if read_part(axis, str(value)) == value else None
    return None


def given_in(axis: Axis, value: Any) -> set[str]:
    """The settings that a word gives, by name; of a part, all that it has.

    >>> given_in(AXES["advantage"], "GAE(0.99)"), given_in(AXES["advantage"], "GAE")
    ({'gamma'}, set())
    """
    if not isinstance(value, str):
        return set(settings_of(value))
    call = _CALL.fullmatch(value.strip())
    _, arguments, settings = parse_call(
        call[1].rpartition(":")[2] + (call[2] or "") if call else value
    )
    known = list(settings_of(read_part(axis, value)))
    return {*known[: len(arguments)], *settings}


def part_at(a: Any, axis: Axis) -> Any:
    """An algorithm's part on this axis; None where there is none."""
    part: Any = a
    for name in axis.path:
        part = getattr(part, name, None)
    return part


def settings_of(part: Any) -> dict[str, str]:
    """The fields of a part with their annotations; none of what is no dataclass."""
    return {f.name: text_of(f.type) for f in fields(part)} if is_dataclass(part) else {}


def text_of(annotation: Any) -> str:
    """An annotation as it is written, also where Python has evaluated it.

    >>> text_of(float), text_of("float | None")
    ('float', 'float | None')
    """
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _of_word(axis: Axis, word: str) -> Any:
    call = _CALL.fullmatch(word.strip())
    if call and is_user_code(call[1]):
        return _users_part(axis, call[1], call[2] or "")
    name, arguments, settings = parse_call(word)
    known = {_plain(k): k for k in axis.parts}
    if _plain(name) not in known:
        own = f" (or your own, FILE.py:{axis.bases[0].__name__}Class)"
        raise ValueError(f"no {axis.name} is called {name!r}; {nearest(name, axis.parts)}{own}")
    name = known[_plain(name)]
    return _made(axis, name, axis.parts[name], arguments, settings)


def _plain(name: str) -> str:
    """`GroupNorm`, `group_norm` and `group-norm` are the same."""
    return re.sub(r"[_-]", "", name).lower()


def _users_part(axis: Axis, place: str, call: str) -> Any:
    """What a user's file names: a part, or a class or function that makes one."""
    value = from_user_code(place)
    name, arguments, settings = parse_call(place.rpartition(":")[2] + call)
    if not call and isinstance(value, axis.bases):
        return value
    if not callable(value) or isinstance(value, axis.bases):
        raise UserError(f"{place} is {value!r}, which takes no settings and is no {axis.name}")
    return _made(axis, name, value, arguments, settings)


def _made(
    axis: Axis,
    name: str,
    make: Callable[..., Any],
    arguments: list[Any],
    settings: dict[str, Any],
) -> Any:
    """`make(*arguments, **settings)`, after a type check of what a dataclass takes."""
    known = list(inspect.signature(make).parameters)
    named = dict(zip(known, arguments, strict=False)) | settings
    kinds = settings_of(make)
    given = {k: _argument(axis, name, k, kinds.get(k, ""), v) for k, v in named.items()}
    rest = arguments[len(known) :]
    first = [given[k] for k in known[: len(arguments)]]
    return build(axis.name, name, make, first + rest, {k: given[k] for k in settings})


def _argument(axis: Axis, name: str, setting: str, kind: str, value: Any) -> Any:
    """A setting's value: an estimator by its name; checked where it is a number or a switch."""
    if setting == "estimator" and isinstance(value, str):
        return read_estimator(f"{axis.name} {name!r}: {setting}", value)
    words = {"bool", "int", "float", "str", "None"}
    checked = {k.strip() for k in kind.split("|")} <= words
    if checked and kind and (wanted := wrong_type(kind, value)) is not None:
        raise ValueError(f"{axis.name} {name!r}: {setting} must be {wanted}, not {value!r}")
    return value


def read_estimator(what: str, word: str) -> kl.Estimator | divergences.Divergence:
    """The estimator of a penalty that a word names: `k2`, `reverse`, `JensenShannon(mix=0.1)`.

    Raises:
        ValueError: in one line, which begins with `what`.
    """
    if word in ESTIMATORS:
        return ESTIMATORS[word]
    if "(" in word:
        return read_part(_DIVERGENCE, word)
    raise ValueError(f"{what} is one of {', '.join(ESTIMATORS)}, not {word!r}")
