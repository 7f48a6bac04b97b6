"""What recipes that measure share: which items, how they are asked and sampled, and an evaluation's
records, saved as it goes.

Left out: what is made of the records (`jobs/evaluate.py`, `jobs/compute.py`).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.errors import UserError
from logpi.evaluation.records import saved
from logpi.jobs.options.fields import option
from logpi.jobs.options.turns import columns

if TYPE_CHECKING:
    from logpi.envs.task import Row, Task
    from logpi.evaluation.evaluator import Evaluator
    from logpi.rewards import Rewards


@dataclass(frozen=True, kw_only=True)
class ItemArguments:
    """Which items, how they are asked, what is right, and whether the model may have seen them."""

    HEADING: ClassVar[str] = "items"

    task: str | Any = option(
        "addition",
        objects=True,
        help=(
            "a built-in task, a file of rows, a hub name, or FORMAT:PATH, of which all rows are "
            "items: gsm8k, svamp, math500, aime, humaneval, mbpp, rows"
        ),
    )
    ask: str = option(
        "",
        help=(
            "of a FORMAT: plain, boxed, qa, minerva, fenced, complete, austin, or a text with"
            " {question}"
        ),
    )
    shots: int = option(
        0, help="of a FORMAT: worked examples in front of each question", least=0, most=1000
    )
    shots_from: str = option(
        "", help="the file that they come from (default: the directory's train.*)"
    )
    rewards: tuple[str | Any, ...] = option(
        (), objects=True, help="the first says what is right (default: the task's own)", nargs="*"
    )
    lenient: str = option(
        "", help="a reward that finds the answer wherever it stands; measured besides, e.g. math"
    )
    items: int = option(200, help="held-out items; 0: all", least=0)
    trained_on: tuple[str, ...] = option(
        (), help="files the model learned from: items that stand in them are listed", nargs="*"
    )
    ngram: int = option(
        13, help="words in a row that an item and a training row must share for that", least=1
    )
    drop_seen: bool = option(False, help="leave those items out")


@dataclass(frozen=True)
class Items:
    """What is asked.

    Attributes:
        rows: the items. rewards: the first says what is right. lenient: the name of the one that
            finds answers anywhere, or "".
        task: where they are from. stop: the task's own. report: what was left out or seen, for
            people and for the results.
    """

    rows: Sequence[Row]
    rewards: Rewards
    lenient: str = ""
    stop: tuple[str, ...] = ()
    report: dict[str, Any] = field(default_factory=dict)
    task: Task | None = None


def judge_of(spec: Any, device: str) -> str | Rewards:
    """What scores responses, as rewards where it is that: a model is loaded once, whatever it is
    asked for."""
    from logpi.rewards import rewards

    named = isinstance(spec, str) and spec in ("", "logp", "self_certainty")
    return spec if named else rewards(spec, device)


def items_of(a: ItemArguments, judge: Rewards | None = None, device: str = "cpu") -> Items:
    """The items, those left out named on stderr. `judge` says what is right where no row has an
    answer; reward models run on `device`.

    Raises:
        ValueError, UserError: an unknown or empty task, rows that lack a column, no row whose
        answer can be read, all items seen.
    """
    from logpi.envs.benchmarks import Benchmark
    from logpi.envs.tasks import task as make_task
    from logpi.rewards import Rewards, Weighted, reward
    from logpi.rewards import rewards as make_rewards

    asked = {"template": a.ask, "shots": a.shots, "shots_from": a.shots_from}
    task = make_task(a.task, **{k: v for k, v in asked.items() if v})
    rows = list(task.rows("test")[: a.items or None])
    if not rows:
        raise UserError(f"{a.task}: no items")
    named = make_rewards(a.rewards, device) if a.rewards else task.reward
    rewards = judge if judge is not None and not a.rewards and "answer" not in rows[0] else named
    lenient, stop = (task.lenient, task.stop) if isinstance(task, Benchmark) else ("", ())
    lenient = "" if a.rewards else lenient
    if a.lenient:
        others = tuple(p for p in rewards.parts if p.name != "lenient")
        rewards, lenient = (
            Rewards((*others, Weighted(reward(a.lenient, device).function, 0.0, "lenient"))),
            "lenient",
        )
    more = columns(task)
    rewards.check([*rows[0], *more])
    rows, report = _readable(a, rows, rewards)
    rewards.check([*rows[0], *more], rows)
    return replace(Items(*_unseen(a, rows, rewards, lenient, stop, report)), task=task)


def _readable(
    a: ItemArguments, rows: list[Row], rewards: Rewards
) -> tuple[list[Row], dict[str, Any]]:
    """The rows whose answer the first reward can read."""
    from logpi.evaluation.evaluator import unanswerable

    bad = unanswerable(rewards, rows)
    if not bad:
        return rows, {}
    name, shown = (
        rewards.names[0],
        ", ".join(f"{i} ({str(rows[i].get('answer'))[:30]!r})" for i in bad[:5]),
    )
    if len(bad) == len(rows):
        raise UserError(
            f"{a.task}: reward {name!r} cannot read the answer of any of its {len(rows)} rows:"
            f" {shown}; choose --rewards"
        )
    print(
        f"{len(bad)} of {len(rows)} items left out: reward {name!r} cannot read their answers:"
        f" {shown}",
        file=sys.stderr,
    )
    return [r for i, r in enumerate(rows) if i not in set(bad)], {"unreadable": bad}


def _unseen(
    a: ItemArguments,
    rows: list[Row],
    rewards: Rewards,
    lenient: str,
    stop: tuple[str, ...],
    report: dict[str, Any],
) -> tuple:
    """The fields of `Items`, with what of the rows stands in the training files listed, and perhaps
    dropped."""
    from logpi.evaluation.contamination import contamination, training_rows

    if not a.trained_on:
        return rows, rewards, lenient, stop, report
    seen = contamination(rows, training_rows(a.trained_on), a.ngram)
    kinds = Counter(s.kind for s in seen)
    print(
        f"{len(seen)} of {len(rows)} items stand in {', '.join(a.trained_on)}: {kinds['exact']}"
        f" whole, {kinds['ngram']} share {a.ngram} words in a"
        f" row{'; left out' if a.drop_seen and seen else ''}",
        file=sys.stderr,
    )
    for s in seen[:5]:
        print(
            f"  item {s.item}  {s.kind} {s.share:.0%}  {s.where}  “{s.words[:80]}”", file=sys.stderr
        )
    left = (
        [r for i, r in enumerate(rows) if i not in {s.item for s in seen}] if a.drop_seen else rows
    )
    if not left:
        raise UserError(
            f"all {len(rows)} items stand in {', '.join(a.trained_on)}: nothing is left to"
            " measure on"
        )
    return (
        left,
        rewards,
        lenient,
        stop,
        report | {"seen": [asdict(s) for s in seen], "seen_dropped": a.drop_seen},
    )


def gathered(
    evaluator: Evaluator, path: Path, every: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """All records of an evaluation, those of a stopped one read from `path`, new ones added to it
    `every` items."""
    done, total = 0, len(evaluator.rows)

    def shards(first: int) -> Iterator[list[dict[str, Any]]]:
        nonlocal done
        done = first
        for shard in evaluator.shards(first, every):
            yield shard
            done = min(done + every, total)

    evaluator.progress = lambda rows, all_rows: tell(
        f"{done}/{total} items, sampling {rows}/{all_rows}"
    )
    return saved(path, shards, total, every, 1 + evaluator.greedy)
