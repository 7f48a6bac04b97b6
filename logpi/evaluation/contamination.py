"""Contamination: which items of an evaluation stand, whole or in part, in data that a model was
trained on.

    exact   the item's question is a training row's question, after normalisation
    ngram   some n words in a row of the item stand in a training row (n = 13: GPT-3, arXiv:2005.14165, appendix C)

Normalised: lower case, words and numbers only (1+1 and 1-1, of fewer than 5 words, keep their
signs). A training row is read whole, whatever its columns (question, working, chat messages); of
the item only the question, so an instruction that all prompts share is not taken for a leak. An
item of fewer than n words is found inside a row as a whole, one of fewer than 5 only as the whole
of a text. Left out: paraphrases, translations, other numbers in the same story: nothing that
compares words sees those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logpi.envs.task import Row

_WORD = re.compile(r"\w+(?:[.,]\d+)*")
SHORT = 5  # words: fewer stand in any text by chance


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


def _key(text: str, said: Sequence[str]) -> tuple[str, ...]:
    """What two texts share that are the same."""
    return tuple(said) if len(said) >= SHORT else ("".join(text.lower().split()),)


def question_of(row: Row) -> str:
    """What is asked, without the template around it where the row says so (`question`)."""
    return "\n".join(_text(row.get("question") or row["prompt"]))


@dataclass(frozen=True)
class ContaminatedItem:
    """An item that stands in training data.

    Attributes:
        item: its number. kind: "exact" or "ngram". share: of the item's n-grams that were found.
            where: file and row, the first.
        words: the first words in a row that were found.
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
        n: words in a row that count as seen.
    Raises:
        ValueError: n < 1.

    >>> contamination([{"prompt": "a b c d"}, {"prompt": "x"}], [("t, line 1", {"text": "So A, b, c!"})], n=3)
    [ContaminatedItem(item=0, kind='ngram', share=0.5, where='t, line 1', words='a b c')]
    """
    if n < 1:
        raise ValueError(f"an n-gram has at least 1 word, not {n}")
    questions = [question_of(row) for row in rows]
    items = [words(q) for q in questions]
    keys = [_key(q, i) for q, i in zip(questions, items, strict=True)]
    grams = [list(_grams(i, min(n, len(i)))) if len(i) >= min(n, SHORT) else [] for i in items]
    sizes = {len(g[0]) for g in grams if g}
    wanted = {g for gs in grams for g in gs}
    whole: dict[tuple[str, ...], str] = dict.fromkeys(keys, "")
    found: dict[tuple[str, ...], str] = {}  # where each n-gram was seen first
    for where, row in training:
        for text in _text(row):
            said = words(text)
            if whole.get(key := _key(text, said)) == "":
                whole[key] = where
            for size in sizes:
                for gram in wanted.intersection(_grams(said, size)):
                    found.setdefault(gram, where)
    out = []
    for i, (item, key, gs) in enumerate(zip(items, keys, grams, strict=True)):
        hits = [g for g in gs if g in found]
        if whole[key]:
            out.append(ContaminatedItem(i, "exact", 1.0, whole[key], " ".join(item[:n])))
        elif hits:
            out.append(
                ContaminatedItem(i, "ngram", len(hits) / len(gs), found[hits[0]], " ".join(hits[0]))
            )
    return out


def training_rows(sources: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Every row of these files (or objects of rows), as it stands, with its place.

    Raises:
        ValueError: as `load_rows`; a source without rows.
    """
    from logpi.envs.objects import raw_rows

    for source in sources:
        yield from raw_rows(source)
