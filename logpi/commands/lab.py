"""`logpi lab NAME`: every estimator compared with the exact gradient.

    logpi lab bias                      a table and one sentence
    logpi lab bias --json               the same as JSON
    logpi lab bias --picture bias.png   and a picture

Left out: the computation (`logpi.lab`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from logpi.errors import UserError, as_user_errors, did_you_mean
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option
from logpi.jobs.options.model import DEVICES
from logpi.runs.disk import refuse_unwritable


@dataclass(frozen=True)
class Show:
    """Options of every command."""

    json: bool = option(False, help="print JSON instead of tables")
    picture: Path | None = option(None, help="write a picture to this PNG file")

    def inputs(self) -> dict[str, Any]:
        """The keywords of the function that makes the report."""
        return {k: v for k, v in vars(self).items() if k not in ("json", "picture")}


@dataclass(frozen=True)
class Bias(Show):
    responses: int = option(4, help="M, samples for each prompt, 2 to 6", least=2, most=6)


@dataclass(frozen=True)
class Bellman(Show):
    slip: float | None = option(
        None,
        help="probability that a move goes a quarter turn to the left (default: 0.2)",
        least=0,
        most=0.999,
    )
    gamma: float = option(1.0, help="discount", least=0, most=1)
    cost: float | None = option(None, help="reward of a move (default: -1)", least=-1e6, most=1e6)
    terminals: str | None = option(
        None, help="ends and their rewards (default: (3,1):5,(3,3):4,(1,3):-1)"
    )
    start: str | None = option(None, help="cell of the start (default: (0,0))")
    width: int | None = option(None, help="cells in a row (default: 4)", least=1, most=9)
    height: int | None = option(None, help="rows (default: 4)", least=1, most=9)
    policy: str = option(
        "uniform",
        help="whose V, Q and A are shown too: uniform, right, up, left, down, or a run of"
        " `logpi gym` on the grid world, whose grid it is then",
    )
    trust: bool = option(False, help="run the code that a stranger's run names")

    def inputs(self) -> dict[str, Any]:
        from logpi.commands.lab_runs import grid_and_policy

        names = ("slip", "cost", "terminals", "start", "width", "height")
        words = {k: v for k in names if (v := getattr(self, k)) is not None}
        grid, policy = grid_and_policy(self.policy, words, self.trust)
        return {"grid": grid, "gamma": self.gamma, "policy": policy}


@dataclass(frozen=True)
class Rewards(Show):
    seed: int = option(0, help="of the learned policies", least=0)


@dataclass(frozen=True)
class Ladder(Show):
    seed: int = option(0, help="of all sampling", least=0)
    runs: int = option(20, help="independent runs of each row, 2 to 50", least=2, most=50)


@dataclass(frozen=True, kw_only=True)
class StepValues(Show):
    model: str = option(help="directory or hub name of a causal language model")
    prompt: str = option(help="the question, as the model is to see it (or @file)")
    response: str = option(help="the response whose steps are judged (or @file)")
    answer: str = option(help="the right answer, for the reward")
    reward: str = option(
        "exact",
        help="what to reward, as in training: exact, number, boxed, tag_answer, my.py:function",
    )
    samples: int = option(32, help="completions from each prefix", least=1, most=2**16)
    separator: str = option("\\n", help="what ends a step")
    max_tokens: int = option(256, help="longest completion", least=1, most=2**24)
    temperature: float = option(1.0, help="of sampling", above=0, least=1e-3, most=1000)
    seed: int = option(0, help="of sampling", least=0)
    device: str = option("auto", help=DEVICES)
    chat: bool | None = option(
        None, help="put the prompt through the chat template (default: if the model has one)"
    )


@dataclass(frozen=True)
class LabCommand:
    """A report: its options, one line of help, and where it is made ("module:function", imported
    when it is run)."""

    arguments: type[Show]
    help: str
    where: str


COMMANDS = {
    "worked": LabCommand(
        Show, "the worked examples of Chan's series, every step written out", "worked:worked"
    ),
    "bias": LabCommand(
        Bias,
        "which way each method's expected step points, against the policy gradient",
        "bias:bias",
    ),
    "variance": LabCommand(
        Show,
        "how noisy each step is; baselines; the sign of the advantage; GAE",
        "variance:variance",
    ),
    "kl": LabCommand(
        Show,
        "k1, k2, k3 and exact KL, in the reward and in the loss, as numbers and as gradients",
        "kl:kl",
    ),
    "clip": LabCommand(Show, "which gradients survive clipping", "clip:clip"),
    "length": LabCommand(
        Show, "which aggregation prefers short right or long wrong responses", "length:length"
    ),
    "weights": LabCommand(
        Show,
        "the weight of prompts by difficulty and length; the critic's share",
        "weights:weights",
    ),
    "trust-region": LabCommand(
        Show, "ordinary, natural and clipped steps: improvement against KL", "trust:trust"
    ),
    "bellman": LabCommand(
        Bellman,
        "value iteration on the grid world, sweep by sweep; V, Q and A of a given policy",
        "bellman:bellman",
    ),
    "rewards": LabCommand(
        Rewards,
        "three rewards on one grid world, and what they make an agent do; the cost of a step",
        "rewards:rewards",
    ),
    "preferences": LabCommand(
        Show,
        "RLHF and DPO reach one policy; implicit rewards, and what DPO pushes",
        "preferences:preferences",
    ),
    "ladder": LabCommand(
        Ladder, "PPO as REINFORCE plus five fixes: noise, episodes to solve", "ladder:ladder"
    ),
    "step-values": LabCommand(
        StepValues, "value and advantage of each step of a model's response", "steps:step_values"
    ),
}


def main(argv: Sequence[str]) -> int:
    """Run one command of the lab; returns the exit code.

    Raises:
        UserError: an unknown command, or an option that makes no sense.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0
    name = argv[0]
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or f"; there are: {', '.join(COMMANDS)}"
        raise UserError(f"lab: unknown command {name!r}{hint}")
    command = COMMANDS[name]
    arguments = parse(
        command.arguments, argv[1:], prog=f"logpi lab {name}", description=command.help
    )
    if arguments.picture is not None:
        if arguments.picture.suffix != ".png":
            raise UserError(f"--picture is a .png, not {arguments.picture.name}")
        refuse_unwritable(arguments.picture)
    report = _report(command, arguments)
    print(report.json() if arguments.json else report.text())
    if arguments.picture is not None:
        print(f"picture: {report.picture(arguments.picture)}", file=sys.stderr)
    return 0


def _report(command: LabCommand, arguments: Show) -> Any:
    module, function = command.where.split(":")
    make: Callable[..., Any] = getattr(import_module(f"logpi.lab.{module}"), function)
    with as_user_errors():
        return make(**arguments.inputs())


def _overview() -> str:
    width = max(map(len, COMMANDS))
    head = (
        "logpi lab NAME [--json] [--picture FILE.png]: every estimator compared with the exact"
        " gradient"
    )
    lines = [f"  {name:<{width}}  {c.help}" for name, c in COMMANDS.items()]
    return "\n".join([head, "", *lines])
