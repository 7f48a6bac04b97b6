"""`logpi distill-demo`: a small student learns from the trained model of `logpi demo`, in several
ways with the same budget. Nothing is downloaded.

Student and teacher see the same demonstrations, most of which guess and are wrong. The teacher, ten
times as large and more, then learned from rewards to work. Lanes begin with the same student:

    distill    it samples; the teacher says of each token how likely it was
    reverse    it samples; in each state its whole distribution is compared with the teacher's
    harvest    it copies the teacher's right answers (harvest, then SFT)
    grpo       it samples and learns from rewards alone: no teacher

Each has as many updates. Lanes that sample have the same prompts, and as many answers to each;
`harvest` asks about the same prompts, and learns as many tokens an update as `distill` on average.
The stages are ordinary jobs in OUT/seed-N/; the same --out resumes a stopped demonstration. Left
out: real text, and teachers that share no tokens.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from logpi.demos import demo
from logpi.demos.chain import ChainArguments, base_model, home, stage
from logpi.demos.distillation_report import CPU, TEACHER, report
from logpi.jobs import harvest
from logpi.jobs.job import Setup, job
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option
from logpi.jobs.options.model import placed
from logpi.jobs.rl import RL
from logpi.jobs.rl_parts import make_teacher
from logpi.jobs.sft import SFT
from logpi.runs import disk
from logpi.runs.metrics import read_metrics, read_rows

WIDTH, LAYERS = 64, 2  # of the student: a twelfth of the demo's model
# What `logpi tools-demo` fine-tunes models of this size with. With the larger model's 2e-3 it could
# not add after 400 updates (5 % right), and 40 of `distill` did not teach it.
BASE_LR = 5e-3
EVERY = 5  # updates between evaluations
SAMPLES = 2  # of the teacher to each prompt of the harvest


@dataclass(frozen=True, kw_only=True)
class DistillationDemo(ChainArguments):
    """Arguments of `logpi distill-demo`."""

    teacher: str = option(
        "", help="the model of a demo that has run, e.g. runs/demo-1/rl/model (default: make one)"
    )
    seeds: int = option(
        1, help="how many seeds, each with a student and a teacher of its own", least=1, most=1000
    )
    seed: int = option(0, help="the first seed", least=0)
    sft_steps: int = option(
        400, help="updates of the teacher on demonstrations", least=1, most=100_000
    )
    base_steps: int = option(
        600, help="updates of the student on demonstrations", least=1, most=100_000
    )
    teacher_steps: int = option(
        40, help="updates of the teacher by reinforcement learning", least=1, most=100_000
    )
    steps: int = option(40, help="updates of the student in each lane", least=1, most=100_000)


@dataclass(frozen=True)
class Lane(ABC):
    """A way for the student to learn.

    Attributes:
        name: its directory. label: for people. lr: the best of 1e-4, 3e-4, 1e-3 and 3e-3 by
            what is right at the end, on a seed (100) that no figure of the documentation uses.
        before: other stages that only this lane needs.
    """

    name: str
    label: str
    lr: float
    before: tuple[str, ...] = field(default=(), kw_only=True)

    @abstractmethod
    def job(self, a: DistillationDemo, home: Path) -> RL | SFT:
        """What the student runs."""


@dataclass(frozen=True)
class OwnSamples(Lane):
    """On the student's samples, by a row of the table."""

    algorithm: str
    taught: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    def job(self, a: DistillationDemo, home: Path) -> RL:
        return replace(
            demo.rl(demo.ReasoningDemo(seed=a.seed, device=a.device), home),
            algorithm=self.algorithm,
            options=self.options,
            teacher=str(_teacher(a, home)) if self.taught else "",
            steps=a.steps,
            lr=self.lr,
            eval_every=EVERY,
            save_every=EVERY,
            out=home / self.name,
        )


@dataclass(frozen=True)
class TeacherSamples(Lane):
    """On the teacher's right answers."""

    def job(self, a: DistillationDemo, home: Path) -> JudgedSFT:
        """As many updates, and on average as many tokens in each, as the first lane had."""
        tokens = max(r.get("num_tokens_seen", 0) for r in read_metrics(home / LANES[0].name))
        samples = read_rows(home / "harvest" / "samples.jsonl")
        length = fmean(s["tokens"] for s in samples if s["fate"] == "kept")
        return JudgedSFT(
            model=str(home / "sft" / "model"),
            task=str(home / "harvest" / "train.jsonl"),
            steps=a.steps,
            rows=max(1, round(tokens / a.steps / length)),
            lr=self.lr,
            warmup=5,
            seed=a.seed,
            eval_every=EVERY,
            save_every=EVERY,
            device=a.device,
            out=home / self.name,
        )


