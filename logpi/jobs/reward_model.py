"""`logpi reward-model`: a model of what people prefer, from pairs of responses (Bradley–Terry).

Left out: scores of single steps, and what is done with the scores (`--rewards model:DIR`,
`--judge`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from logpi.errors import as_user_errors
from logpi.jobs.common import finish, opened
from logpi.jobs.options.fields import option
from logpi.jobs.options.lora import LoraArguments
from logpi.jobs.options.model import ModelArguments
from logpi.jobs.options.run import RunArguments, available, read
from logpi.jobs.options.seeds import SeedArguments
from logpi.jobs.seeds import start

if TYPE_CHECKING:
    from torch import Tensor

CURVES = (
    ("loss", "eval/loss"),
    ("accuracy", "eval/accuracy"),
    ("margin", "eval/margin"),
    ("reward/min", "reward/max"),
)
SHOWN = ("loss", "accuracy", "margin", "grad_norm")


@dataclass(frozen=True, kw_only=True)
class RewardModelling(ModelArguments, LoraArguments, SeedArguments, RunArguments):
    """Arguments of `logpi reward-model`."""

    HEADING: ClassVar[str] = "training"
    FIRST: ClassVar[str] = "model data steps pairs lr lora out"

    data: str = option(
        help="a file, directory or hub name of rows with chosen and rejected (and margin)"
    )
    margin: bool = option(False, help="chosen must win by the row's column `margin`")
    centre: float = option(
        0.0, help="pull of each pair's mean score to 0 (TRL: center_rewards_coefficient)", least=0
    )
    steps: int = option(200, help="updates", least=1, most=10**7, changeable=True)
    pairs: int = option(16, help="pairs for each update", least=1, most=2**20)
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
        1e-5,
        help="peak learning rate (about 1e-3 for a model of a million parameters)",
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
    eval_items: int = option(500, help="held-out pairs", least=1)


def main(argv: Sequence[str]) -> int:
    start(
        run,
        read(RewardModelling, argv, "reward-model", "Train a reward model on pairs of responses."),
        "reward-model",
    )
    return 0


def run(a: RewardModelling) -> None:
    """Set up, train, save, and say on held-out pairs how far the model can be believed."""
    from logpi.algorithms import algorithm
    from logpi.envs.data import RowsTask
    from logpi.evaluation.held_out_pairs import HeldOutPairs, calibration, margins
    from logpi.learner import Learner
    from logpi.policies.reward_model import RewardModel
    from logpi.rollouts.chat import Chat
    from logpi.rollouts.preference_pairs import Preferences, read_pairs, without_empty
    from logpi.runs.rng import seed
    from logpi.train import train
    from logpi.updates.adamw import AdamW, Cosine

    available(a)
    with as_user_errors():
        made = algorithm("reward_model", margin=a.margin, centre=a.centre)
        task = RowsTask(a.data, need=("prompt", "margin") if a.margin else ("prompt",))
        keep = without_empty if a.skip_empty else list
        seed(a.seed)
        model = RewardModel.load(a.model, **a.loading(), **a.bits())
        wrap = model.tokenizer.chat_template is not None if a.chat is None else a.chat
        model.remember(wrap, a.system, a.template_options)
        saver, chat = a.adapt(model), Chat(wrap, a.system)
        length = model.fitting(a.max_length)
        rows = read_pairs(model, keep(task.rows("train")), max_length=length, chat=chat, whole=True)
        test = read_pairs(
            model, keep(task.rows("test"))[: a.eval_items], max_length=length, chat=chat, whole=True
        )
        rollout = Preferences(rows.groups, size=a.pairs, seed=a.seed)
        held_out = Preferences(test.groups, size=a.pairs)
        learner = Learner(
            model,
            made,
            AdamW(a.lr, warmup=a.warmup, schedule=Cosine(0.1)),
            total=a.steps,
            seed=a.seed,
        )
    dropped = (
        f"; {rows.dropped} dropped: both responses are the same after the cut"
        if rows.dropped
        else ""
    )
    print(
        f"{len(rows.groups)} pairs to learn from, {len(test.groups)} held out{dropped}",
        file=sys.stderr,
    )
    with opened(a, "reward-model") as home:
        outcome = train(
            rollout,
            learner,
            home,
            steps=a.steps,
            evaluate=HeldOutPairs(model, made.objective, held_out, first="accuracy"),
            shown=SHOWN,
            eval_every=a.eval_every,
            save_every=a.save_every,
        )
        finish(home, saver, learner, outcome, CURVES)
        chosen, rejected = margins(model, held_out)
        table = calibration(chosen - rejected)
        accuracy = float((chosen > rejected).double().mean())
        told = {"accuracy": accuracy, "calibration": asdict(table)}
        (home.path / "held_out.json").write_text(json.dumps(told, indent=1))
        _histogram(chosen, rejected, home.path / "scores.png")
        print(
            f"held-out pairs: accuracy {accuracy:.1%}, calibration error {table.error:.3f}\n"
            f"scores  {home.path / 'scores.png'}\nuse it: --rewards model:{home.model}",
            file=sys.stderr,
        )


def _histogram(chosen: Tensor, rejected: Tensor, path: Path) -> None:
    """Scores of both sides as a picture."""
    from logpi.runs.plots import COLOURS, Panel, figure, save

    drawing = figure([Panel(x="score of held-out responses")], size=(6, 3.5))
    sides, colours = [chosen.numpy(), rejected.numpy()], [COLOURS[0], COLOURS[3]]
    drawing.axes[0].hist(sides, bins=30, label=["chosen", "rejected"], color=colours)
    save(drawing, path)
