"""`logpi r1`: from a base model to a useful one by DeepSeek-R1's recipe; without arguments, on a
small model that is made for it.

    R1-Zero (RL on the base model) → cold-start SFT on its cleaned responses → reasoning RL, with a
    reward for the language → rejection sampling and a second SFT from the base model → reward model
    → final RL on verifiable and general prompts

Stages are ordinary jobs chained by their directories under --out. A finished stage is not run
again, and a killed one is resumed (--resume OUT). `--from STAGE` runs that stage and those after it
again, perhaps with other settings (--set); their old outputs move to OUT/before-1, -2, … After each
stage its model is measured on the same held-out items. Left out: safety data and its reward model.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from logpi.demos import r1_data, r1_report
from logpi.demos.chain import stage as run_stage
from logpi.demos.r1_arguments import (
    R1,
    check_format,
    check_inputs,
    judged,
    settled,
    verifiers,
)
from logpi.demos.r1_harvest import harvest
from logpi.demos.r1_recipe import STAGES, Stage
from logpi.demos.r1_stages import base, done, job
from logpi.distributed.world import current
from logpi.errors import Stopped, UserError, as_user_errors
from logpi.jobs.common import opened, settle_threads
from logpi.jobs.harvest import in_one_line
from logpi.jobs.job import Job
from logpi.jobs.options.model import placed
from logpi.jobs.options.run import available, read
from logpi.jobs.options.saved import to_json
from logpi.runs import disk

PROBED = 64  # rows whose own answers the verifier must accept


def main(argv: Sequence[str]) -> int:
    words, anew, pairs = _anew(list(argv))
    a = read(R1, words, "r1", __doc__ or "")
    if anew and a.resume is None:
        raise UserError(f"--from runs a stage of a run anew: logpi r1 --resume RUN --from {anew}")
    if a.device and a.resume is None:
        placed(a.device)
    run(a, anew, pairs)
    return 0


def _anew(words: list[str]) -> tuple[list[str], str, list[str]]:
    """(words without `--from STAGE --set …`, the stage, the new settings of it and later ones)."""
    split = ("--from=", "--set=", "--resume=")
    words = [w for x in words for w in (x.split("=", 1) if x.startswith(split) else [x])]
    if "--from" not in words:
        _check_set(words)
        return words, "", []
    at = words.index("--from")
    name = words[at + 1] if at + 1 < len(words) else ""
    if name not in STAGES:
        raise UserError(f"--from needs a stage: {', '.join(STAGES)}")
    words = words[:at] + words[at + 2 :]
    at, pairs = _set(words)
    for pair in pairs:
        stage = pair.partition(".")[0]
        if stage in STAGES and list(STAGES).index(stage) < list(STAGES).index(name):
            raise UserError(
                f"--set {pair}: {stage} comes before {name} and is not run again; --from {stage} is"
            )
    return words[:at] + words[at + 1 + len(pairs) :], name, pairs


def _set(words: Sequence[str]) -> tuple[int, list[str]]:
    """Where --set stands (or the end), and the settings after it."""
    at = list(words).index("--set") if "--set" in words else len(words)
    return at, list(takewhile(lambda w: not w.startswith("--"), words[at + 1 :]))


def _check_set(words: Sequence[str]) -> None:
    """Raises UserError: new settings for a run, without the stage that is to be run with them."""
    _, pairs = _set(words)
    named = [pair.partition(".")[0] for pair in pairs]
    first = next((name for name in STAGES if name in named), "STAGE")
    if pairs and "--resume" in words:
        raise UserError(
            f"--set {' '.join(pairs)} needs a stage to be run again with it: --from {first} (it and"
            " those after it; what they made is kept in before-1, -2, …)"
        )


def run(a: R1, anew: str = "", pairs: Sequence[str] = ()) -> None:
    """All stages, in order; `anew`: from this one on again, with further settings in `pairs`."""
    world = current()
    world.by_first(lambda: available(a))
    if a.resume is None:
        check_inputs(a)
    settle_threads(a)
    with as_user_errors():
        now = replace(a, set=(*a.set, *pairs))
        whole = settled(now)
    if a.resume is None:
        _check(whole)
    with opened(a, "r1") as home:
        if anew:
            world.by_first(lambda: _set_aside(home.path, anew))
        home.rearrange(to_json(now))
        chain = Chain(replace(whole, resume=None, out=home.path), home.path)
        start = time.perf_counter()
        rows = [row for stage in STAGES.values() if (row := chain.stage(stage)) is not None]
        seconds = time.perf_counter() - start
        world.by_first(lambda: r1_report.report(chain.a, rows, home.path, seconds))


def _check(a: R1) -> None:
    """The verifier and the data, before anything is trained."""
    from logpi.envs.tasks import task as make_task
    from logpi.jobs.rejection import probe
    from logpi.jobs.rl_parts import algorithm_of
    from logpi.rewards import rewards as make_rewards

    with as_user_errors():
        rewards = judged(a)
        check_format(a, rewards)
        every = make_task(a.task).rows("train", a.seed)
        rows = list(every[:PROBED])
        rewards.check(list(rows[0]), rows, every)
        notice = probe(rows, rewards, verifiers(a))
        _check_rows(a)
        for stage in STAGES.values():
            if stage.job == "rl":
                arguments = job(a, stage, "", Path(), a.general, a.pairs)
                algorithm_of(arguments)
                make_rewards(arguments.rewards)
    if notice:
        print(f"logpi: {notice}", file=sys.stderr)


def _check_rows(a: R1) -> None:
    """Read the files of later stages now, so that a fault in them does not show after a day's
    work."""
    from logpi.envs.data import load_rows

    for path, need in (
        (a.cold_start, ("prompt", "completion")),
        (a.general, ("prompt", "completion")),
        (a.pairs, ("prompt", "chosen", "rejected")),
    ):
        rows = load_rows(path, "train", need=need) if path else []
        if path == a.general and any("answer" in r for r in rows):
            raise UserError(
                f"--general {path} has answers: such rows belong to --task, where they are checked"
            )


def _set_aside(out: Path, name: str) -> None:
    """Nothing is deleted: what will be made again is moved."""
    from logpi.runs.directory import next_path

    names = list(STAGES)[list(STAGES).index(name) :]
    paths = [out / n for n in names if (out / n).exists()]
    if paths:
        old = next_path("before", out)
        old.mkdir()
        shutil.copy(out / "arguments.json", old)
        for path in paths:
            path.rename(old / path.name)
        print(f"{', '.join(p.name for p in paths)} moved to {old}", file=sys.stderr)


def _place(stage: Stage) -> str:
    """A stage and where it stands: "zero (2 of 9)"."""
    return f"{stage.name} ({list(STAGES).index(stage.name) + 1} of {len(STAGES)})"


class Chain:
    """The stages of one run, each made from the directories of those before it. It has no state of
    its own.

    Args:
        a: the arguments; out: the run's directory.
    """

    def __init__(self, a: R1, out: Path) -> None:
        self.a, self.out = a, out
        self.general = a.general or (str(out / "data" / "general") if a.demo else "")
        self.pairs = a.pairs or (str(out / "data" / "pairs") if a.demo else "")

    def stage(self, stage: Stage) -> r1_report.Measured | None:
        """Run a stage, or resume it, unless it is whole or has nothing to do; then measure its
        model."""
        if idle := self._idle(stage):
            print(f"\n== {_place(stage)}: left out, {idle}", file=sys.stderr)
            return None
        path = self.out / stage.name
        whole = current().by_first(lambda: done(path))
        print(f"\n== {_place(stage)}: {self._work(stage, whole)}", file=sys.stderr)
        if not whole:
            self._run(stage)
        current().by_first(lambda: self._tidy(path))
        if stage.job == "harvest" and whole:
            print(in_one_line(path / "counts.json", stage.name))
        if not stage.title:
            return None
        return r1_report.measured(self.a, stage, self.model(stage.name), path, self.general)

    def _work(self, stage: Stage, whole: bool) -> str:
        """What there is to do in a stage, for people."""
        if stage.name == "base" and self.a.model:
            return f"measured as it is, {self.a.model}"
        return "whole already" if whole else f"{stage.job} → {self.out / stage.name}"

    def _tidy(self, path: Path) -> None:
        """Remove the checkpoints of a finished stage: with their optimiser states they are nine
        tenths of it, and later stages need its model alone."""
        if done(path) and (path / "checkpoints").exists() and not self.a.keep_checkpoints:
            disk.remove(path / "checkpoints")
            (path / "best").unlink(missing_ok=True)

    def _idle(self, stage: Stage) -> str:
        """Why a stage has nothing to do: the user's skip, or nothing to learn from; else ""."""
        if stage.name in self.a.skip:
            return "by --skip"
        if stage.name == "cold-data" and self.a.cold_start:
            return "--cold-start has the demonstrations"
        lacks = stage.name == "reward-model" and not (self.pairs and self.general)
        return "it needs --pairs and --general" if lacks else ""

    def model(self, name: str) -> str:
        """The model that a stage left; the base model may be the user's."""
        return self.a.model if name == "base" and self.a.model else str(self.out / name / "model")

    def _start(self, stage: Stage) -> str:
        """The model that a stage begins with.

        Raises:
            UserError: it is not there.
        """
        name = next(n for n in stage.starts if n not in self.a.skip)
        model = self.model(name)
        if not (name == "base" and self.a.model) and not done(self.out / name):
            raise UserError(
                f"stage {stage.name} starts from the model of {name}, and {model} is not there: run"
                f" it with --resume {self.out} --from {name}"
            )
        return model

    def _run(self, stage: Stage) -> None:
        if stage.name == "base" and self.a.model:  # the user's own
            return
        if stage.name == "base":
            data, seed, device = self.out / "data", self.a.seed, self.a.device
            current().by_first(lambda: r1_data.write_data(data, seed))
            reading = current().by_first(lambda: r1_data.base(self.out, data, seed, device))
            self._job(stage, base(self.a, reading))
        elif stage.job == "harvest":
            harvest(self.a, stage, self._start(stage), self.out, self.general)
        else:
            self._job(
                stage, job(self.a, stage, self._start(stage), self.out, self.general, self.pairs)
            )

    def _job(self, stage: Stage, job: Job) -> None:
        """A stage's job, from its beginning or from where it was stopped."""
        try:
            run_stage(job)
        except Stopped as stopped:
            # The job's message names itself; the chain is what the user resumes.
            raise Stopped(
                f"stopped in stage {stage.name}; resume with: logpi r1 --resume {self.out}",
                stopped.signal,
            ) from None
