"""Contamination: which items of a benchmark stand, whole or in part, in data that a model was
trained on.

    exact   the item's question is a training row's question, after normalisation
    ngram   n consecutive words of the item stand in a training row (n = 13: GPT-3,
            arXiv:2005.14165, appendix C)

With n = 3: the item "a b c d" has the n-grams "a b c" and "b c d". The training text "So A, b, c!"
has the words so a b c, and so the first of the two: an ngram hit, of a share of 1/2.

Normalised: lower case, words and numbers only (1+1 and 1-1, of fewer than 5 words, keep their
signs). A training row is read whole, whatever its columns (question, working, chat messages); of
the item only the question, so that an instruction that all prompts share is no hit. An item of
fewer than n words is searched for as a whole; one of fewer than 5 must be the whole of a text. Left
out: paraphrases, translations, other numbers in the same story: no comparison of words sees those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logpi.envs.objects import raw_rows

if TYPE_CHECKING:
    from logpi.envs.task import Row

_WORD = re.compile(r"\w+(?:[.,]\d+)*")
SHORT = 5
"""Words: fewer stand in any text by chance."""


def words(text: str) -> list[str]:
    """Lower-case words and numbers.

    >>> words("Janet's 1,200 ducks--lay 3.5 EGGS.")
    ['janet', 's', '1,200', 'ducks', 'lay', '3.5', 'eggs']
    """
    return _WORD.findall(text.lower())


def _text(value: Any) -> Iterator[str]:
    """Every text in a row: strings, lists, messages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for k, v in value.items():
            yield from () if k == "role" else _text(v)
    elif isinstance(value, Sequence):
        for v in value:
            yield from _text(v)


def _key(text: str, its_words: Sequence[str]) -> tuple[str, ...]:
    """Equal for texts that are the same: the words of a long text, all characters of a short
    one."""
    return tuple(its_words) if len(its_words) >= SHORT else ("".join(text.lower().split()),)


def question_of(row: Row) -> str:
    """The question, without the template around it where the row has it alone (`question`)."""
    return "\n".join(_text(row.get("question") or row["prompt"]))


@dataclass(frozen=True)
class ContaminatedItem:
    """An item that stands in training data.

    Attributes:
        item: its number. kind: "exact" or "ngram". share: of the item's n-grams that stand there.
        where: place of the first training row with one. words: the first of these n-grams.
    """

    item: int
    kind: str
    share: float
    where: str
    words: str


def _grams(text: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return (tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def contamination(
    rows: Sequence[Row], training: Iterable[tuple[str, Any]], n: int = 13
) -> list[ContaminatedItem]:
    """The items among `rows` that stand in `training`, in order.

    Args:
        training: pairs of a place ("train.jsonl, line 3") and a row of any columns, or a text.
        n: consecutive words that count as a hit.
    Raises:
        ValueError: n < 1.

    >>> contamination([{"prompt": "a b c d"}], [("t, line 1", {"text": "So A, b, c!"})], n=3)
    [ContaminatedItem(item=0, kind='ngram', share=0.5, where='t, line 1', words='a b c')]
    """
    if n < 1:
        raise ValueError(f"an n-gram has at least 1 word, not {n}")
    questions = [question_of(row) for row in rows]
    items = [words(q) for q in questions]
    keys = [_key(q, i) for q, i in zip(questions, items, strict=True)]
    grams = [list(_grams(i, min(n, len(i)))) if len(i) >= min(n, SHORT) else [] for i in items]
    key_places, gram_places = _places(set(keys), {g for gs in grams for g in gs}, training)
    contaminated = []
    for i, (item, key, gs) in enumerate(zip(items, keys, grams, strict=True)):
        hits = [g for g in gs if g in gram_places]
        if key in key_places:
            text = " ".join(item[:n])
            contaminated.append(ContaminatedItem(i, "exact", 1.0, key_places[key], text))
        elif hits:
            share, text = len(hits) / len(gs), " ".join(hits[0])
            contaminated.append(ContaminatedItem(i, "ngram", share, gram_places[hits[0]], text))
    return contaminated


def _places(
    keys: set[tuple[str, ...]],
    grams: set[tuple[str, ...]],
    training: Iterable[tuple[str, Any]],
) -> tuple[dict[tuple[str, ...], str], dict[tuple[str, ...], str]]:
    """The place of the first training row with each key and with each n-gram that has one."""
    key_places: dict[tuple[str, ...], str] = {}
    gram_places: dict[tuple[str, ...], str] = {}
    sizes = {len(g) for g in grams}
    for where, row in training:
        for text in _text(row):
            its_words = words(text)
            if (key := _key(text, its_words)) in keys:
                key_places.setdefault(key, where)
            for size in sizes:
                for gram in grams.intersection(_grams(its_words, size)):
                    gram_places.setdefault(gram, where)
    return key_places, gram_places


def training_rows(sources: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Every row of these files (or objects of rows), as it stands, with its place.

    Raises:
        ValueError: as `load_rows`; a source without rows.
    """
    for source in sources:
        yield from raw_rows(source)
