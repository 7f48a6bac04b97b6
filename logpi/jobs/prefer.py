"""`logpi prefer`: learn from preferences directly, by DPO and its family.

The learner is that of every other job. Left out: pairs from the policy's own samples (`logpi rl
--algorithm dpo`), and reward models (`reward_model.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError
from logpi.jobs.common import whole_groups
from logpi.jobs.job import Job, Setup, job
from logpi.jobs.memory import Role, memory
from logpi.jobs.options.algorithm import flags_of_algorithm
from logpi.jobs.options.fields import changed, option
from logpi.jobs.options.learning import FineTuningArguments
from logpi.jobs.options.model_size import said, settled
from logpi.jobs.options.pairs import PairArguments
from logpi.jobs.seeds import command

if TYPE_CHECKING:
    from logpi.algorithms import Algorithm
    from logpi.engine.language_model import LanguageModel

CURVES = (("loss", "eval/loss"), ("rewards/accuracies", "eval/rewards/accuracies"),
          ("rewards/chosen", "rewards/rejected"), "grad_norm")  # fmt: skip
SHOWN = ("loss", "rewards/accuracies", "rewards/margins", "grad_norm")


@job
class Prefer(Job, PairArguments, FineTuningArguments):
    """Learning from preferences directly: `logpi prefer`.

    >>> import logpi
    >>> pairs = [{"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}]
    >>> logpi.Prefer(model="my-model", data=pairs, algorithm="ipo", beta=0.2).options
    {'beta': 0.2}
    """

    COMMAND = "prefer"
    RANKS = True
    HEADING = "training"
    FIRST = "model data algorithm steps pairs lr lora out"

    algorithm: str | Any = option(
        "dpo",
        objects=True,
        aliases=("objective",),
        help="dpo, robust_dpo, slic, ipo, kto, orpo or simpo (see `logpi describe NAME`)",
    )
    options: Mapping[str, Any] = option(
        {},
        help="its settings, e.g. beta=0.1 label_smoothing=0.1 rpo_alpha=0.2 length_normalised=true",
        nargs="*",
        flags=flags_of_algorithm,
    )
    lr: float | None = changed(
        FineTuningArguments,
        "lr",
        None,
        help=f"peak learning rate (default: {said('prefer', 'lr')})",
    )

    def setup(self) -> Setup:
        """Load everything. The run computes the reference's log-probabilities once, at its
        beginning."""
        from logpi.runs.rng import seed

        method, recorded = _algorithm(self)
        whole_groups(method, self.pairs, "--pairs")
        seed(self.seed)
        policy = self.load(**self.bits())
        return settled(self, policy, lambda job: job._learning(method, recorded, policy))

    def _learning(self, method: Algorithm, recorded: bool, policy: LanguageModel) -> Setup:
        """Everything else, of settled options."""
        from logpi.algorithms import describe
        from logpi.evaluation.held_out_pairs import HeldOutPairs
        from logpi.learner import Learner
        from logpi.rollouts.preference_pairs import read_labels, read_pairs
        from logpi.types import Data

        chat, saver = self.template(policy), self.adapt(policy)
        take = read_labels if Data.LABELS in method.objective.learns_from else read_pairs
        length = policy.fitting(self.max_length)
        rows = partial(take, max_length=length, chat=chat)
        rollout, held_out, note = self.split(policy, rows, ("prompt",), self.seed)
        learner = Learner(policy, method, self.rates(), total=self.steps, seed=self.seed)
        kept = "its log-probabilities of the data are computed once" if recorded else "not needed"
        roles = memory([Role("policy", policy), Role("reference", None, kept)])
        print(
            f"{describe(method)}\n\n{policy.template.describe()}\n{note}\n{roles}", file=sys.stderr
        )

        def record() -> None:
            if recorded:
                rollout.record(policy, batches=self.steps)
                held_out.record(policy)

        return Setup(
            rollout,
            learner,
            policy,
            saver.save,
            self.steps,
            HeldOutPairs(policy, method.objective, held_out),
            self.eval_every,
            self.save_every,
            SHOWN,
            CURVES,
            begin=record,
        )


main = partial(command, Prefer, "Learn from preferences directly: DPO, IPO, KTO, ORPO, SimPO.")


def check_preference(name: str) -> None:
    """Raises UserError: no algorithm of this name learns a policy from pairs or labels."""
    from logpi.algorithms import algorithm, learning_from
    from logpi.types import Data, Objective

    kinds = Data.PAIRS | Data.LABELS

    def fits(objective: Objective) -> bool:
        return bool(objective.learns_from & kinds) and objective.scores_actions

    try:
        known = fits(algorithm(name).objective)
    except ValueError:
        known = False
    if not known:
        names = [n for n in learning_from(kinds) if fits(algorithm(n).objective)]
        raise UserError(f"no preference objective is called {name!r}: there are {', '.join(names)}")


def _algorithm(a: Prefer) -> tuple[Algorithm, bool]:
    """The algorithm, and whether it reads a reference's recorded log-probabilities."""
    from logpi.algorithms import algorithm
    from logpi.algorithms import options as known

    check_preference(a.algorithm)
    recorded = "recorded" in {o.name for o in known(a.algorithm)}
    settings = {"recorded": True} if recorded else {}
    return algorithm(a.algorithm, **{**a.options, **settings}), recorded
