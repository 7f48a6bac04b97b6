"""What each stage of `logpi r1` runs: a job of `sft`, `rl` or `reward-model`, or a harvest of
responses, in its own directory.

    zero          R1-Zero: RL on the base model, accuracy + format
    cold-data     its responses, cleaned: demonstrations for the cold start
    cold-start    SFT of the base model on them
    reasoning     RL: accuracy + format + language
    rejection     its responses, verified and cleaned, mixed with non-reasoning demonstrations
    sft           SFT of the base model on them
    reward-model  what people prefer, from pairs
    final         RL: verifiable prompts, and from some update on general ones, which the reward model scores

The settings are two tables: what a model of under a million parameters needs, and DeepSeek-R1's
(Nature 645, 633, Methods), with these differences: a step's batch is 512 samples as published, but
the steps are 300, 300 and 200,
    not 10,400, as many again and
1,700, and the general prompts join in the last quarter; the rates of SFT are ours. Left out: the
chain itself (`r1.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError, as_user_errors, did_you_mean
from logpi.jobs import reward_model, rl, sft
from logpi.jobs.options.fields import option
from logpi.jobs.options.model import DEVICES, ModelArguments
from logpi.jobs.options.run import RunArguments
from logpi.jobs.options.saved import from_json, to_json, values_of
from logpi.jobs.options.settings import setting

if TYPE_CHECKING:
    from logpi.jobs.job import Job
    from logpi.jobs.rejection import Rules
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
    language: str = option("en", help="that the thoughts shall be in")
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
        0, help="tokens (default: 64 in the demonstration, else 512)", least=0, most=2**24
    )
    data_prompts: int = option(256, help="prompts that each harvest asks", least=1, most=2**20)
    samples: int = option(8, help="responses to each of them", least=1, most=2**16)
    per_prompt: int = option(2, help="of these kept at most", least=1)
    language_least: float = option(
        0.99, help="share of words in the language that a kept response needs", least=0, most=1
    )
    general_share: float = option(
        0.25,
        help="of general rows: in the second SFT, and in the last stage's updates",
        least=0,
        most=1,
    )
    skip: tuple[str, ...] = option(
        (), help="stages to leave out", nargs="*", choices=lambda: tuple(STAGES)
    )
    set: tuple[str, ...] = option(
        (), help="settings of a stage's job: STAGE.OPTION=VALUE, e.g. zero.steps=100", nargs="*"
    )
    device: str = option(
        "", help=f"{DEVICES} (default: cpu in the demonstration, else auto)", changeable=True
    )
    keep_checkpoints: bool = option(
        False,
        help="also of stages that are whole; a model and its optimiser states each time",
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
        option_, value = setting(rest)
        known = JOBS[STAGES[name].job]
        names = {f.name for f in fields(known)} - CHAINED if known else set()
        if option_ == "epochs" and known in (sft.SFT, reward_model.TrainRewardModel):
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not 0 < value <= 10_000
            ):
                raise ValueError(f"--set {pair}: epochs must be above 0 and at most 10000")
        elif known is None or option_ not in names:
            raise ValueError(
                f"the job of stage {name} has no option {option_!r}{did_you_mean(option_, names)}"
            )
        else:
            try:
                values_of(known, {option_: value}, "saved arguments")
            except UserError as error:
                raise ValueError(f"--set {pair}: {error}") from None


JOBS: dict[str, type[Job] | None] = {
    "rl": rl.RL,
    "sft": sft.SFT,
    "reward-model": reward_model.TrainRewardModel,
    "harvest": None,
}

_SMALL_RL = {
    "lr": 3e-4, "warmup": 5, "prompts": 32, "num_generations": 8, "slots": 256, "eval_every": 0,
    "options": {"low": 10, "beta": 0.001}, "refresh_reference": 20,
}  # fmt: skip
_SMALL_SFT = {"lr": 1e-3, "rows": 64, "warmup": 5, "max_length": 160}
SMALL: dict[str, dict[str, Any]] = {
    "base": {},
    "zero": {**_SMALL_RL, "steps": 100},
    "cold-start": {**_SMALL_SFT, "epochs": 6},
    "reasoning": {**_SMALL_RL, "steps": 80},
    "sft": {**_SMALL_SFT, "epochs": 6},
    "reward-model": {"lr": 1e-3, "steps": 150, "pairs": 64, "eval_every": 0},
    "final": {**_SMALL_RL, "steps": 60, "temperature": 0.7, "general_from": 46},
}  # fmt: skip
_RL = {
    "lr": 3e-6,
    "prompts": 32,
    "num_generations": 16,
    "options": {"low": 10, "beta": 0.001},
    "refresh_reference": 400,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "base": {},
    "zero": {**_RL, "steps": 300},
    "cold-start": {"lr": 2e-5, "epochs": 2},
    "reasoning": {**_RL, "steps": 300},
    "sft": {"lr": 2e-5, "epochs": 2},
    "reward-model": {"lr": 6e-6, "pairs": 256, "epochs": 1},
    "final": {**_RL, "steps": 200, "temperature": 0.7, "general_from": 150},
}


@dataclass(frozen=True)
class Stage:
    """One link of the chain.

    Attributes:
        name: of it and its directory. job: what runs it. title: in the table. starts: whose model
            it starts from, the first of these that is not skipped; data: whose rows it learns from,
            or "".
    """

    name: str
    job: str
    title: str
    starts: tuple[str, ...]
    data: str = ""


_LINE = ("sft", "reasoning", "cold-start", "zero", "base")
STAGES: dict[str, Stage] = {
    s.name: s
    for s in (
        Stage("base", "sft", "base", ()),
        Stage("zero", "rl", "R1-Zero", ("base",)),
        Stage("cold-data", "harvest", "", ("zero", "base")),
        Stage("cold-start", "sft", "cold start", ("base",), "cold-data"),
        Stage("reasoning", "rl", "reasoning RL", ("cold-start", "zero", "base")),
        Stage("rejection", "harvest", "", ("reasoning", "cold-start", "zero", "base")),
        Stage("sft", "sft", "second SFT", ("base",), "rejection"),
        Stage("reward-model", "reward-model", "", _LINE),
        Stage("final", "rl", "final RL", _LINE),
    )
}


CHAINED = {"model", "out", "resume"}  # what the chain itself says
COMPARE = (
    "exact",
    "number",
    "boxed",
    "tag_answer",
)  # with the column `answer`; so does math, wherever it stands


def done(path: Path) -> bool:
    """Whether a stage's directory is whole: a model, or rows with their counts."""
    return (path / "model" / "config.json").exists() or (path / "counts.json").exists()