@job
class JudgedSFT(SFT):
    """Fine-tuning that is measured by right answers to held-out sums, as the other lanes are."""

    def setup(self) -> Setup:
        made = super().setup()
        return replace(made, evaluate=demo.evaluator(made.policy), eval_every=self.eval_every)


LANES: tuple[Lane, ...] = (
    OwnSamples("distill", "distill, the token taken", 3e-4, "distill"),
    OwnSamples("reverse", "distill, whole", 3e-4, "distill", options={"kl_estimator": "reverse"}),
    TeacherSamples("harvest-sft", "harvest, then SFT", 1e-3, before=("harvest",)),
    OwnSamples("grpo", "GRPO alone", 1e-4, "grpo", taught=False, options={"beta": 0}),
)


def main(argv: Sequence[str]) -> int:
    a = parse(DistillationDemo, argv, "logpi distill-demo", __doc__ or "")
    placed(a.device)
    _check(a)
    wall, cpu = time.perf_counter(), time.process_time()
    with home(a, "distill-demo", free=("seed", "seeds")) as chain:
        out = chain.path
        homes = [_seed(replace(a, seed=s), out) for s in range(a.seed, a.seed + a.seeds)]
        report(LANES, homes, out)
    print(
        f"{time.perf_counter() - wall:.0f} s in this call, {time.process_time() - cpu:.0f} s of CPU"
    )
    return 0


def _seed(a: DistillationDemo, out: Path) -> Path:
    """The directory of everything of a seed: the student's base, the teacher, a harvest, the
    lanes."""
    home = out / f"seed-{a.seed}"
    base_model(home / "base", lambda: _student(a))
    first = demo.ReasoningDemo(
        seed=a.seed, device=a.device, sft_steps=a.sft_steps, steps=a.teacher_steps
    )
    if not a.teacher:
        demo.base(first, home / "teacher")
        _stage(home, "teacher/sft", demo.sft(first, home / "teacher"))
        _stage(home, "teacher/rl", replace(demo.rl(first, home / "teacher"), eval_every=0))
    _stage(home, "sft", replace(demo.sft(first, home), steps=a.base_steps, lr=BASE_LR))
    _harvest(a, home)
    for lane in LANES:
        _stage(home, lane.name, lane.job(a, home))
    _measure(a, home)
    return home


def _student(a: DistillationDemo) -> Any:
    from logpi.envs.tasks import Addition
    from logpi.policies.small import small_policy

    return small_policy(Addition().alphabet, width=WIDTH, layers=LAYERS, seed=a.seed)


def _check(a: DistillationDemo) -> None:
    """Raises UserError if the user's teacher is not there, or has other tokens."""
    if a.teacher:
        make_teacher(LANES[0].job(a, Path()), _student(a))


def _teacher(a: DistillationDemo, home: Path) -> Path:
    """The directory of its model."""
    return Path(a.teacher) if a.teacher else home / "teacher" / "rl" / "model"


def _harvest(a: DistillationDemo, home: Path) -> None:
    """The teacher's answers to the prompts that the other lanes sample for."""
    path = home / "harvest"
    if (path / "counts.json").exists():
        return
    begun = (path / "arguments.json").exists()
    asks = harvest.Harvest(
        model=str(_teacher(a, home)),
        task=demo.TASK,
        prompts=demo.PROMPTS * a.steps,
        samples=SAMPLES,
        max_completion_length=demo.LENGTH,
        slots=256,
        seed=a.seed,
        device=a.device,
        out=path,
        resume=path if begun else None,
    )
    with _timed(home, "harvest"):
        harvest.run(asks)


def _stage(home: Path, name: str, job: RL | SFT) -> None:
    with _timed(home, name):
        stage(job)


@contextmanager
def _timed(home: Path, name: str) -> Iterator[None]:
    """Add the CPU seconds that a stage takes to OUT/seed-N/cpu.json, also when it is stopped."""
    start = time.process_time()
    try:
        yield
    finally:
        path = home / CPU
        spent = json.loads(path.read_text()) if path.exists() else {}
        spent[name] = spent.get(name, 0.0) + time.process_time() - start
        disk.write(path, json.dumps(spent, indent=1).encode())


def _measure(a: DistillationDemo, home: Path) -> None:
    """Write what the teacher gets right, and both models' sizes."""
    from logpi.policies.causal_lm import CausalLM

    if (home / TEACHER).exists():
        return
    teacher = CausalLM.load(_teacher(a, home), device=a.device)
    student = CausalLM.load(home / "base")
    sizes = {
        name: sum(p.numel() for p in model.parameters())
        for name, model in (("teacher", teacher), ("student", student))
    }
    numbers, _ = demo.evaluator(teacher)()
    disk.write(home / TEACHER, json.dumps({**sizes, **numbers}, indent=1).encode())
