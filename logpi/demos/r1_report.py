"""The report of `logpi r1`: the same held-out measures of each stage's model, one table, one
picture, some responses.

    OUT/STAGE/measured.json    numbers and a few responses
    OUT/report.json            all of them
    OUT/stages.png             a panel for each measure

Accuracy is of sampled responses (temperature 1) unless it says greedy; beside it its 95 % interval
over items, which says nothing of another run. Left out: curves of a stage's own training (its
`curves.png`).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from logpi.distributed.world import current

if TYPE_CHECKING:
    from logpi.demos.r1_arguments import R1
    from logpi.demos.r1_recipe import Stage
    from logpi.policies.causal_lm import CausalLM

SAMPLES = 4
GENERAL = 64  # responses to general prompts
COLUMNS = {
    "accuracy": ("right", "{:.1%}"),
    "interval": ("95 %", "{:.0%}–{:.0%}"),
    "greedy": ("greedy", "{:.1%}"),
    "maj": ("maj@4", "{:.1%}"),
    "format": ("format", "{:.1%}"),
    "language": ("language", "{:.1%}"),
    "mixed": ("mixed", "{:.1%}"),
    "length": ("tokens", "{:.1f}"),
    "reflection": ("reflective", "{:.3f}"),
    "helpful": ("helpful", "{:.2f}"),
    "seconds": ("seconds", "{:.0f}"),
}


@dataclass(frozen=True)
class Measured:
    """A stage's model on the held-out items.

    Attributes:
        stage: its title. numbers: by `COLUMNS`; shares in [0, 1], `language` the mean share of
            words in the language, `mixed` the share of responses with two scripts, `reflection`
            reflective words a response. interval: of the accuracy, low and high. levels: accuracy
            by difficulty.
        responses: to the first items, as they are. general: to general prompts, which are marked in
            the end (`helpful`), when there is a reward model.
    """

    stage: str
    numbers: dict[str, float]
    interval: Sequence[float] = ()
    levels: dict[str, float] = field(default_factory=dict)
    responses: list[dict[str, Any]] = field(default_factory=list)
    general: list[dict[str, Any]] = field(default_factory=list)


def measured(a: R1, stage: Stage, model: str, path: Path, general: str) -> Measured:
    """Measure, or read what was measured."""
    from logpi.runs import disk

    place, world = path / "measured.json", current()
    if world.by_first(place.exists):
        return Measured(**json.loads(place.read_text()))
    measures = _measure(a, stage.title, model, general)
    measures = replace(measures, numbers=measures.numbers | {"seconds": spent(path)})
    text = json.dumps(asdict(measures), ensure_ascii=False, indent=1)

    def write() -> None:
        path.mkdir(parents=True, exist_ok=True)
        disk.write(place, text.encode())

    world.by_first(write)
    shown = ", ".join(f"{COLUMNS[k][0]} {cell}" for k, cell in _cells(measures).items())
    print(f"{stage.title}: {shown}", file=sys.stderr)
    return measures


def _cells(measured: Measured) -> dict[str, str]:
    """What was measured, as words, by `COLUMNS`."""
    values: dict[str, Sequence[float]] = {k: [v] for k, v in measured.numbers.items()}
    if measured.interval:
        values["interval"] = measured.interval
    return {k: spec.format(*values[k]) for k, (_, spec) in COLUMNS.items() if k in values}


def spent(path: Path) -> float:
    """Seconds of a job's steps and evaluations over all its calls, without what a kill lost."""
    from logpi.runs.metrics import read_metrics

    return sum(r.get("step_time", 0.0) + r.get("time/eval", 0.0) for r in read_metrics(path))


