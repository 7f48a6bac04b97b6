"""The arguments of `logpi r1`, and what follows from them alone: the verifier, the rewards, the
model and its prompts.

Left out: what the stages make of them (`r1_stages.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from logpi.demos.r1_recipe import SETTINGS, STAGES, Stage, for_size
from logpi.errors import UserError, did_you_mean
from logpi.jobs import reward_model, rl, sft
from logpi.jobs.options.fields import option, setting
from logpi.jobs.options.model import DEVICES, ModelArguments
from logpi.jobs.options.run import RunArguments
from logpi.jobs.options.saved import values_of

if TYPE_CHECKING:
    from logpi.jobs.job import Job
    from logpi.policies.causal_lm import CausalLM
    from logpi.rewards import Rewards
    from logpi.rollouts.chat import Chat


@dataclass(frozen=True, kw_only=True)
class R1(RunArguments):
    """Arguments of `logpi r1`."""

    model: str = option(
        "",
        help=(
            "base model (default: a small one is made, with its task and data, as a demonstration)"
        ),
    )
    task: str = option(
        "", help="prompts with answers: a built-in task, a file of rows, or a hub name"
    )
    accuracy: str = option(
        "",
        help=(
            "the verifier, a reward that is 1 if the answer is right (default: the task's own,"
            " which is math for rows with answers)"
        ),
    )
    language: str = option("en", help="language that the thoughts shall be in")
    cold_start: str = option("", help="your own demonstrations, instead of R1-Zero's cleaned ones")
    general: str = option(
        "", help="non-reasoning demonstrations; their prompts are the last stage's general prompts"
    )
    pairs: str = option("", help="pairs for the reward model, rows with chosen and rejected")
    prompt_template: str = option(
        "", help="text around prompts, with {prompt} (r1-zero: the published one)"
    )
    template_options: Mapping[str, Any] = option(
        {}, help="variables of the chat template: NAME=VALUE", nargs="*"
    )
    end_token: str = option("", help="the token that ends an answer (default: the chat template's)")
    max_completion_length: int = option(
        0,
        help="tokens of a response (default: 64 in the demonstration, else 512)",
        least=0,
        most=2**24,
    )
    data_prompts: int = option(256, help="prompts that each harvest asks", least=1, most=2**20)
    samples: int = option(
        8, help="responses that a harvest samples to each prompt", least=1, most=2**16
    )
    per_prompt: int = option(
        2, help="responses to one prompt that a harvest keeps at most", least=1
    )
    language_least: float = option(
        0.99, help="share of words in the language that a kept response needs", least=0, most=1
    )
    general_share: float = option(
        0.25,
        help="share of general rows in the second SFT, and in the last stage's updates",
        least=0,
        most=1,
    )
    skip: tuple[str, ...] = option(
        (),
        help="stages to leave out",
        nargs="*",
        choices=lambda: tuple(n for n in STAGES if n != "base"),
    )
    settings: str = option(
        "",
        help=(
            "table of the stages' settings: for models below 10 M parameters, below 300 M, or"
            " DeepSeek-R1's own (default: by the model's size)"
        ),
        choices=("", *SETTINGS),
    )
    set: tuple[str, ...] = option(
        (), help="settings of a stage's job: STAGE.OPTION=VALUE, e.g. zero.steps=100", nargs="*"
    )
    device: str = option(
        "", help=f"{DEVICES} (default: cpu in the demonstration, else auto)", changeable=True
    )
    keep_checkpoints: bool = option(
        False,
        help=("keep them of stages that are whole too; a model and its optimiser states each time"),
        changeable=True,
    )
    eval_items: int = option(
        200, help="held-out items that each stage's model is measured on", least=1
    )
    slots: int = option(
        256,
        help=(
            "completions decoded at the same time in harvests and measuring; memory and speed only"
        ),
        least=1,
        most=2**16,
        changeable=True,
    )

    def __post_init__(self) -> None:
        if self.model and not self.task and self.resume is None:
            raise ValueError(
                "--model needs a --task: prompts with answers (without a model, everything is made"
                " here)"
            )
        for pair in self.set:
            self._check(pair)

    @property
    def demo(self) -> bool:
        return not self.model

    @property
    def tokens(self) -> int:
        """The limit of a response."""
        return self.max_completion_length or (64 if self.demo else 512)

    def _check(self, pair: str) -> None:
        name, dot, rest = pair.partition(".")
        if not dot or "=" not in rest or name not in STAGES:
            raise ValueError(
                f"--set takes STAGE.OPTION=VALUE, with a stage of: {', '.join(STAGES)}; not"
                f" {pair!r}"
            )
        if name == "base" and self.model:
            raise ValueError(
                f"--set {pair}: the base model is --model {self.model}, which is not trained first"
            )
        option_name, value = setting(rest)
        job = JOBS[STAGES[name].job]
        names = {f.name for f in fields(job)} - CHAINED if job else set()
        if option_name == "epochs" and job in (sft.SFT, reward_model.TrainRewardModel):
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 < value <= 10_000
            ):
                raise ValueError(f"--set {pair}: epochs must be above 0 and at most 10000")
        elif job is None or option_name not in names:
            raise ValueError(
                f"the job of stage {name} has no option {option_name!r}"
                f"{did_you_mean(option_name, names)}"
            )
        else:
            try:
                values_of(job, {option_name: value}, "saved arguments")
            except UserError as error:
                raise ValueError(f"--set {pair}: {error}") from None


JOBS: dict[str, type[Job] | None] = {
    "rl": rl.RL,
    "sft": sft.SFT,
    "reward-model": reward_model.TrainRewardModel,
    "harvest": None,
}


CHAINED = {"model", "out", "resume"}  # what the chain itself says


def settled(a: R1) -> R1:
    """The arguments with settings, task, verifier and device filled in: the demonstration's, or the
    model's and the task's own.

    A task's own verifier that compares answers looks for them in places of its own (behind #, say):
    `math` finds them in <answer>, in a box, or at the end.

    Raises:
        ValueError: an unknown task, or one whose verifier has no name; a model that is not there.
    """
    from logpi.demos.r1_data import TASK

    device = a.device or ("cpu" if a.demo else "auto")
    a = replace(a, device=device, settings=a.settings or _by_size(a))
    if a.demo:
        return replace(a, task=a.task or TASK, accuracy=a.accuracy or "tag_answer")
    if a.accuracy:
        return a
    own, known = _own_verifier(a)
    if not known:
        raise ValueError(
            f"--task {a.task} is judged by {own!r}, which has no name here: choose --accuracy, e.g."
            " math"
        )
    return replace(a, accuracy=own)


def _own_verifier(a: R1) -> tuple[str, bool]:
    """The verifier of the task, and whether --accuracy knows its name."""
    from logpi.envs.tasks import task as make_task
    from logpi.rewards.spec import NAMES

    first = make_task(a.task).reward.parts[0]
    own = getattr(first.function, "name", first.name)
    return "math" if own in COMPARE else own, own in NAMES


def verifiers(a: R1) -> list[str]:
    """What --accuracy could be, the task's own first."""
    own, known = _own_verifier(a)
    return list(dict.fromkeys([*[own] * known, "math", *COMPARE]))


