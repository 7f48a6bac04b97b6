"""The similarity of two lists of calls, in [0, 1]: names, parameter names and values, under the
best assignment of one list to the other.

    share = S / Smax                                                  (ToolRL, arXiv:2504.13958)
    S    = match(names) + Σ over gold calls g of pair(g, the call that is matched with g)
    Smax = 1 + Σ_g most(g)

A `Grain` says what a pair of calls with one name earns. Left out: the rewards' ranges and formats
(`tool_calls.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logpi.calls import Call

# the most calls of a completion that are matched; further calls only lower the match of the names
MOST_PAIRS = 64
# the most calls of one name that get the best assignment; more are matched greedily
EXACT = 10


def jaccard(a: Sequence[Any], b: Sequence[Any]) -> float:
    """The size of the intersection over the size of the union, as multisets.

    >>> jaccard(["f"], ["f", "f"]), jaccard([], []), jaccard(["f"], [])
    (0.5, 1.0, 0.0)
    """
    ours, theirs = Counter(a), Counter(b)
    if ours == theirs:
        return 1.0
    shared = (ours & theirs).total()
    return shared / (len(a) + len(b) - shared)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal as JSON: numbers by value, booleans apart from numbers, at every
    depth."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(v, b[k]) for k, v in a.items())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def _alike(a: Sequence[Any], b: Sequence[Any]) -> float:
    return float(Counter(a) == Counter(b))


def _values(gold: Call, call: Call) -> int:
    """Parameters of `gold` that `call` has with the same value."""
    return sum(same(call.arguments[k], v) for k, v in gold.arguments.items() if k in call.arguments)


def _fine(gold: Call, call: Call) -> float:
    return jaccard(list(gold.arguments), list(call.arguments)) + _values(gold, call)


def _strict(gold: Call, call: Call) -> float:
    return _alike(list(gold.arguments), list(call.arguments)) + _values(gold, call)


def _whole(gold: Call, call: Call) -> float:
    return float(same(gold.arguments, call.arguments))


@dataclass(frozen=True)
class Grain:
    """A way to compare two lists of calls.

    Attributes:
        names: the similarity of two lists of names.
        pair: the score of two calls with one name.
        most: the highest score of a gold call.
        whole: all or nothing.

    >>> from logpi.calls import Call
    >>> GRAINS["fine"]([Call("f", {"a": 1, "b": 2})], [Call("f", {"a": 1, "b": 3})])
    0.75
    """

    names: Callable[[Sequence[Any], Sequence[Any]], float]
    pair: Callable[[Call, Call], float]
    most: Callable[[Call], float]
    whole: bool = False

    def __call__(self, golds: Sequence[Call], calls: Sequence[Call], greedy: bool = False) -> float:
        """The score over the highest possible one.

        Args:
            greedy: match the best unused call with each gold in turn, as the published code does.
        """
        names = self.names([g.name for g in golds], [c.name for c in calls])
        earned = names + sum(self._pairs(golds, calls[:MOST_PAIRS], greedy))
        share = earned / (1.0 + sum(map(self.most, golds)))
        return float(share == 1.0) if self.whole else share

    def _pairs(self, golds: Sequence[Call], calls: Sequence[Call], greedy: bool) -> Iterator[float]:
        """The score of the calls of each name; calls of different names never match."""
        for name in dict.fromkeys(g.name for g in golds):
            named = [c for c in calls if c.name == name]
            if not named:
                continue
            table = [[self.pair(g, c) for c in named] for g in golds if g.name == name]
            yield _greedy(table) if greedy else _best(table)


# ToolRL's four grains; `fine` is the paper's, `strict` is `REFINEDREWARD` in its code.
GRAINS = {
    "fine": Grain(jaccard, _fine, lambda gold: 1.0 + len(gold.arguments)),
    # names and parameter names wholly or not at all
    "strict": Grain(_alike, _strict, lambda gold: 1.0 + len(gold.arguments)),
    # each call wholly or not at all
    "call": Grain(jaccard, _whole, lambda gold: 1.0),
    # everything or nothing, in any order
    "all": Grain(_alike, _whole, lambda gold: 1.0, whole=True),
}


def _greedy(table: Sequence[Sequence[float]]) -> float:
    """The sum over the rows of the best unused column; of equals the first."""
    used: set[int] = set()
    total = 0.0
    for row in table:
        free = [j for j in range(len(row)) if j not in used]
        best = max(free, key=lambda j: row[j], default=None)
        if best is not None and row[best] > 0:
            used.add(best)
            total += row[best]
    return total


# Row by row, the greatest sum for each set of used columns. With the table
#
#     [[3, 2],      no row          {}: 0
#      [3, 0]]      the first row   {}: 0   {0}: 3   {1}: 2
#                   the second      {}: 0   {0}: 3   {1}: 2   {0, 1}: max(3 + 0, 2 + 3) = 5
#
# the answer is 5: the second row takes column 0, the first the lesser column 1.
def _best(table: Sequence[Sequence[float]]) -> float:
    """The greatest sum of values of which no two share a row or a column.

    Greedy if both sides have more than `EXACT`.

    >>> _best([[3.0, 2.0], [3.0, 0.0]])
    5.0
    """
    if len(table[0]) > len(table):
        table = list(zip(*table, strict=True))
    if len(table[0]) > EXACT:
        return _greedy(table)
    sums = {0: 0.0}
    for row in table:
        before = list(sums.items())
        for column, value in enumerate(row):
            bit = 1 << column
            for used, total in before:
                if not used & bit:
                    sums[used | bit] = max(sums.get(used | bit, 0.0), total + value)
    return max(sums.values())