def _measure(a: R1, title: str, model: str, general: str) -> Measured:
    from logpi.demos.r1_arguments import judged, model_of, template
    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Sampling
    from logpi.envs.tasks import task as make_task
    from logpi.evaluation.evaluator import Evaluator
    from logpi.rollouts.response_metrics import evaluation_metrics

    rewards, policy = judged(a), model_of(a, model).load()
    rows = list(make_task(a.task).rows("test")[: a.eval_items])
    evaluation, samples = Evaluator(
        policy,
        Engine(policy, slots=a.slots),
        rows,
        rewards,
        Sampling(max_tokens=a.tokens),
        SAMPLES,
        chat=template(a, policy),
    )()
    style = evaluation_metrics(samples)
    parts = [p for s in samples if s["kind"] == "sampled" for p in s["rewards"]]
    numbers = {
        "accuracy": evaluation["eval/pass@1"],
        "greedy": evaluation["eval/greedy"],
        "maj": evaluation.get(f"eval/maj@{SAMPLES}", 0.0),
        "format": style["eval/format"],
        "language": fmean(p["language"] or 0.0 for p in parts),
        "mixed": style["eval/mixed"],
        "length": evaluation["eval/mean_length"],
        "reflection": style["eval/reflection"],
        "truncated": evaluation["eval/clipped_ratio"],
    }
    responses = [
        {"prompt": s["prompt"], "completions": s["completions"], "right": s["right"]}
        for s in samples
        if s["kind"] == "sampled"
    ][:3]
    levels = {
        m[1]: v for k, v in evaluation.items() if (m := re.fullmatch(r"eval/level_(.*)/pass@1", k))
    }
    return Measured(
        title,
        numbers,
        [evaluation[f"eval/pass@1_{end}"] for end in ("low", "high")],
        levels,
        responses,
        _general(a, policy, general) if general else [],
    )


