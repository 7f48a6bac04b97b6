"""The items that a job measures: options that choose them, their evaluator, and its records, saved
while it runs.

Left out: the numbers that come of the records (`jobs/evaluate.py`, `jobs/compute.py`).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.errors import UserError
from logpi.evaluation.records import saved
from logpi.jobs.options.fields import option
from logpi.jobs.options.turns import TurnArguments, columns

if TYPE_CHECKING:
    from logpi.envs.task import Row, Task
    from logpi.evaluation.evaluator import Evaluator
    from logpi.policies.causal_lm import CausalLM
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
    """The items of an evaluation.

    Attributes:
        rows: the items. rewards: the first says what is right. lenient: the name of the one that
            finds answers anywhere, or "".
        task: where they are from. stop: the task's own. report: what was left out or seen, for
            people and for the results.
    """

    rows: Sequence[Row]
    rewards: Rewards
    task: Task
    lenient: str = ""
    stop: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)


def judge_of(spec: Any, device: str) -> str | Rewards:
    """The judge of responses: a scorer's name, or loaded rewards, so that a model is loaded
    once."""
    from logpi.rewards import rewards

    named = isinstance(spec, str) and spec in ("", "logp", "self_certainty")
    return spec if named else rewards(spec, device)


def items_of(a: ItemArguments, judge: Rewards | None = None, device: str = "cpu") -> Items:
    """The items; those left out are named on stderr. `judge` says what is right where no row has an
    answer; reward models run on `device`.

    Raises:
        ValueError, UserError: an unknown or empty task, rows that lack a column, no row whose
        answer can be read, all items seen.
    """
    from logpi.envs.benchmarks import Benchmark
    from logpi.envs.tasks import task as make_task
    from logpi.rewards import Rewards, Weighted, reward
    from logpi.rewards import rewards as make_rewards

    options = {"template": a.ask, "shots": a.shots, "shots_from": a.shots_from}
    task = make_task(a.task, **{k: v for k, v in options.items() if v})
    rows = list(task.rows("test")[: a.items or None])
    if not rows:
        raise UserError(f"{a.task}: no items")
    named = make_rewards(a.rewards, device) if a.rewards else task.reward
    rewards = judge if judge is not None and not a.rewards and "answer" not in rows[0] else named
    lenient, stop = (task.lenient, task.stop) if isinstance(task, Benchmark) else ("", ())
    lenient = "" if a.rewards else lenient
    if a.lenient:
        lenient = "lenient"
        others = (p for p in rewards.parts if p.name != lenient)
        measured = Weighted(reward(a.lenient, device).function, 0.0, lenient)
        rewards = Rewards((*others, measured))
    more = columns(task, a)
    rewards.check([*rows[0], *more])
    rows, unreadable = _readable(a, rows, rewards)
    rewards.check([*rows[0], *more], rows)
    rows, seen = _unseen(a, rows)
    return Items(rows, rewards, task, lenient, stop, unreadable | seen)


def _readable(
    a: ItemArguments, rows: list[Row], rewards: Rewards
) -> tuple[list[Row], dict[str, Any]]:
    """The rows whose answer the first reward can read, and a report on the others."""
    from logpi.evaluation.evaluator import unanswerable

    bad = unanswerable(rewards, rows)
    if not bad:
        return rows, {}
    name = rewards.names[0]
    shown = ", ".join(f"{i} ({str(rows[i].get('answer'))[:30]!r})" for i in bad[:5])
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


def _unseen(a: ItemArguments, rows: list[Row]) -> tuple[list[Row], dict[str, Any]]:
    """The rows, with a report on those that stand in the training files; perhaps without them."""
    from logpi.evaluation.contamination import contamination, training_rows

    if not a.trained_on:
        return rows, {}
    seen = contamination(rows, training_rows(a.trained_on), a.ngram)
    kinds, files = Counter(s.kind for s in seen), ", ".join(a.trained_on)
    print(
        f"{len(seen)} of {len(rows)} items stand in {files}: {kinds['exact']} whole,"
        f" {kinds['ngram']} share {a.ngram} words in a"
        f" row{'; left out' if a.drop_seen and seen else ''}",
        file=sys.stderr,
    )
    for s in seen[:5]:
        line = f"  item {s.item}  {s.kind} {s.share:.0%}  {s.where}  “{s.words[:80]}”"
        print(line, file=sys.stderr)
    report = {"seen": [asdict(s) for s in seen], "seen_dropped": a.drop_seen}
    dropped = {s.item for s in seen} if a.drop_seen else set()
    if len(dropped) == len(rows):
        raise UserError(f"all {len(rows)} items stand in {files}: nothing is left to measure on")
    return [r for i, r in enumerate(rows) if i not in dropped], report


def evaluator_of(
    a: Any,
    items: Items,
    policy: CausalLM,
    judge: str | Rewards,
    samples: int,
    ks: Sequence[int] = (),
) -> Evaluator:
    """The evaluator of a job with these options. ks: of pass@k."""
    from logpi.engine.engine import Engine
    from logpi.evaluation.evaluator import Evaluator
    from logpi.evaluation.scorers import scorer

    chat = a.template(policy)
    has_turns = isinstance(a, TurnArguments)
    conversations = a.conversations(items.task, policy, chat) if has_turns else None
    return Evaluator(
        policy,
        Engine(policy, slots=a.slots),
        a.fitting(items.rows, policy, chat, conversations),
        items.rewards,
        a.sampling(items.stop),
        samples,
        chat=chat,
        seed=a.seed,
        lenient=items.lenient,
        ks=ks,
        scorer=scorer(judge, policy) if judge else None,
        conversations=conversations,
        overlong=a.overlong_prompts,
    )


def gathered(
    evaluator: Evaluator, path: Path, every: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """All records of an evaluation. It reads those of a stopped one from `path`, and appends new
    ones `every` items."""
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