def check_format(a: R1, rewards: Rewards) -> None:
    """Whether the model's tokenizer can write what the format asks for. Not known of a model that a
    user's file makes.

    Raises:
        ValueError: it makes other text of it, so no response could ever be in the format.
    """
    from logpi.policies.loading import load_tokenizer
    from logpi.runs.user_code import is_user_code

    if a.demo or is_user_code(a.model):
        return
    tokenizer = load_tokenizer(a.model)
    for tag in (t for p in rewards.parts for t in getattr(p.function, "tags", ())):
        written = tokenizer.decode(tokenizer(tag, add_special_tokens=False)["input_ids"])
        if tag not in written:
            raise ValueError(
                f"{a.model} cannot write {tag}, which R1's format asks for: its tokenizer makes"
                f" {written[:60]!r} of it. Choose a model whose vocabulary has these characters"
            )


def own_rows(a: R1, stage: Stage) -> str:
    """The user's own rows for a stage, in place of those that a stage before it makes; or ""."""
    return getattr(a, stage.own) if stage.own else ""


def check_inputs(a: R1) -> None:
    """What the options alone decide: no stage may wait for rows that nothing will make.

    Raises:
        UserError: one would, or the pairs have no use.
    """
    for stage in STAGES.values():
        if stage.data in a.skip and stage.name not in a.skip and not own_rows(a, stage):
            flag = "--" + stage.own.replace("_", "-")
            own = f", or give it rows of your own ({flag} FILE)" if stage.own else ""
            raise UserError(
                f"stage {stage.name} learns from what {stage.data} makes, which is skipped: leave"
                f" both out (--skip {' '.join([*a.skip, stage.name])}){own}"
            )
    if a.pairs and not a.general and not a.demo and "reward-model" not in a.skip:
        raise UserError(
            "--pairs teach a reward model for the last stage's general prompts, and there are none:"
            " give --general FILE too, or leave --pairs out"
        )


def _by_size(a: R1) -> str:
    """The settings for the model; what a user's file makes is not made for that, and has the
    published ones."""
    from logpi.policies.loading import parameters
    from logpi.runs.user_code import is_user_code

    if a.demo:
        return "small"
    return "published" if is_user_code(a.model) else for_size(parameters(a.model))


COMPARE = (
    "exact",
    "number",
    "boxed",
    "tag_answer",
)  # with the column `answer`; so does math, wherever it stands


def judged(a: R1) -> Rewards:
    """Accuracy, format and language, of `settled` arguments: what every model is measured by."""
    from logpi.rewards import rewards

    return rewards([a.accuracy, "think_answer", f"language({a.language})"], a.device)


def model_of(a: R1, model: str) -> ModelArguments:
    """A stage's model, and how its prompts become tokens, as in the jobs."""
    return ModelArguments(
        model=model,
        device=a.device or "auto",
        prompt_template=a.prompt_template,
        template_options=a.template_options,
        end_token=a.end_token,
    )


def template(a: R1, policy: CausalLM) -> Chat:
    """How prompts become tokens."""
    return model_of(a, a.model or "base").template(policy)