def judged(a: R1) -> Rewards:
    """Accuracy, format and language, of `settled` arguments: what every model is measured by."""
    from logpi.rewards import rewards

    return rewards([a.accuracy, "think_answer", f"language({a.language})"], a.device)


def stage_settings(a: R1, name: str) -> dict[str, Any]:
    """The table's settings of a stage, with the user's own."""
    own = [pair.partition(".")[2] for pair in a.set if pair.startswith(f"{name}.")]
    return {
        **(SMALL if a.demo else PUBLISHED).get(name, {}),
        "seed": a.seed,
        **dict(map(setting, own)),
    }


def learned_from(a: R1, stage: Stage, out: Path) -> Path:
    """The rows that a stage learns from.

    Raises:
        UserError: they are not there.
    """
    if stage.name == "cold-start" and a.cold_start:
        return Path(a.cold_start)
    path = out / stage.data / "train.jsonl"
    if not path.exists():
        raise UserError(
            f"stage {stage.name} learns from {path}, which is not there: run {stage.data} (--resume"
            f" {out} --from {stage.data}), or leave {stage.name} out too (--skip {stage.data}"
            f" {stage.name})"
        )
    return path


def job(a: R1, stage: Stage, model: str, out: Path, general: str, pairs: str) -> Any:
    """The arguments of a stage's job."""
    chosen = stage_settings(a, stage.name)
    common = {
        "model": model,
        "out": str(out / stage.name),
        "trackers": list(a.trackers),
        "save_every": a.save_every,
        "device": a.device,
        "template_options": dict(a.template_options),
        "end_token": a.end_token,
    }
    if stage.job == "sft":
        rows = learned_from(a, stage, out)
        shape = {"task": str(rows), "prompt_template": a.prompt_template}
        return _made(sft.SFT, common | shape | _epochs(chosen, rows, "rows", sft.SFT))
    if stage.job == "reward-model":
        return _made(
            reward_model.TrainRewardModel,
            common
            | {"data": pairs}
            | _epochs(chosen, Path(pairs), "pairs", reward_model.TrainRewardModel),
        )
    shape = {
        "task": a.task,
        "prompt_template": a.prompt_template,
        "max_completion_length": a.tokens,
        "truncation": "fail",
        "algorithm": "grpo_r1",
        "eval_items": a.eval_items,
        "rewards": [a.accuracy, "think_answer"],
    }
    if stage.name != "zero":
        shape["rewards"] = [*shape["rewards"], f"language({a.language})"]
    scored = out / "reward-model" / "model"
    if stage.name == "final" and general and scored.exists():
        shape |= {
            "general": general,
            "general_share": a.general_share,
            "rewards": [*shape["rewards"], f"preference:{scored}"],
        }
    else:
        chosen.pop("general_from", None)
    return _made(rl.RL, common | shape | chosen)


def base(a: R1, made: sft.SFT) -> sft.SFT:
    """The reading that makes the demonstration's base model, with the user's own settings."""
    return _made(
        sft.SFT,
        to_json(made) | _epochs(stage_settings(a, "base"), Path(made.task), "rows", sft.SFT),
    )


