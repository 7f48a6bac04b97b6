"""Does a model say "wait" more often because noticing a slip is rewarded?

    python examples/reflection.py reflection            # seeds 0, 1, 2; the same folder goes on
    python examples/reflection.py reflection 0          # one seed

A small model learns to copy words, then to copy with slips, some of which it notices (the task
`copying`). Two lanes of reinforcement learning start from it, on the same prompts with the same
settings, and differ in what is judged:

    it can pay    the text after its corrections
    it cannot     each place's first letter: what "wait" corrects stays wrong

Nobody rewards the word, or length. OUT/report.txt has the table, OUT/reflection.png the curves,
OUT/report.json every seed's numbers. Left out: slips that are hard to see.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import logpi
from logpi.demos.chain import base_model, stage
from logpi.envs.tasks import Copying
from logpi.envs.tasks.copying import noticed
from logpi.policies.small import small_policy
from logpi.rewards import Corrected
from logpi.runs.comparison import interval
from logpi.runs.plots import Panel, figure, save

TEXTS = {"copy": "copying(slips=0)", "slip": "copying"}
LANES = {"it can pay": "copying", "it cannot": "copying(first=True)"}
MEASURES = {
    "wait after a slip": "{:.1%}",
    "wait after a right letter": "{:.2%}",
    "slips a response": "{:.3f}",
    "waits a response": "{:.3f}",
    "right, corrections applied": "{:.1%}",
    "right, first letters": "{:.1%}",
}


def measures(responses: Iterable[tuple[str, str]]) -> dict[str, float]:
    """What pairs of a prompt and its completion do, by the names of `MEASURES`.

    >>> tuple(measures([("bcd>", "bf wait cd"), ("bcd>", "gcd")]).values())
    (0.5, 0.0, 1.0, 0.5, 0.5, 0.0)
    """
    counts: Counter[tuple[bool, bool]] = Counter()
    corrected = first = total = 0
    for prompt, said in responses:
        word, total = prompt.rstrip(">"), total + 1
        counts += noticed(word, said)
        corrected += Corrected().find(said) == word
        first += Corrected(first=True).find(said) == word
    after_slip, after_right = counts[False, True], counts[True, True]
    slips, right = after_slip + counts[False, False], after_right + counts[True, False]
    shares = (after_slip / max(1, slips), after_right / max(1, right))
    means = (n / total for n in (slips, after_slip + after_right, corrected, first))
    return dict(zip(MEASURES, (*shares, *means), strict=True))


def base(seed: int, out: Path, updates: tuple[int, int]) -> Path:
    """The model that slips: first it learns to copy at all, then from demonstrations with slips."""
    task, model = Copying(), out / "untrained"
    shape: dict[str, Any] = {"width": 64, "layers": 3, "context": 48}
    base_model(model, lambda: small_policy(task.alphabet, words=task.words, seed=seed, **shape))
    for (name, words), steps in zip(TEXTS.items(), updates, strict=True):
        model, _ = stage(
            logpi.SFT(
                model=str(model), task=words, steps=steps, rows=96, lr=4e-3, warmup=20,
                seed=seed, save_every=1000, out=out / name,
            )
        )  # fmt: skip
    return model


def lane(task: str, model: Path, seed: int, steps: int, items: int, out: Path) -> logpi.RL:
    """Dr. GRPO without a reference: its weight does not depend on a response's length."""
    return logpi.RL(
        model=str(model), task=task, algorithm="dr_grpo", options={"max_completion_length": 20},
        max_completion_length=20, truncation="fail", steps=steps, prompts=32, num_generations=8,
        lr=3e-4, warmup=5, seed=seed, eval_every=0, eval_items=items, eval_samples=8, slots=256,
        save_every=1000, out=out,
    )  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """The measures of a lane: of every update's samples, and held out before and after."""
    run = logpi.open_run(path)
    told = {
        str(n): measures((s["prompt"], s["completion"]) for s in run.samples(n))
        for n in run.sample_steps()
    }
    ends = run.sample_steps("eval")
    for name, n in (("before", ends[0]), ("after", ends[-1])):
        some = [s for s in run.samples(n, "eval") if s["kind"] == "sampled"]
        told[name] = measures((s["prompt"], text) for s in some for text in s["completions"])
    return told


def table(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Means over seeds ± 95 % (Student's t); both lanes start from the same model."""
    lines = [f"{'held-out words, sampled':<30}{'base':>20}" + "".join(f"{n:>20}" for n in runs)]
    for name, form in MEASURES.items():
        columns = [[r["before"][name] for r in next(iter(runs.values()))]]
        columns += [[r["after"][name] for r in seeds] for seeds in runs.values()]
        lines.append(f"{name:<30}" + "".join(f"{_cell(form, c):>20}" for c in columns))
    return "\n".join(lines)


def _cell(form: str, values: Sequence[float]) -> str:
    mean, half = interval(values)
    return form.format(mean) + (f" ± {form.format(half)}" if len(values) > 1 else "")


def draw(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """A panel for each measure: thin lines are seeds, thick ones their mean."""
    picture = figure([Panel(name, x="update") for name in MEASURES], size=(3.1, 2.3))
    for axes, name in zip(picture.axes, MEASURES, strict=True):
        for label, seeds in runs.items():
            steps = [n for n in seeds[0] if n.isdigit()]
            lines = [[run[n][name] for n in steps] for run in seeds]
            means = [interval(values)[0] for values in zip(*lines, strict=True)]
            [thick] = axes.plot(list(map(int, steps)), means, label=label, linewidth=2)
            for line in lines:
                axes.plot(list(map(int, steps)), line, color=thick.get_color(), alpha=0.3)
        axes.set_ylim(bottom=0)
    save(picture, path)


def main(
    out: Path,
    seeds: Sequence[int] = (0, 1, 2),
    sft: tuple[int, int] = (80, 1000),
    steps: int = 50,
    items: int = 300,
) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {label: [] for label in LANES}
    for seed in seeds:
        model = base(seed, out / f"seed-{seed}", sft)
        for label, task in LANES.items():
            path = out / f"seed-{seed}" / label.replace(" ", "-")
            stage(lane(task, model, seed, steps, items, path))
            runs[label].append(read(path))
    text = table(runs)
    (out / "report.txt").write_text(text + "\n")
    (out / "report.json").write_text(json.dumps(runs, indent=1))
    draw(runs, out / "reflection.png")
    print(text)
    return runs


if __name__ == "__main__":
    main(Path((sys.argv[1:] or ["reflection"])[0]), tuple(map(int, sys.argv[2:])) or (0, 1, 2))