def _general(a: R1, policy: CausalLM, general: str) -> list[dict[str, Any]]:
    """Responses to general prompts."""
    import torch

    from logpi.demos.r1_arguments import template
    from logpi.engine.engine import Engine
    from logpi.engine.sampling import Request, Sampling
    from logpi.envs.data import RowsTask

    rows, chat = RowsTask(general).rows("test")[:GENERAL], template(a, policy)
    requests = [Request(chat(policy, r["prompt"]), max(1, GENERAL // len(rows))) for r in rows]
    sampled = Engine(policy, slots=a.slots).generate(
        requests, Sampling(max_tokens=a.tokens), torch.Generator().manual_seed(0)
    )
    return [
        {"prompt": r["prompt"], "completions": [policy.template.decode(c.tokens)]}
        for r, some in zip(rows, sampled, strict=True)
        for c in some
    ]


def helpful(a: R1, rows: Sequence[Measured], out: Path) -> list[Measured]:
    """The stages with their score on general prompts, by the demonstration's rule or by the reward
    model if there is one."""
    from logpi.demos.r1_data import gold
    from logpi.rewards.model import ModelReward

    scorer = out / "reward-model" / "model"
    if not a.demo and not scorer.exists():
        return list(rows)
    judge = None if a.demo else ModelReward(str(scorer), unverified=True, device=a.device)
    stages = []
    for r in rows:
        prompts, texts = [x["prompt"] for x in r.general], [x["completions"][0] for x in r.general]
        marks = (
            judge(prompts, texts)
            if judge
            else [gold(p, t) for p, t in zip(prompts, texts, strict=True)]
        )
        verdicts = [m for m in marks if m is not None]
        stages.append(
            replace(r, numbers=r.numbers | ({"helpful": fmean(verdicts)} if verdicts else {}))
        )
    return stages


def report(a: R1, rows: Sequence[Measured], out: Path, seconds: float) -> None:
    """The table, the responses, the picture."""
    from logpi.runs import disk

    rows = helpful(a, rows, out)
    files = {name: out / name / "counts.json" for name in ("cold-data", "rejection")}
    counts = {name: json.loads(f.read_text()) for name, f in files.items() if f.exists()}
    record = {"stages": [asdict(r) for r in rows], "harvests": counts}
    disk.write(out / "report.json", json.dumps(record, ensure_ascii=False, indent=1).encode())
    print("\n" + "\n".join(_table(rows)))
    print("\nThe same held-out items, as each model answers:")
    for r in rows:
        for s in [*r.responses, *r.general[:1]]:
            mark = "".join("✓" if ok else "✗" for ok in s.get("right", [])[:1])
            print(f"  {r.stage:<14}{s['prompt']}  {s['completions'][0][:200]} {mark}".rstrip())
    for line in lost(rows, out):
        print(f"\n{line}")
    picture(rows, out / "stages.png", a.language)
    names = ("final", "sft", "reasoning", "cold-start", "zero")
    last = next((name for name in names if (out / name / "model").exists()), "base")
    print(f"\n{seeded(a.seed)}")
    print(
        f"\n{seconds:.0f} s in this call. picture: {out}/stages.png   numbers: {out}/report.json  "
        f" model: {out}/{last}/model"
    )


def seeded(seed: int) -> str:
    """What makes the same numbers again, and that one run is one draw."""
    import torch

    return (
        f"Seed {seed}, {torch.get_num_threads()} thread(s): the same again, bit for bit, with the"
        " same software and processor.\nAnother seed or number of threads is another run; mixing"
        " above all differs (docs/r1.md): compare several seeds."
    )


def _table(rows: Sequence[Measured]) -> Iterator[str]:
    """A line for each stage; then accuracy by difficulty, where there is more than one."""
    cells = [_cells(r) for r in rows]
    columns = [k for k in COLUMNS if any(k in row for row in cells)]
    yield f"{'stage':<14}" + "".join(f"{COLUMNS[k][0]:>11}" for k in columns)
    for r, row in zip(rows, cells, strict=True):
        yield f"{r.stage:<14}" + "".join(f"{row.get(k, '–'):>11}" for k in columns)
    levels = sorted({k for r in rows for k in r.levels})
    if len(levels) > 1:
        parts = (
            f"{r.stage} " + " ".join(f"{k}: {r.levels[k]:.0%}" for k in levels if k in r.levels)
            for r in rows
        )
        yield "\nright by level: " + "; ".join(parts)


def lost(rows: Sequence[Measured], out: Path, much: float = 0.1) -> list[str]:
    """A sentence for each stage that is right less often, by `much`, than the one before it: why,
    and what to try. R1-Zero is not before any."""
    from logpi.demos.r1_diagnosis import reason
    from logpi.demos.r1_recipe import STAGES

    line = [r for r in rows if r.stage != STAGES["zero"].title]
    jobs = {s.title: (name, s.job) for name, s in STAGES.items()}
    sentences = []
    for before, after in pairwise(line):
        was, now = before.numbers["accuracy"], after.numbers["accuracy"]
        if was - now >= much:
            name, job = jobs[after.stage]
            r = reason(job, name, out / name)
            remedy = f"--set {r.remedy}" if r.remedy.startswith(f"{name}.") else r.remedy
            sentences.append(
                f"{after.stage} is right in {now:.1%}, {before.stage} was in {was:.1%}: {r.why}."
                f" Try --from {name} with {remedy}."
            )
    return sentences


MEASURES = {
    "accuracy": "right",
    "format": "in the format",
    "language": "words in the language",
    "mixed": "responses in two scripts",
    "length": "tokens",
    "reflection": "reflective words",
    "helpful": "helpful (general prompts)",
}


def picture(rows: Sequence[Measured], path: Path, language: str) -> None:
    """A panel for each measure, stages on x; R1-Zero beside R1's line, which does not pass through
    it."""
    from logpi.runs.plots import Panel, figure, save

    measures = {k: title for k, title in MEASURES.items() if any(k in r.numbers for r in rows)}
    if "language" in measures:
        measures["language"] += f" ({language})"
    columns = (len(measures) + 1) // 2
    drawing = figure([Panel(t) for t in measures.values()], columns=columns, size=(3.5, 3.2))
    for axes, key in zip(drawing.axes, measures, strict=True):
        _line(axes, rows, key, labelled=axes is drawing.axes[0])
    save(drawing, path)


def _line(axes: Any, rows: Sequence[Measured], key: str, labelled: bool) -> None:
    """One measure of every stage."""
    from logpi.runs.plots import COLOURS

    values = {i: r.numbers[key] for i, r in enumerate(rows) if key in r.numbers}
    zero = {i: v for i, v in values.items() if rows[i].stage == "R1-Zero"}
    line = {i: v for i, v in values.items() if i not in zero}
    if key == "accuracy":
        for i, r in enumerate(rows):
            if r.interval:
                axes.vlines(i, *r.interval, color=COLOURS[i in zero], linewidth=1)
    axes.plot(list(line), list(line.values()), color=COLOURS[0], marker="o", label="R1" * labelled)
    for stage, value in zero.items():
        axes.axhline(value, color=COLOURS[1], linewidth=0.8, linestyle=":")
        axes.plot([stage], [value], "D", color=COLOURS[1], label="R1-Zero" * labelled)
    names = [r.stage for r in rows]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    if key in ("accuracy", "format", "language", "mixed"):
        axes.set_ylim(-0.04, 1.04)
