"""`logpi prefer`: learn from preferences directly, by DPO and its family, on the learner that does
everything else.

Left out: pairs from the policy's own samples (`logpi rl --algorithm dpo`), and reward models
(`reward_model.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from logpi.errors import UserError, as_user_errors
from logpi.jobs.common import finish, opened, whole_groups
from logpi.jobs.options.algorithm import flags_of_algorithm
from logpi.jobs.options.fields import option
from logpi.jobs.options.lora import LoraArguments, Role, memory
from logpi.jobs.options.model import ModelArguments
from logpi.jobs.options.run import RunArguments, available, read
from logpi.jobs.options.seeds import SeedArguments
from logpi.jobs.seeds import start

CURVES = (("loss", "eval/loss"), ("rewards/accuracies", "eval/rewards/accuracies"),
          ("rewards/chosen", "rewards/rejected"), "grad_norm")  # fmt: skip
SHOWN = ("loss", "rewards/accuracies", "rewards/margins", "grad_norm")


@dataclass(frozen=True, kw_only=True)
class Prefer(ModelArguments, LoraArguments, SeedArguments, RunArguments):
    """Arguments of `logpi prefer`."""

    HEADING: ClassVar[str] = "training"
    FIRST: ClassVar[str] = "model data objective steps pairs lr lora out"

    data: str = option(
        help=(
            "a file, directory or hub name: rows with chosen and rejected; KTO: completion and"
            " label"
        )
    )
    objective: str = option(
        "dpo", help="dpo, robust_dpo, slic, ipo, kto, orpo or simpo (see `logpi describe NAME`)"
    )
    options: Mapping[str, Any] = option(
        {},
        help="its settings, e.g. beta=0.1 label_smoothing=0.1 rpo_alpha=0.2 length_normalised=true",
        nargs="*",
        flags=lambda known: flags_of_algorithm({"algorithm": known.get("objective")}),
    )
    steps: int = option(200, help="updates", least=1, most=10**7, changeable=True)
    pairs: int = option(
        16, help="pairs (or labelled responses) for each update", least=1, most=2**20
    )
    max_length: int = option(
        1024,
        help="tokens of prompt and response together; longer ones are cut",
        least=2,
        most=2**24,
    )
    skip_empty: bool = option(
        False, help="leave rows with an empty response out, instead of refusing them"
    )
    lr: float = option(
        1e-6,
        help="peak learning rate (about 1e-4 for LoRA or a model of a million parameters)",
        least=0,
        most=10,
    )
    warmup: int = option(10, help="updates over which it climbs", least=0)
    eval_every: int = option(
        50,
        help="steps between evaluations on held-out pairs; 0: only before and after",
        least=0,
        changeable=True,
    )
    eval_items: int = option(200, help="held-out pairs", least=1)


def main(argv: Sequence[str]) -> int:
    start(
        run,
        read(
            Prefer, argv, "prefer", "Learn from preferences directly: DPO, IPO, KTO, ORPO, SimPO."
        ),
        "prefer",
    )
    return 0


def check_preference(name: str) -> None:
    """Raises UserError: no algorithm of this name learns a policy from pairs or labels."""
    from logpi.algorithms import algorithm, learning_from
    from logpi.types import Data, Objective

    given = Data.PAIRS | Data.LABELS

    def fits(objective: Objective) -> bool:
        return bool(objective.learns_from & given) and objective.scores_actions

    try:
        known = fits(algorithm(name).objective)
    except ValueError:
        known = False
    if not known:
        there = [n for n in learning_from(given) if fits(algorithm(n).objective)]
        raise UserError(f"no preference objective is called {name!r}: there are {', '.join(there)}")


def run(a: Prefer) -> None:
    """Set up, compute the reference's log-probabilities once, train, save."""
    from logpi.algorithms import algorithm, describe
    from logpi.algorithms import options as known
    from logpi.envs.data import RowsTask
    from logpi.evaluation.held_out_pairs import HeldOutPairs
    from logpi.learner import Learner
    from logpi.rollouts.preference_pairs import Preferences, read_labels, read_pairs, without_empty
    from logpi.runs.rng import seed
    from logpi.train import train
    from logpi.types import Data
    from logpi.updates.adamw import AdamW, Cosine

    available(a)
    with as_user_errors():
        check_preference(a.objective)
        reads_reference = "recorded" in {o.name for o in known(a.objective)}
        made = algorithm(
            a.objective, **dict(a.options) | ({"recorded": True} if reads_reference else {})
        )
        whole_groups(made, a.pairs, "--pairs")
        task = RowsTask(a.data)
        keep = without_empty if a.skip_empty else list
        seed(a.seed)
        policy = a.load(**a.bits())
        chat, saver = a.template(policy), a.adapt(policy)
        take = read_labels if Data.LABELS in made.objective.learns_from else read_pairs
        length = policy.fitting(a.max_length)
        train_rows = take(policy, keep(task.rows("train")), max_length=length, chat=chat)
        test_rows = take(
            policy, keep(task.rows("test"))[: a.eval_items], max_length=length, chat=chat
        )
        rollout = Preferences(train_rows.groups, size=a.pairs, seed=a.seed)
        held_out = Preferences(test_rows.groups, size=a.pairs)
        learner = Learner(
            policy,
            made,
            AdamW(a.lr, warmup=a.warmup, schedule=Cosine(0.1)),
            total=a.steps,
            seed=a.seed,
        )
    note = f"{len(train_rows.groups)} rows to learn from, {len(test_rows.groups)} held out"
    if train_rows.dropped:
        note += (
            f"; {train_rows.dropped} dropped: both responses are the same after the cut to"
            f" {a.max_length} tokens"
        )
    kept = (
        "its log-probabilities of the data are computed once" if reads_reference else "not needed"
    )
    roles = memory([Role("policy", policy), Role("reference", None, kept)])
    print(f"{describe(made)}\n\n{policy.template.describe()}\n{note}\n{roles}", file=sys.stderr)
    with opened(a, "prefer") as home:
        if reads_reference:
            rollout.record(policy, batches=a.steps)
            held_out.record(policy)
        outcome = train(
            rollout,
            learner,
            home,
            steps=a.steps,
            evaluate=HeldOutPairs(policy, made.objective, held_out),
            shown=SHOWN,
            eval_every=a.eval_every,
            save_every=a.save_every,
        )
        finish(home, saver, learner, outcome, CURVES)
