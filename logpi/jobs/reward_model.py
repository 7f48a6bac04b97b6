"""`logpi reward-model`: train a model of what people prefer on pairs of responses (Bradley–Terry).

Left out: scores of single steps, and uses of the scores (`--rewards model:DIR`, `--judge`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.distributed.world import current
from logpi.jobs.job import Job, Setup, job
from logpi.jobs.options.fields import changed, option
from logpi.jobs.options.learning import FineTuningArguments
from logpi.jobs.options.model_size import said, settled
from logpi.jobs.options.pairs import PairArguments
from logpi.jobs.seeds import command

if TYPE_CHECKING:
    from torch import Tensor

    from logpi.algorithms import Algorithm
    from logpi.policies.reward_model import RewardModel
    from logpi.rollouts.preference_pairs import Preferences
    from logpi.runs.directory import Run
    from logpi.train import Outcome

CURVES = (
    ("loss", "eval/loss"),
    ("accuracy", "eval/accuracy"),
    ("margin", "eval/margin"),
    ("reward/min", "reward/max"),
)
SHOWN = ("loss", "accuracy", "margin", "grad_norm")


@job
class TrainRewardModel(Job, PairArguments, FineTuningArguments):
    """A model of what people prefer, from pairs of responses: `logpi reward-model`, and
    `logpi.RewardModel` in Python.

    >>> import logpi
    >>> pairs = [{"prompt": "Hi", "chosen": "Hello!", "rejected": "What?"}]
    >>> logpi.RewardModel(model="my-model", data=pairs, centre=0.01).centre
    0.01
    """

    COMMAND = "reward-model"
    RANKS = True
    PUBLIC = "RewardModel"
    HEADING = "training"
    FIRST = "model data steps pairs lr lora out"

    margin: bool = option(False, help="chosen must win by the row's column `margin`")
    centre: float = option(
        0.0,
        help="pull of each pair's mean score to 0",
        least=0,
        aliases=("center_rewards_coefficient",),
    )
    lr: float | None = changed(
        FineTuningArguments,
        "lr",
        None,
        help=f"peak learning rate (default: {said('reward-model', 'lr')})",
    )
    eval_items: int = option(500, help="held-out pairs", least=1)

    def setup(self) -> Setup:
        from logpi.algorithms import algorithm
        from logpi.policies.reward_model import RewardModel
        from logpi.runs.rng import seed

        method = algorithm("reward_model", margin=self.margin, centre=self.centre)
        seed(self.seed)
        model = RewardModel.load(
            self.model, tokenizer=self.tokenizer, **self.loading(), **self.bits()
        )
        return settled(self, model, lambda job: job._learning(method, model))

    def _learning(self, method: Algorithm, model: RewardModel) -> Setup:
        """Everything else, of settled options."""
        from logpi.evaluation.held_out_pairs import HeldOutPairs
        from logpi.learner import Learner
        from logpi.rollouts.chat import Chat
        from logpi.rollouts.preference_pairs import read_pairs

        wrap = model.tokenizer.chat_template is not None if self.chat is None else self.chat
        model.remember(wrap, self.system, self.template_options)
        saver, chat = self.adapt(model), Chat(wrap, self.system)
        length = model.fitting(self.max_length)
        rows = partial(read_pairs, max_length=length, chat=chat, whole=True)
        need = ("prompt", "margin") if self.margin else ("prompt",)
        rollout, held_out, note = self.split(model, rows, need, self.seed)
        learner = Learner(model, method, self.rates(), total=self.steps, seed=self.seed)
        print(note, file=sys.stderr)
        return Setup(
            rollout,
            learner,
            model,
            saver.save,
            self.steps,
            HeldOutPairs(model, method.objective, held_out, first="accuracy"),
            self.eval_every,
            self.save_every,
            SHOWN,
            CURVES,
            end=partial(_say_trust, model, held_out),
        )


main = partial(command, TrainRewardModel, "Train a reward model on pairs of responses.")


def _say_trust(model: Any, held_out: Preferences, run: Run, outcome: Outcome) -> None:
    """Measure the model on held-out pairs: write files and a picture, and print a line."""
    from logpi.evaluation.held_out_pairs import calibration, margins

    chosen, rejected = margins(model, held_out)
    if not current().first:
        return
    table = calibration(chosen - rejected)
    accuracy = float((chosen > rejected).double().mean())
    numbers = {"accuracy": accuracy, "calibration": asdict(table)}
    (run.path / "held_out.json").write_text(json.dumps(numbers, indent=1))
    _histogram(chosen, rejected, run.path / "scores.png")
    print(
        f"held-out pairs: accuracy {accuracy:.1%}, calibration error {table.error:.3f}\n"
        f"scores  {run.path / 'scores.png'}\nuse it: --rewards model:{run.model}",
        file=sys.stderr,
    )


def _histogram(chosen: Tensor, rejected: Tensor, path: Path) -> None:
    """Draw the scores of both sides."""
    from logpi.runs.plots import COLOURS, Panel, figure, save

    drawing = figure([Panel(x="score of held-out responses")], size=(6, 3.5))
    sides, colours = [chosen.numpy(), rejected.numpy()], [COLOURS[0], COLOURS[3]]
    drawing.axes[0].hist(sides, bins=30, label=["chosen", "rejected"], color=colours)
    save(drawing, path)