def _made(cls: type, values: Mapping[str, Any]) -> Any:
    with as_user_errors():
        return from_json(cls, dict(values))


def _epochs(chosen: dict[str, Any], rows: Path, batch: str, cls: type) -> dict[str, Any]:
    """Passes over the rows as updates, unless the number of updates is given."""
    epochs = chosen.pop("epochs", None)
    if epochs is None or "steps" in chosen:
        return chosen
    from logpi.envs.data import RowsTask

    with as_user_errors():
        count = len(RowsTask(str(rows)).rows("train"))
    size = chosen.get(
        batch, next(f.default for f in cls.__dataclass_fields__.values() if f.name == batch)
    )
    return chosen | {"steps": max(1, math.ceil(epochs * count / size))}


def harvest(a: R1, stage: Stage, model: str, out: Path, general: str) -> None:
    """Responses of a stage's model, judged and cleaned; for the second SFT mixed with the
    non-reasoning demonstrations."""
    from logpi.envs.data import RowsTask
    from logpi.envs.tasks import task as make_task
    from logpi.jobs.rejection import harvest as sample
    from logpi.jobs.rejection import mixed, write_counts, write_rows
    from logpi.runs.progress import Progress

    path, rewards = out / stage.name, judged(a)
    number = list(STAGES).index(
        stage.name
    )  # each harvest has prompts and random numbers of its own
    with as_user_errors(), Progress(a.data_prompts) as progress:
        rows = list(make_task(a.task).rows("train", a.seed + number)[: a.data_prompts])
        kept = sample(
            path,
            _asker(a, model, rewards, progress.phase),
            rows,
            rewards,
            rules(a),
            seed=a.seed + number,
            tell=lambda done, _: progress.step(done, {}),
        )
        other = (
            RowsTask(general).rows("train", a.seed) if general and stage.name == "rejection" else []
        )
        if other:
            write_rows(path / "reasoning.jsonl", kept)
            both = mixed(kept, other, a.general_share, a.seed)
            write_rows(path / "train.jsonl", both)
            counts = json.loads((path / "counts.json").read_text()) | {
                "general": len(both) - len(kept)
            }
            write_counts(path, counts)
    print(told(path / "counts.json", stage.name))


def told(path: Path, name: str) -> str:
    """The counts of a harvest in one line."""
    c = json.loads(path.read_text())
    fell = ", ".join(f"{n} {reason}" for reason, n in c["filtered"].items()) or "none"
    general = f"; {c['general']} general rows mixed in" if "general" in c else ""
    return (
        f"{name}: {c['sampled']} sampled for {c['prompts']} prompts, {c['kept']} kept; filtered:"
        f" {fell}{general}"
    )


def rules(a: R1) -> Rules:
    """Right, in the format, in the language, and ended."""
    from logpi.jobs.rejection import Rules

    least = dict(zip(judged(a).names, (1.0, 1.0, a.language_least), strict=True))
    return Rules(least, longest=a.tokens, per_prompt=a.per_prompt)


def _asker(a: R1, model: str, rewards: Rewards, tell: Callable[[str], None]) -> Any:
    """Samples from a model, loaded when it is first asked."""
    import torch

    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Request, Sampling
    from logpi.rollouts.responses import Answers, answer

    loaded: list[CausalLM] = []

    def ask(rows: Sequence[dict[str, Any]], seed: int) -> Sequence[Answers]:
        policy = loaded[0] if loaded else model_of(a, model).load()
        loaded[:] = [policy]
        chat = template(a, policy)
        requests = [Request(chat(policy, r["prompt"]), a.samples) for r in rows]
        generator = torch.Generator().manual_seed(seed)
        return answer(
            policy,
            Engine(policy, slots=a.slots),
            rewards,
            rows,
            requests,
            Sampling(max_tokens=a.tokens),
            generator,
            lambda done, total: tell(f"sampling {done}/{total}"),
        )[0]

    return ask


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


def settled(a: R1) -> R1:
    """With the task, the verifier and the device where none is given: the demonstration's, or the
    task's own.

    A task's own verifier that compares answers looks for them in places of its own (behind #, say):
    `math` finds them in <answer>, in a box, or at the end.

    Raises:
        ValueError: an unknown task, or one whose verifier has no name.
    """
    from logpi.demos.r1_data import TASK
    from logpi.envs.tasks import task as make_task
    from logpi.rewards.spec import NAMES

    a = replace(a, device=a.device or ("cpu" if a.demo else "auto"))
    if a.demo:
        return replace(a, task=a.task or TASK, accuracy=a.accuracy or "tag_answer")
    if a.accuracy:
        return a
    own = make_task(a.task).reward.parts[0].function.name
    if own not in NAMES:
        raise ValueError(
            f"--task {a.task} is judged by {own!r}, which has no name here: choose --accuracy, e.g."
            " math"
        )
    return replace(a, accuracy="math" if own in COMPARE else own)
