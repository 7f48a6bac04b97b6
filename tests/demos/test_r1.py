"""`logpi r1` from end to end on a model of ten thousand parameters: the chain, a kill, another try,
skipped stages, and mistakes."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from logpi.cli import main
from logpi.demos import r1_arguments, r1_data, r1_diagnosis, r1_harvest, r1_report
from logpi.envs.data import RowsTask
from logpi.errors import Stopped
from logpi.jobs import sft
from logpi.jobs.options.command_line import parse
from logpi.jobs.rejection import read_rows, write_rows
from logpi.jobs.rl import RL
from logpi.policies.causal_lm import CausalLM
from logpi.policies.small import small_policy
from logpi.runs.metrics import read_metrics

ROOT = Path(__file__).parents[2]
WORDS = ("<think>", "</think>", "<answer>", "</answer>", "yes", "say", "greet", "hello", "dear")
QUICK = (
    "zero.steps=3",
    "reasoning.steps=3",
    "final.steps=4",
    "final.general_from=2",
    "reward-model.steps=4",
    "cold-start.steps=6",
    "sft.steps=6",
    "reward-model.pairs=8",
    "reward-model.lr=1e-3",
    *(
        f"{s}.{o}"
        for s in ("zero", "reasoning", "final")
        for o in ("lr=1e-3", "prompts=8", "num_generations=4", "eval_every=0", "save_every=1")
    ),
    *(f"{s}.{o}" for s in ("cold-start", "sft") for o in ("lr=1e-3", "rows=16", "save_every=2")),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A base model that has read right and wrong answers in and out of the format and in two
    scripts; its task, and data."""
    path = tmp_path_factory.mktemp("r1")
    rng = random.Random(0)

    def reading(n: int) -> dict:
        thought, said = (
            rng.choice(("yes", "yes", "是")),
            n if rng.random() < 0.7 else rng.randrange(4),
        )
        text = f"<think>{thought}</think><answer>{said}</answer>"
        return {
            "prompt": f"say {n}",
            "completion": text if rng.random() < 0.8 else f"{thought} {said}",
        }

    write_rows(path / "texts" / "train.jsonl", [reading(i % 4) for i in range(800)])
    for split in ("train", "test"):
        write_rows(
            path / "task" / f"{split}.jsonl",
            [{"prompt": f"say {n}", "answer": str(n), "level": n // 2} for n in range(4)],
        )
        write_rows(
            path / "general" / f"{split}.jsonl",
            [
                {
                    "prompt": "greet",
                    "completion": f"<think>yes</think><answer>hello{' dear' * k}</answer>",
                }
                for k in (0, 1)
            ]
            * 8,
        )
        write_rows(
            path / "answered" / f"{split}.jsonl",
            [{"prompt": "say 1", "answer": "1", "completion": "1"}],
        )
        write_rows(
            path / "pairs" / f"{split}.jsonl",
            [{"prompt": "greet", "chosen": "hello dear", "rejected": "hello"}] * 16,
        )
    small_policy("0123456789 是", words=WORDS, width=32, layers=2, context=64).save(
        path / "untrained"
    )
    sft.SFT(
        model=str(path / "untrained"),
        task=str(path / "texts"),
        steps=60,
        rows=32,
        lr=1e-2,
        save_every=100,
        out=path / "base",
    ).run()
    return path


def words(home: Path, out: Path, *more: str) -> list[str]:
    return [
        "r1",
        "--model",
        str(home / "base" / "model"),
        "--task",
        str(home / "task"),
        "--general",
        str(home / "general"),
        "--pairs",
        str(home / "pairs"),
        "--max-completion-length",
        "12",
        "--data-prompts",
        "4",
        "--samples",
        "20",
        "--eval-items",
        "4",
        "--out",
        str(out),
        *more,
        "--set",
        *QUICK,
    ]


def driven(*argv: str) -> subprocess.CompletedProcess:
    """`logpi …` in another process, killed at a chosen moment (tests/runs/resume_driver.py)."""
    driver = [sys.executable, str(ROOT / "tests" / "runs" / "resume_driver.py")]
    return subprocess.run([*driver, *argv], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def whole(home) -> Path:
    """A run that was never stopped."""
    done = driven("never", "0", *words(home, home / "whole"))
    assert done.returncode == 0, done.stderr
    return home / "whole"


STAGES = (
    "zero",
    "cold-data",
    "cold-start",
    "reasoning",
    "rejection",
    "sft",
    "reward-model",
    "final",
)


def test_every_stage_leaves_its_outputs_and_counts(whole, capsys):
    for stage in STAGES:
        assert (whole / stage).is_dir(), stage
        assert (
            not (whole / stage / "checkpoints").exists() and not (whole / stage / "best").exists()
        ), stage
    for harvest in ("cold-data", "rejection"):
        counts = json.loads((whole / harvest / "counts.json").read_text())
        samples = read_rows(whole / harvest / "samples.jsonl")
        assert counts["sampled"] == len(samples) == 80
        assert counts["kept"] + sum(counts["filtered"].values()) == 80 and counts["kept"] > 0
        fates = [s["fate"] for s in samples]
        assert all(fates.count(reason) == n for reason, n in counts["filtered"].items())
        kept = [s for s in samples if s["fate"] == "kept"]
        assert all(
            s["rewards"]["math"] == 1 and "是" not in s["completion"] and s["stop"] != "length"
            for s in kept
        )
        assert max(sum(s["prompt"] == p for s in kept) for p in {s["prompt"] for s in kept}) <= 2
    rows = read_rows(whole / "rejection" / "train.jsonl")
    general = sum(r["prompt"] == "greet" for r in rows)
    assert (
        general
        == round((len(rows) - general) / 3)
        == json.loads((whole / "rejection" / "counts.json").read_text())["general"]
    )
    report = json.loads((whole / "report.json").read_text())
    assert [r["stage"] for r in report["stages"]] == [
        "base",
        "R1-Zero",
        "cold start",
        "reasoning RL",
        "second SFT",
        "final RL",
    ]
    assert all(
        0 <= r["numbers"][k] <= 1
        for r in report["stages"]
        for k in ("accuracy", "format", "language", "mixed")
    )
    for r in report["stages"]:
        low, high = r["interval"]
        assert low <= r["numbers"]["accuracy"] <= high
    assert (whole / "stages.png").stat().st_size > 10_000
    assert CausalLM.load(whole / "final" / "model").context == 64


def test_general_prompts_and_the_preference_reward_join_late(whole):
    arguments = json.loads((whole / "final" / "arguments.json").read_text())["arguments"]
    assert arguments["temperature"] == 0.7 and arguments["refresh_reference"] == 20
    assert arguments["options"] == {"low": 10, "beta": 0.001}
    steps = {r["step"]: r for r in read_metrics(whole / "final") if "loss" in r}
    prompts = {
        n: [s["prompt"] for s in read_rows(whole / "final" / "samples" / f"step-{n:06d}.jsonl")]
        for n in (1, 2, 3, 4)
    }
    assert [prompts[n].count("greet") for n in (1, 2, 3, 4)] == [
        0,
        0,
        8,
        8,
    ]  # a quarter of 8 prompts, 4 samples each
    scored = [k for k in steps[4] if k == "rewards/reward-model/mean"]
    assert scored and steps[1][scored[0]] != steps[1][scored[0]]  # NaN: nothing to score yet
    assert steps[4][scored[0]] == steps[4][scored[0]]
    for s in read_rows(whole / "final" / "samples" / "step-000004.jsonl"):
        assert (
            (s["rewards"]["reward-model"] is None)
            == (s["prompt"] != "greet")
            == (s["rewards"]["math"] is not None)
        )
    assert (
        "responses/format" in steps[1] and "responses/mixed" in steps[1] and "level/0" in steps[1]
    )


def same(a: Path, b: Path) -> None:
    """Models, harvests and measures are the same bytes."""
    for stage in STAGES:
        for name in ("model/model.safetensors", "train.jsonl", "samples.jsonl", "counts.json"):
            if (a / stage / name).exists():
                assert (a / stage / name).read_bytes() == (b / stage / name).read_bytes(), (
                    stage,
                    name,
                )
    measures = [
        [
            (r["stage"], r["responses"], {k: v for k, v in r["numbers"].items() if k != "seconds"})
            for r in json.loads((p / "report.json").read_text())["stages"]
        ]
        for p in (a, b)
    ]
    assert measures[0] == measures[1]


@pytest.mark.parametrize("count", [5, pytest.param(11, marks=pytest.mark.slow)])
def test_killed_and_resumed_is_the_same_as_unbroken(whole, home, tmp_path, count):
    """SIGKILL between two optimiser steps: in the second stage that trains, or in the third."""
    out = tmp_path / "killed"
    killed = driven("update", str(count), *words(home, out))
    assert killed.returncode == -9, killed.stderr
    assert not (out / "report.json").exists()
    assert driven("never", "0", "r1", "--resume", str(out)).returncode == 0
    same(whole, out)


def test_a_stage_and_what_follows_can_be_run_anew(whole, home, tmp_path, capsys):
    import shutil

    out = tmp_path / "again"
    shutil.copytree(whole, out)
    before = (out / "final" / "model" / "model.safetensors").read_bytes()
    assert driven("never", "0", "r1", "--resume", str(out), "--from", "final").returncode == 0
    assert (out / "before-1" / "final" / "model").is_dir() and not (
        out / "before-1" / "reward-model"
    ).exists()
    assert (
        out / "final" / "model" / "model.safetensors"
    ).read_bytes() == before  # the same seed, the same result
    assert main(["r1", "--from", "final"]) == 2
    assert main(["r1", "--resume", str(out), "--from", "nothing"]) == 2
    assert "--from needs a stage: base, zero" in capsys.readouterr().err


def test_a_stage_can_be_run_anew_with_other_settings(whole, tmp_path, capsys):
    """They are the run's from then on; those of stages that stay as they are cannot change."""
    import shutil

    out = tmp_path / "again"
    shutil.copytree(whole, out)
    before = (out / "final" / "model" / "model.safetensors").read_bytes()
    anew = [
        "r1",
        "--from",
        "final",
        "--set",
        "final.lr=1e-4",
        "final.steps=2",
        "--resume",
        str(out),
    ]
    assert main(anew) == 0
    assert (out / "final" / "model" / "model.safetensors").read_bytes() != before
    stage, run, old = (
        json.loads((p / "arguments.json").read_text())["arguments"]
        for p in (out / "final", out, out / "before-1")
    )
    assert (stage["lr"], stage["steps"]) == (1e-4, 2)
    assert (
        run["set"] == [*old["set"], "final.lr=1e-4", "final.steps=2"]
        and old == json.loads((whole / "arguments.json").read_text())["arguments"]
    )
    assert (
        main(["r1", "--resume", str(out)]) == 0 and not (out / "before-2").exists()
    )  # whole: nothing is done again
    capsys.readouterr()
    assert main(["r1", "--resume", str(out), "--from", "final", "--set", "zero.lr=1"]) == 2
    assert "zero comes before final and is not run again; --from zero is" in capsys.readouterr().err
    for words_ in (["--set", "sft.lr=1", "zero.lr=1"], ["--set=zero.lr=1"]):
        assert main(["r1", "--resume", str(out), *words_]) == 2
        assert "needs a stage to be run again with it: --from zero" in capsys.readouterr().err
    assert main(["r1", "--resume", str(out), "--from", "final", "--set", "final.lrr=1"]) == 2
    assert "no option 'lrr'; did you mean lr?" in capsys.readouterr().err
    assert not (out / "before-2").exists()


def stage_run(path: Path, settings: dict[str, Any], steps: list[dict[str, float]]) -> None:
    path.mkdir(parents=True)
    (path / "arguments.json").write_text(json.dumps({"command": "rl", "arguments": settings}))
    rows = [{"step": i, "loss": 0.0} | s for i, s in enumerate(steps, 1)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


FIVE = {"lr": 2e-5, "prompts": 4, "num_generations": 4, "max_completion_length": 64}


@pytest.mark.parametrize(
    ("step", "why", "remedy"),
    [
        (
            {"kl_sequence": 6.0, "reward": 1.0},
            "6.0 nats a response from its start after 9 updates of 16 responses at lr 2e-05",
            "--set reasoning.lr=7e-06 reasoning.prompts=8.",
        ),
        (
            {"kl_sequence": 0.1, "frac_reward_zero_std": 0.9},
            "in 90% of its groups all rewards were equal",
            "--set reasoning.groups=resample reasoning.num_generations=8.",
        ),
        (
            {"completions/clipped_ratio": 0.5},
            "50% of its responses were cut off",
            "--set reasoning.max_completion_length=128.",
        ),
        (
            {"reward": 0.5},
            "its reward did not rise (0.50 to 0.50 in 9 updates of 16 responses)",
            "--set reasoning.lr=7e-06 reasoning.prompts=8.",
        ),
    ],
)
def test_a_stage_that_lost_is_named_with_why_and_what_to_try(tmp_path, step, why, remedy):
    stage_run(tmp_path / "reasoning", FIVE, [step] * 9)
    rates = {
        "base": 0.1,
        "R1-Zero": 0.9,
        "cold start": 0.6,
        "reasoning RL": 0.3,
        "second SFT": 0.25,
        "final RL": 0.5,
    }
    measures = [r1_report.Measured(k, {"accuracy": v}) for k, v in rates.items()]
    [line] = r1_report.lost(measures, tmp_path)
    assert line.startswith("reasoning RL is right in 30.0%, cold start was in 60.0%: ")
    assert why in line and line.endswith(f"Try --from reasoning with {remedy}")


def test_a_step_without_a_verdict_counts_in_no_mean(tmp_path):
    rewards = [float("nan"), *[0.4] * 4, *[0.6] * 5]
    stage_run(tmp_path / "zero", FIVE, [{"reward": x} for x in rewards])
    assert "rose (0.40 to 0.60)" in r1_diagnosis.reason("rl", "zero", tmp_path / "zero").why


@pytest.mark.parametrize(
    ("rows", "loss", "why", "remedy"),
    [
        (
            33,
            0.02,
            "it starts from the base model and had 33 rows",
            "with more rows (--data-prompts",
        ),
        (200, 0.9, "still 0.90 nats a token after 2.0 passes over 200 rows", "sft.steps=8."),
    ],
)
def test_a_second_sft_that_lost_had_few_rows_or_few_passes(tmp_path, rows, loss, why, remedy):
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(f'{{"prompt": "{i}", "completion": "{i}"}}\n' for i in range(rows)))
    settings = {"task": str(data), "rows": 100, "lr": 1e-4}
    count = len(RowsTask(str(data)).rows("train"))
    stage_run(tmp_path / "sft", settings | {"rows": count // 2}, [{"loss": loss}] * 4)
    rates = {"reasoning RL": 0.8, "second SFT": 0.2}
    measures = [r1_report.Measured(k, {"accuracy": v}) for k, v in rates.items()]
    [line] = r1_report.lost(measures, tmp_path)
    assert why.replace(str(rows), str(count)) in line and remedy in line


def test_the_table_has_an_interval_beside_what_was_measured_with_one():
    rows = [
        r1_report.Measured("base", {"accuracy": 0.1}),
        r1_report.Measured("final RL", {"accuracy": 0.9}, interval=[0.83, 0.96]),
    ]
    title, base, final = r1_report._table(rows)
    assert title.split() == ["stage", "right", "95", "%"]
    assert base.split() == ["base", "10.0%", "–"]
    assert final.split() == ["final", "RL", "90.0%", "83%–96%"]


def test_the_report_says_what_would_make_the_same_numbers_again(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    assert r1_report.seeded(7).startswith("Seed 7, 3 thread(s): the same again, bit for bit")


def test_an_interrupted_stage_ends_the_call_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    """Ctrl-C in the very first job of the demonstration: it is saved, nothing is measured, and the
    chain's way on is named."""

    def stop(arguments: object) -> None:
        raise Stopped("stopped after step 3; resume with: logpi sft --resume x", signal.SIGINT)

    monkeypatch.setattr(sft.SFT, "run", stop)
    assert main(["r1", "--out", str(tmp_path / "out")]) == 130
    said = capsys.readouterr().err
    assert f"resume with: logpi r1 --resume {tmp_path / 'out'}" in said and "logpi sft" not in said
    assert not (tmp_path / "out" / "base" / "measured.json").exists()


def test_stages_can_be_skipped_and_a_missing_input_is_said(home, tmp_path, capsys):
    for skip, late, remedy in (
        (["zero", "cold-data"], "cold-start", ", or give it rows of your own (--cold-start FILE)"),
        (["rejection"], "sft", ""),
    ):
        assert main(words(home, tmp_path / "a", "--skip", *skip)) == 2
        said = capsys.readouterr().err.strip()
        assert said.endswith(
            f"stage {late} learns from what {skip[-1]} makes, which is skipped: leave both out"
            f" (--skip {' '.join([*skip, late])}){remedy}"
        )
        assert not (tmp_path / "a").exists()
    out = tmp_path / "b"
    assert (
        main(
            words(
                home,
                out,
                "--skip",
                "zero",
                "cold-data",
                "cold-start",
                "sft",
                "reward-model",
                "final",
                "rejection",
            )
        )
        == 0
    )
    said = capsys.readouterr().err
    assert "== base (1 of 9): measured as it is" in said
    assert "== final (9 of 9): left out, by --skip" in said
    assert {p.name for p in out.iterdir() if p.is_dir()} >= {"reasoning"} and not (
        out / "zero"
    ).exists()
    assert [r["stage"] for r in json.loads((out / "report.json").read_text())["stages"]] == [
        "base",
        "reasoning RL",
    ]


def test_zero_passed_samples_say_what_to_try_and_keep_everything(home, tmp_path, capsys):
    out = tmp_path / "none"
    assert main(words(home, out, "--language", "ar", "--skip", "zero")) == 2
    said = capsys.readouterr().err
    assert "none of 80 samples passed" in said and "language" in said and "more --samples" in said
    assert (
        len(read_rows(out / "cold-data" / "samples.jsonl")) == 80
        and not (out / "cold-start").exists()
    )


def test_what_helps_a_model_that_does_not_write_the_format(tmp_path):
    a = r1_arguments.R1(settings="small")
    assert r1_harvest._to_the_format(a, tmp_path).endswith("(--prompt-template r1-zero)")
    (tmp_path / "cold-start" / "model").mkdir(parents=True)
    (tmp_path / "cold-start" / "model" / "config.json").write_text("{}")
    longer = r1_harvest._to_the_format(a, tmp_path)
    assert longer.endswith("--from cold-start --set cold-start.epochs=12")
    own = r1_arguments.R1(settings="small", set=("cold-start.steps=30",))
    assert r1_harvest._to_the_format(own, tmp_path).endswith("--set cold-start.steps=60")


def test_mistakes_are_said_before_any_work(home, tmp_path, capsys):
    def refused(*more: str) -> str:
        with pytest.raises(SystemExit):
            sys.exit(main(words(home, tmp_path / "x", *more)))
        assert not (tmp_path / "x").exists()
        return capsys.readouterr().err

    assert "accepts none of the rows' own answers" in refused("--accuracy", "boxed")
    assert "has answers: such rows belong to --task" in refused("--general", str(home / "answered"))
    assert "no column 'chosen'" in refused("--pairs", str(home / "general"))
    assert "give --general FILE too, or leave --pairs out" in refused("--general", "")
    exact = refused("--accuracy", "exact")
    assert exact.endswith("Choose a verifier that fits the answers: math, number, tag_answer\n")
    small_policy("0123456789+=", width=16, layers=1).save(tmp_path / "digits")
    digits = refused("--model", str(tmp_path / "digits"))
    assert "digits cannot write <think>, which R1's format asks for" in digits
    assert "Choose a model whose vocabulary has these characters" in digits
    write_rows(tmp_path / "bare" / "train.jsonl", [{"prompt": "say 1", "answer": "many"}] * 4)
    assert "has an answer that 'number' can read" in refused(
        "--accuracy", "number", "--task", str(tmp_path / "bare")
    )
    (tmp_path / "moody.py").write_text(
        "calls = []\ndef mood(completions, **_):\n    calls.append(1)\n    return [float(len(calls)"
        " % 2) for _ in completions]\n"
    )
    assert "disagrees with itself" in refused("--accuracy", f"{tmp_path}/moody.py:mood")
    with pytest.raises(SystemExit):
        main(["r1", "--set", "zero.stepz=3"])
    assert "has no option 'stepz'; did you mean steps?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["r1", "--model", "m"])
    assert "--model needs a --task" in capsys.readouterr().err


SUM = {"question": "A dog has 4 legs. And two dogs?", "answer": "Twice 4 are <<2*4=8>>8.\n#### 8"}
PROGRAM = {
    "task_id": 700,
    "text": "Write f.",
    "code": "f = abs",
    "test_list": ["assert f(-1) == 1"],
}


def test_the_task_decides_its_verifier(tmp_path):
    """Rows with answers, GSM8K's and MATH's: math. Programs: their unit tests. Puzzles with many
    solutions: their own judge."""
    write_rows(tmp_path / "sums" / "train.jsonl", [SUM])
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "2+2=", "answer": "4"}])
    write_rows(tmp_path / "mbpp.jsonl", [PROGRAM])

    def verifier(task: str, *more: str) -> str:
        argv = ["--model", "m", "--settings", "published"]
        argv += ["--task", task.replace("DIR", str(tmp_path)), *more]
        return r1_arguments.settled(parse(r1_arguments.R1, argv, "logpi r1")).accuracy

    assert [verifier(f"{t}:DIR/sums") for t in ("gsm8k", "math500", "aime")] == ["math"] * 3
    assert verifier("DIR/rows.jsonl") == verifier("addition") == "math"
    assert (verifier("mbpp:DIR/mbpp.jsonl"), verifier("countdown"), verifier("facts")) == (
        "code",
        "countdown",
        "qa_em",
    )
    assert verifier("DIR/rows.jsonl", "--accuracy", "number") == "number"
    assert r1_arguments.settled(r1_arguments.R1()).accuracy == "tag_answer"
    with pytest.raises(
        ValueError, match="judged by 'reasoning_gym', which has no name here: choose --accuracy"
    ):
        verifier("reasoning_gym(chain_sum)")


def test_a_benchmarks_answer_is_read_in_the_tags_and_in_a_box(tmp_path):
    """The prompt of `gsm8k:DIR` asks for a box, R1's format for <answer>: both are right, and so
    are both at once."""
    from logpi.envs.tasks import task

    write_rows(tmp_path / "train.jsonl", [SUM])
    a = r1_arguments.settled(
        parse(
            r1_arguments.R1,
            ["--model", "m", "--settings", "published", "--task", f"gsm8k:{tmp_path}"],
            "logpi r1",
        )
    )
    row = task(a.task).rows("train")[0]
    said = [
        f"<think>so</think><answer>{x}</answer>"
        for x in ("8", r"\\boxed{8}", "$8", "8 legs", "9", "")
    ]
    columns = {k: [v] * len(said) for k, v in row.items() if k not in ("prompt", "completion")}
    scores = r1_arguments.judged(a).score([row["prompt"]] * len(said), said, None, columns)
    assert [s.parts["math"] for s in scores] == [1, 1, 1, 1, 0, 0]


def test_bad_lines_of_a_benchmark_are_named_before_any_work(home, tmp_path, capsys):
    def refused(rows: list, task: str = "gsm8k:{}") -> str:
        write_rows(tmp_path / "data" / "train.jsonl", rows)
        write_rows(tmp_path / "data" / "test.jsonl", rows)
        argv = words(home, tmp_path / "x", "--task", task.format(tmp_path / "data"))
        assert main(argv) == 2 and not (tmp_path / "x").exists()
        return capsys.readouterr().err

    assert "line 2: no column 'question' or 'problem'; found: answer" in refused(
        [SUM, {"answer": "#### 8"}]
    )
    assert "line 2: no column 'answer'; found: question" in refused(
        [SUM, {"question": "How many?"}]
    )
    assert "no row has an answer that can be read" in refused(
        [{"question": "How many?", "answer": "#### "}] * 2
    )
    assert "is one file, and so the test" in refused([SUM], "gsm8k:{}/train.jsonl")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "train.jsonl").write_text(json.dumps(SUM) + '\n{"question": "How')
    assert main(words(home, tmp_path / "x", "--task", f"gsm8k:{tmp_path / 'torn'}")) == 2
    assert "line 2: not valid JSON" in capsys.readouterr().err


def test_the_r1_zero_recipe_is_what_was_published_and_the_users_words_win():
    argv = ["--recipe", "r1-zero", "--model", "m", "--num-generations", "4"]
    a = parse(RL, argv, "logpi rl")
    assert a == RL(recipe="r1-zero", model="m", num_generations=4)
    assert (a.prompts, a.num_generations, a.lr, a.refresh_reference) == (32, 4, 3e-6, 400)
    assert (
        a.rewards == ("math", "think_answer")
        and a.options == {"low": 10, "beta": 0.001}
        and a.temperature == 1.0
    )


def test_the_template_is_put_around_plain_prompts(home):
    from logpi.errors import UserError
    from logpi.jobs.options.model import ModelArguments

    policy = CausalLM.load(home / "base" / "model")
    plain = ModelArguments(model="m", prompt_template="say {prompt}.yes").template(policy)
    assert policy.tokenizer.decode(plain(policy, "3")) == policy.tokenizer.decode(
        policy.render("say 3.yes")
    )
    with pytest.raises(ValueError, match="r1-zero"):
        ModelArguments(model="m", prompt_template="r2").template(policy)
    with pytest.raises(UserError, match="has no chat template|for models without"):
        ModelArguments(model="m", prompt_template="{prompt}", chat=True).template(policy)


def test_the_demonstrations_rule_and_data(tmp_path):
    assert r1_data.gold("greet ann.", "<answer>dear friend good day ann</answer>") == 1.0
    r1_data.write_data(tmp_path / "a", 0)
    r1_data.write_data(tmp_path / "b", 0)
    names = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.jsonl"))
    assert len(names) == 5 and all(
        (tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names
    )
    train = {r["prompt"] for r in read_rows(tmp_path / "a" / "general" / "train.jsonl")}
    assert not train & {r["prompt"] for r in read_rows(tmp_path / "a" / "general" / "test.jsonl")}
