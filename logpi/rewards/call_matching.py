"""How alike two lists of calls are, in [0, 1]: names, parameter names and values, under the best
assignment of one to the other.

    share = S / Smax                                                                                       (ToolRL, arXiv:2504.13958)
    S    = match(names) + Σ over gold calls g of pair(g, the call that g is matched with)
    Smax = 1 + Σ_g most(g)

What a pair of equally named calls earns is the grain. Left out: ranges and formats of rewards
(`tool_calls.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logpi.calls import Call

MOST_PAIRS = 64  # calls of a completion that are matched; more only dilute the names


def jaccard(a: Sequence[Any], b: Sequence[Any]) -> float:
    """Shared over all, with multiplicity.

    >>> jaccard(["f"], ["f", "f"]), jaccard([], []), jaccard(["f"], [])
    (0.5, 1.0, 0.0)
    """
    ours, theirs = Counter(a), Counter(b)
    if ours == theirs:
        return 1.0
    shared = (ours & theirs).total()
    return shared / (len(a) + len(b) - shared)


def same(a: Any, b: Any) -> bool:
    """Equal as JSON: numbers by value, truth values apart from numbers, all the way down."""
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


def _each(gold: Call) -> float:
    return 1.0 + len(gold.arguments)


@dataclass(frozen=True)
class Grain:
    """What counts.

    Attributes:
        names: how alike two lists of names are. pair: what two equally named calls earn. most: what
            a gold call could earn.
        whole: everything or nothing.

    >>> GRAINS["fine"]([Call("f", {"a": 1, "b": 2})], [Call("f", {"a": 1, "b": 3})])
    0.75
    """

    names: Callable[[Sequence[Any], Sequence[Any]], float]
    pair: Callable[[Call, Call], float]
    most: Callable[[Call], float]
    whole: bool = False

    def __call__(self, golds: Sequence[Call], calls: Sequence[Call], greedy: bool = False) -> float:
        """The share of what could be earned. greedy: the best unused call for each gold in turn, as
        in the published code."""
        names = self.names([g.name for g in golds], [c.name for c in calls])
        table = [
            [self.pair(g, c) if g.name == c.name else 0.0 for c in calls[:MOST_PAIRS]]
            for g in golds
        ]
        earned = names + sum(_greedy(table) if greedy else _best(table))
        share = earned / (1.0 + sum(map(self.most, golds)))
        return float(share == 1.0) if self.whole else share


GRAINS = {
    "fine": Grain(jaccard, _fine, _each),  # the paper's
    "strict": Grain(
        _alike, _strict, _each
    ),  # names and parameter names wholly or not at all (`REFINEDREWARD` in its code)
    "call": Grain(
        jaccard, _whole, lambda gold: 1.0
    ),  # each call wholly or not at all (its intermediate grain)
    "all": Grain(
        _alike, _whole, lambda gold: 1.0, whole=True
    ),  # everything or nothing, in any order (its coarse grain)
}


def _greedy(table: Sequence[Sequence[float]]) -> list[float]:
    """The best unused column for each row in turn; the first of equals."""
    used: set[int] = set()
    out = []
    for row in table:
        free = [j for j in range(len(row)) if j not in used]
        best = max(free, key=lambda j: row[j], default=None)
        if best is not None and row[best] > 0:
            used.add(best)
            out.append(row[best])
    return out


def _best(table: Sequence[Sequence[float]]) -> list[float]:
    """The values of the assignment with the greatest sum: Hungarian algorithm with potentials,
    O(n²m) (Kuhn 1955, Munkres 1957).

    >>> _best([[3.0, 2.0], [3.0, 0.0]])
    [2.0, 3.0]
    """
    if not table or not table[0]:
        return []
    if len(table) > len(table[0]):
        table = list(zip(*table, strict=True))
    n, m = len(table), len(table[0])
    row_price, column_price = [0.0] * (n + 1), [0.0] * (m + 1)
    owner = [0] * (m + 1)  # owner[j]: the row, from 1, that column j, from 1, is given to
    for i in range(1, n + 1):
        _augment(table, i, owner, row_price, column_price)
    chosen = sorted((owner[j], j) for j in range(1, m + 1) if owner[j])
    return [table[i - 1][j - 1] for i, j in chosen]


def _augment(
    table: Sequence[Sequence[float]],
    row: int,
    owner: list[int],
    row_price: list[float],
    column_price: list[float],
) -> None:
    """Give row `row` a column, moving others along the cheapest alternating path."""
    m = len(owner) - 1
    least, before, seen = [float("inf")] * (m + 1), [0] * (m + 1), [False] * (m + 1)
    owner[0], at = row, 0
    while owner[at]:
        seen[at], i = True, owner[at]
        for j in range(1, m + 1):
            slack = -table[i - 1][j - 1] - row_price[i] - column_price[j]
            if not seen[j] and slack < least[j]:
                least[j], before[j] = slack, at
        step, following = min((least[j], j) for j in range(1, m + 1) if not seen[j])
        for j in range(m + 1):
            if seen[j]:
                row_price[owner[j]] += step
                column_price[j] -= step
            else:
                least[j] -= step
        at = following
    while at:
        owner[at], at = owner[before[at]], before[at]
