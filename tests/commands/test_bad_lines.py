"""Command lines that cannot be right, over every command: each is one line on stderr and a code
that is not 0, at once, before anything is made. And every number of every command has a range.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import pkgutil
import time
from pathlib import Path

import pytest

import logpi.commands
import logpi.demos
import logpi.jobs
from logpi.cli import main
from logpi.commands import COMMANDS
from logpi.demos.demo import ReasoningDemo
from logpi.envs.tasks import Addition
from logpi.jobs.options.fields import LARGEST
from logpi.jobs.options.saved import to_json, values_of
from logpi.policies.causal_lm import CausalLM
from logpi.policies.small import small_policy
from logpi.runs.directory import Run
from tests.tiny import tiny_model, tiny_tokenizer

AT_ONCE = 20.0  # seconds, on a busy machine; what is refused here takes a tenth of one
LONG = "x" * 5000
RL = (
    "rl --model MODEL --steps 1 --prompts 2 --num-generations 2 --max-completion-length 4"
    " --eval-items 2"
)
SFT = "sft --model MODEL --task ROWS --steps 1"
PREFER = "prefer --model MODEL --data PAIRS --steps 1"
REWARD = "reward-model --model MODEL --data PAIRS --steps 1"
EVAL = "eval --model MODEL --items 2 --samples 2 --max-completion-length 4"
COMPUTE = "compute --model MODEL --items 2 --samples 2 --max-completion-length 4"
LABELS = "step-labels --model MODEL --prompts 2 --samples 2 --rollouts 2 --max-completion-length 4"
HARVEST = "harvest --model MODEL --prompts 2 --samples 2 --max-completion-length 4"
CHAT = "chat --model MODEL --max-completion-length 4"
VALUES = (
    "lab step-values --model MODEL --prompt 1+1= --response 2 --answer 2 --samples 2 --max-tokens 3"
)
R1 = "r1 --skip zero reasoning final"

# start of a line -> its bad ends, and a word that the error must hold
BAD: dict[str, list[tuple[str, str]]] = {
    "": [("demoo", "did you mean demo"), ("--nosuch", "unknown command")],
    "demo": [
        ("--seed -1", "at least 0"),
        ("--seed 99999999999", f"at most {LARGEST}"),
        ("--lr -1", "at least 0"),
        ("--lr nan", "number"),
        ("--lr inf", "at most 10"),
        ("--steps -1", "at least 1"),
        ("--steps 0", "at least 1"),
        ("--sft-steps x", "whole number"),
        ("--algorithm nosuch", "unknown algorithm"),
        ("--algorithm dpo --options beta=x", "beta"),
        ("--options beta", "NAME=VALUE"),
        ("--beta x", "--beta: 'x' is not a number"),
        ("--bta 1", "did you mean --beta"),
        ("--high 0.3 --algorithm daapo", "did you mean dapo"),
        ("--device nosuch", "unknown device"),
        ("--out FILE", "is a file"),
        ("--out FULL", "holds no run"),
        ("--out FILE/x", "Not a directory"),
        ("--out RUN", "logpi sft"),
        ("--out LONG", "too long"),
        ("--nosuch", "unknown option"),
        ("stray", "unexpected"),
        (f"--steps {'9' * 5000}", "whole number"),
        ("--out DEMO --steps 7", "was begun with steps 3"),
    ],
    "preferences-demo": [
        ("--seed -1", "at least 0"),
        ("--pairs 0", "at least 64"),
        ("--pairs 1e12", "at most"),
        ("--ppo-steps -1", "at least 1"),
        ("--dpo-steps 1.5", "whole number"),
        ("--out FILE", "is a file"),
        ("--out FULL", "holds no run"),
        ("--out DEMO", "logpi demo"),
    ],
    "distill-demo": [
        ("--seed -1", "at least 0"),
        ("--seeds 0", "at least 1"),
        ("--steps 0", "at least 1"),
        ("--teacher-steps 1e9", "at most"),
        ("--base-steps -1", "at least 1"),
        ("--sft-steps x", "whole number"),
        ("--teacher nosuch", "no such file"),
        ("--teacher STRANGER", "another tokenizer"),
        ("--out FILE", "is a file"),
        ("--out FULL", "holds no run"),
        ("--out DEMO", "logpi demo"),
    ],
    "tools-demo": [
        ("nosuch", "unknown value"),
        ("--seed -1", "at least 0"),
        ("--lr -1", "at least 0"),
        ("--steps -1", "at least 1"),
        ("--seeds 0", "at least 1"),
        ("--seeds 1e9", "at most 1000"),
        ("--eval-items 0", "at least 1"),
        ("--out FILE", "is a file"),
        ("--out FULL", "holds no run"),
        ("--out RUN", "logpi sft"),
    ],
    R1: [
        ("--seed -1", "at least 0"),
        ("--samples 0", "at least 1"),
        ("--set zero.steps=x", "zero.steps=x"),
        ("--set zero.steps=-1", "at least 1"),
        ("--set zero.lr=-1", "at least 0"),
        ("--set zero.lr=nan", "number"),
        ("--set zero", "STAGE.OPTION"),
        ("--set nosuch.steps=1", "stage of"),
        ("--set zero.stepz=1", "did you mean steps"),
        ("--set zero.out=x", "no option 'out'"),
        ("--set zero.epochs=1", "no option 'epochs'"),
        ("--set sft.epochs=0", "above 0"),
        ("--set sft.epochs=x", "above 0"),
        ("--set base.steps=0", "at least 1"),
        ("--set zero.options=x", "not a list"),
        ("--general-share 2", "at most 1"),
        ("--language-least -1", "at least 0"),
        ("--language nosuch", "nosuch"),
        ("--accuracy nosuch", "nosuch"),
        ("--model MODEL", "--task"),
        ("--skip nosuch", "unknown value"),
        ("--model MODEL --task ROWS --set base.steps=3", "not trained first"),
        ("--cold-start nosuch.jsonl", "no such file"),
        ("--general ROWS", "has answers"),
        ("--from nosuch", "needs a stage"),
        ("--out FILE", "is a file"),
        ("--out LONG", "too long"),
        ("--trackers nosuch", "unknown tracker"),
        ("--threads 0", "at least 1"),
        ("--threads 9999", "at most 1024"),
        ("--prompts 3", "unknown option"),
    ],
    "r1": [
        ("--skip base", "unknown value 'base'"),
        ("--resume nosuch", "no run"),
        ('--set zero.options=["bta=1"]', "bta"),
        ("--set zero.algorithm=nosuch", "unknown algorithm"),
        ('--set zero.rewards=["nosuch"]', "nosuch"),
        ("--set zero.num_generations=1", "num-generations"),
    ],
    RL: [
        ("--algorithm distill", "--teacher"),
        ("--teacher nosuch", "no such file"),
        ("--teacher STRANGER", "another tokenizer"),
        ("--tools nosuch.py:f", "no such file"),
        ("--tools weather", "FILE.py:NAME"),
        ("--task verifiers:nosuch", "install"),
        ("--task openenv:nosuch", "install"),
        ("--beta 0 --teacher MODEL", "--algorithm distill"),
        ("--seed -1", "at least 0"),
        ("--lr -1e-6", "at least 0"),
        ("--lr 1e300", "at most 10"),
        ("--steps nan", "whole number"),
        ("--prompts 1e18", "at most"),
        ("--num-generations 1", "at least 2"),
        ("--temperature 0", "above 0"),
        ("--temperature 1e-320", "at least 0.001"),
        ("--temperature inf", "at most"),
        ("--options beta=Infinity", "beta must be a number"),
        ("--options beta=1e400", "beta must be a number"),
        ("--system \udcff", "UTF-8"),
        ("--general-share 1.5", "at most 1"),
        ("--lora -1", "at least 0"),
        ("--lora 1e9", "at most"),
        ("--lora-alpha nan", "number"),
        ("--slots 0", "at least 1"),
        ("--slots 1e20", "at most"),
        ("--max-completion-length 1e20", "at most"),
        ("--tool-timeout inf", "at most"),
        ("--tool-patience nan", "number"),
        ("--eval-every -1", "at least 0"),
        ("--rewards exact:1e300", "weight"),
        ("--rewards exact:1e400", "weight"),
        ("--rewards nosuch", "nosuch"),
        ("--rewards nosuch.py:f", "nosuch.py"),
        ("--rewards model:nosuch", "no such file"),
        ("--rewards json_schema({bad", "cannot read"),
        ("--rewards json_schema({'type':'objekt'})", "json_schema"),
        ("--rewards regex('[')", "compile"),
        ("--task nosuch", "no task"),
        ("--task ./nosuch/x", "no such file"),
        ("--task nosuch/x", "no such file"),
        ("--task BAD", "line 1"),
        ("--task HUGE", "line 1: not valid JSON (a number has too many digits)"),
        ("--task EMPTY", "no rows"),
        ("--task addition(digits=-1)", "digits"),
        ("--task addition(digits=x)", "task 'addition'"),
        ("--model nosuch", "no such file"),
        ("--model ./nosuch", "no such file"),
        ("--model FILE", "no model"),
        ("--model FULL", "cannot load"),
        ("--model LONG", "too long"),
        ("--model=", "must be given"),
        ("--chat", "chat template"),
        ("--prompt-template {", "template"),
        ("--prompt-template {nosuch}", "template"),
        ("--algorithm nosuch", "unknown"),
        ("--options epochs=0", "epochs"),
        ("--options beta=nan", "beta"),
        (f"--options beta={'9' * 5000}", "beta"),
        ("--critic nosuch --algorithm ppo", "no such"),
        ("--out FILE", "is a file"),
        ("--out FULL", "holds no run"),
        ("--out RUN", "already holds a run"),
        ("--trackers nosuch", "unknown tracker"),
        ("--threads 0", "at least 1"),
        ("--threads 9999", "at most 1024"),
        ("--dtype float8", "unknown value"),
        ("--general ROWS", "has answers"),
        ("--load-in-4bit", "--lora"),
    ],
    SFT: [
        ("--seed -1", "at least 0"),
        ("--rows 0", "at least 1"),
        ("--max-length 1", "at least 2"),
        ("--max-length 1e20", "at most"),
        ("--lr inf", "at most"),
        ("--schedule cosin", "cosine"),
        ("--task PAIRS", "completion"),
        ("--task nosuch.csv", "no such file"),
        ("--task DUPLICATE", "2 columns"),
        ("--task HEAD", "no rows"),
        ("--out FILE", "is a file"),
        ("--save-every 0", "at least 1"),
    ],
    PREFER: [
        ("--seed -1", "at least 0"),
        ("--pairs 1e12", "at most"),
        ("--objective nosuch", "preference objective"),
        ("--data ROWS", "chosen"),
        ("--objective kto --data ROWS", "label"),
        ("--lr nan", "number"),
        ("--warmup -1", "at least 0"),
        ("--out FULL", "holds no run"),
        ("--options beta=x", "beta"),
        ("--data nosuch/x", "no such file"),
    ],
    REWARD: [
        ("--seed -1", "at least 0"),
        ("--centre -1", "at least 0"),
        ("--centre inf", "finite"),
        ("--margin", "margin"),
        ("--data ROWS", "chosen"),
        ("--model nosuch", "no such file"),
        ("--out FILE", "is a file"),
        ("--eval-items 0", "at least 1"),
    ],
    "gym": [
        ("--algorithm distill", "learns from a teacher"),
        ("--seed -1", "at least 0"),
        ("--steps 0", "at least 1"),
        ("--updates 0", "at least 1"),
        ("--seeds 1e9", "at most 1000"),
        ("--eval-episodes 1e9", "at most"),
        ("--env nosuch", "no environment"),
        ("--env nosuch:Id", "nosuch"),
        ("--env nosuch:Id-v0", "nosuch"),
        ("--env ./my.py:Env", "no such file"),
        ("--env=", "no environment"),
        ("--algorithm nosuch", "unknown"),
        ("--algorithm dpo", "preferences"),
        ("--options lr=-1", "above 0"),
        ("--options hidden=x", "widths"),
        ("--options n_steps=0", "above 0"),
        ("--n-steps 0", "above 0"),
        ("--lr inf", "--lr: must be finite"),
        ("--hidden x", "--hidden: 'x' is not a whole number"),
        ("--env-options x=1", "options"),
        (
            "--env logpi/GridWorld-v0 --env-options cots=1",
            "v0: the grid world has no 'cots'; did you mean cost",
        ),
        ("--env logpi/GridWorld-v0 --env-options cost=x", "cost is a finite number"),
        ("--env logpi/GridWorld-v0 --env-options terminals=(3,1)", "CELL:REWARD"),
        ("--env logpi/GridWorld-v0 --env-options terminals=(9,1):5", "outside the 4×4 grid"),
        ("--env logpi/GridWorld-v0 --env-options start=(3,1)", "is a terminal cell"),
        ("--env logpi/GridWorld-v0 --env-options width=1.5", "whole number"),
        ("--out FILE", "is a file"),
        ("--out FULL", "holds no run"),
        ("--trackers nosuch", "unknown tracker"),
        ("--threads 0", "at least 1"),
        ("--threads 9999", "at most 1024"),
        ("--seeds 2 --out FULL", "holds no run"),
    ],
    "play": [
        ("", "must be given"),
        ("nosuch", "no run"),
        ("RUN", "not of `logpi gym`"),
        ("RUN --seed -1", "at least 0"),
        ("RUN --episodes 0", "at least 1"),
        ("RUN --fps 0", "above 0"),
        ("RUN --fps inf", "at most"),
        ("RUN --lines -1", "at least 0"),
        ("RUN --episodes 1e9", "at most"),
        ("FILE", "no run"),
    ],
    EVAL: [
        ("--tools nosuch.py:f", "no such file"),
        ("--pass-at -1", "at least 1"),
        ("--pass-at 0", "at least 1"),
        ("--pass-at 99", "samples"),
        ("--best-of -1", "at least 0"),
        ("--best-of 2", "judge"),
        ("--shots -1", "at least 0"),
        ("--ngram 0", "at least 1"),
        ("--top-p 2", "at most 1"),
        ("--top-p 0", "above 0"),
        ("--temperature -1", "above 0"),
        ("--samples 1e12", "at most"),
        ("--items -1", "at least 0"),
        ("--judge nosuch", "nosuch"),
        ("--against nosuch --judge logp", "no such file"),
        ("--lenient nosuch", "nosuch"),
        ("--trained-on nosuch.jsonl", "no such file"),
        ("--task gsm8k:nosuch.jsonl", "no such file"),
        ("--task gsm8k:ROWS --ask nosuch", "template"),
        ("--out FULL", "holds no run"),
        ("--lenient json_schema({'type':'objekt'})", "json_schema"),
    ],
    COMPUTE: [
        ("--beams -1", "at least 1"),
        ("--beams 4 1e9", "at most"),
        ("--branch 0", "at least 1"),
        ("--step=", "--step"),
        ("--scorer nosuch", "nosuch"),
        ("--against MODEL", "same model"),
        ("--samples 1e12", "at most"),
        ("--out FILE", "is a file"),
    ],
    HARVEST: [
        ("--server http://127.0.0.1:1/v1", "one teacher"),
        ("--samples 0", "at least 1"),
        ("--least 1 1 1", "3 values for"),
        ("--rewards nosuch", "nosuch"),
        ("--task nosuch", "nosuch"),
        ("--per-prompt 0", "at least 1"),
        ("--temperature 0", "above 0"),
        ("--out FULL", "holds no run"),
    ],
    "harvest": [("", "one teacher"), ("--server ftp://x", "an address")],
    LABELS: [
        ("--gap 0", "above 0"),
        ("--gap 2", "at most 1"),
        ("--gap nan", "number"),
        ("--temperature 0", "above 0"),
        ("--samples -1", "at least 1"),
        ("--rewards nosuch", "nosuch"),
        ("--prompts 1e12", "at most"),
        ("--out FULL", "holds no run"),
        ("--rollouts 1e20", "at most"),
        ("--end-token nosuch", "not one token"),
        ("--prompt-template r1-zero", "context"),
    ],
    "inspect": [
        ("", "must be given"),
        ("nosuch", "no run"),
        ("RUN --row -1", "at least 0"),
        ("RUN --step -1", "at least 0"),
        ("RUN", "no samples"),
    ],
    "view": [
        ("nosuch", "is not there"),
        ("FILE", "is no folder"),
        ("RUN --port -1", "at least 0"),
        ("RUN --port 99999", "at most 65535"),
        ("RUN --host 192.0.2.1", "cannot listen"),
        ("RUN --host nosuch.invalid", "cannot listen"),
        ("RUN --static FULL", "is not empty"),
        ("RUN --static FILE", "is a file: give another --static"),
        ("RUN --static FILE/x", "Not a directory"),
        ("RUN --static RUN/page", "inside the run"),
        ("RUN --prot 1", "did you mean --port"),
    ],
    "compare": [
        ("", "are required: RUNS"),
        ("nosuch", "is not there"),
        ("RUN", "no run with metrics"),
        ("FULL", "no run with metrics"),
        ("RUN --picture x.txt", ".png"),
        ("RUN --picture nosuch/x.png", "there is no folder nosuch"),
    ],
    "serve": [
        ("", "--follow a run"),
        ("--model nosuch", "nosuch"),
        ("--model MODEL --host 0.0.0.0", "--api-key"),
        ("--model MODEL --port 99999", "at most 65535"),
        ("--model MODEL --slots 0", "at least 1"),
        ("--model MODEL --max-length 1", "at least 2"),
        ("--model MODEL --max-requests 0", "at least 1"),
        ("--model MODEL --timeout 0", "above 0"),
        ("--model MODEL --timeout nan", "number"),
        ("--model MODEL --template-options x", "NAME=VALUE"),
        ("--model MODEL --end-token ab", "not one token"),
        ("--model MODEL --dtype int4", "unknown value"),
        ("--follow nosuch", "no run"),
        ("--modell MODEL", "did you mean --model"),
    ],
    CHAT: [
        ("--seed -1", "at least 0"),
        ("--top-p 0", "above 0"),
        ("--temperature -1", "at least 0"),
        ("--chat", "chat template"),
        ("--model nosuch", "no such file"),
        ("--model RUN", "cannot load"),
        ("--device nosuch", "unknown device"),
    ],
    "launch": [
        ("", "--learners must be given"),
        ("--learners 0 -- rl", "--learners '0': e.g. --learners 8"),
        ("--learners 2 -- gym", "the others work in one process"),
        ("--lerners 2 -- rl", "did you mean --learners"),
        ("--learners 2 rl --model x", "what to launch comes after --"),
    ],
    "sweep": [
        ("", "JOB must be given"),
        ("gym", "say what varies"),
        ("gym --lrr 1", "did you mean --lr"),
        ("gym --lr 1..2", "--trials"),
        ("gym --trials x --lr 1", "whole number"),
        ("--resume nosuch", "no run"),
        ("--resume RUN", "not of `logpi sweep`"),
    ],
    "completion": [("", "must be given"), ("fish", "unknown value 'fish'; one of: bash")],
    "algorithms": [("stray", "unexpected"), ("--markdwn", "did you mean --markdown")],
    "describe": [
        ("", "must be given"),
        ("nosuch", "unknown algorithm"),
        ("grpo --options beta", "NAME=VALUE"),
        ("grpo --options beta=x", "a number"),
        ("grpo --beta x", "--beta: 'x' is not a number"),
        ("dpo --advantage GroupNorm", "--advantage: dpo has no part called advantage"),
        ("dpo --advantag GroupNorm", "unknown option --advantag"),
        (LONG, "unknown algorithm"),
    ],
    "lab": [
        ("nosuch", "unknown command"),
        ("bias --responses 99", "at most 6"),
        ("bias --responses 1", "at least 2"),
        ("bellman --slip 1", "at most"),
        ("bellman --gamma -1", "at least 0"),
        ("bellman --cost 1", "every move must cost something"),
        ("bellman --cost x", "--cost: 'x' is not a number"),
        ("bellman --terminals (3,1)", "CELL:REWARD"),
        ("bellman --start (9,9)", "outside the 4×4 grid: give other start"),
        ("bellman --width 99", "at most 9"),
        ("bellman --policy lefd", "did you mean left?"),
        ("bellman --policy RUN", "is no run of `logpi gym"),
        ("bellman --policy RUN --cost -2", "leave --cost out"),
        ("rewards --seed -1", "at least 0"),
        ("preferences --beta 1", "unknown option --beta"),
        ("bias --picture FILE/x.png", "Not a directory"),
        ("bias --picture x.txt", ".png"),
        ("kl --nosuch", "unknown option"),
    ],
    VALUES: [
        ("--seed -1", "at least 0"),
        ("--temperature 0", "above 0"),
        ("--max-tokens 1e20", "at most"),
        ("--model nosuch", "no such file"),
        ("--reward nosuch", "nosuch"),
    ],
    "check-model": [
        ("", "must be given"),
        ("nosuch", "no such file"),
        ("FILE", "no model"),
        ("FULL", "cannot load"),
        ("MODEL --dtype float8", "unknown value"),
        ("MODEL --device nosuch", "unknown device"),
    ],
    "repeat": [
        ("", "must be given"),
        ("nosuch", "no run"),
        ("FILE", "no run"),
        ("RUN --out FULL", "holds no run"),
    ],
}
LINES = [(f"{start} {end}".strip(), says) for start, ends in BAD.items() for end, says in ends]


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> dict[str, str]:
    """What the capital words of the table stand for."""
    home = tmp_path_factory.mktemp("bad")

    def table(name: str, *rows: dict) -> str:
        (home / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
        return str(home / name)

    small_policy(Addition().alphabet, width=32, layers=2, heads=2, seed=1).save(home / "model")
    small_policy("0123456789", width=16, layers=1).save(home / "stranger")
    (home / "file").write_text("x")
    (home / "full").mkdir()
    (home / "full" / "x.txt").write_text("x")
    Run.create(home / "run", "sft", {"model": "m", "task": "addition"}).close()
    Run.create(home / "demo", "demo", to_json(ReasoningDemo(steps=3))).close()
    (home / "huge.jsonl").write_text('{"prompt": "1+1=", "answer": ' + "9" * 5000 + "}\n")
    (home / "bad.jsonl").write_text('{"prompt": \n')
    (home / "empty.jsonl").write_text("")
    (home / "head.csv").write_text("prompt,completion\n")
    (home / "twice.csv").write_text("prompt,prompt,completion\na,b,c\n")
    files = {
        "MODEL": "model",
        "STRANGER": "stranger",
        "FILE": "file",
        "FULL": "full",
        "RUN": "run",
        "DEMO": "demo",
        "HUGE": "huge.jsonl",
        "BAD": "bad.jsonl",
        "EMPTY": "empty.jsonl",
        "HEAD": "head.csv",
        "DUPLICATE": "twice.csv",
    }
    return {k: str(home / v) for k, v in files.items()} | {
        "LONG": LONG,
        "ROWS": table(
            "rows.jsonl",
            *({"prompt": f"{i}+1=", "answer": f"{i + 1}", "completion": "1"} for i in range(40)),
        ),
        "PAIRS": table(
            "pairs.jsonl",
            *({"prompt": f"{i}+1=", "chosen": "1", "rejected": "2"} for i in range(40)),
        ),
    }


@pytest.fixture
def offline(monkeypatch):
    """No test asks the hub."""
    import datasets
    from huggingface_hub import constants

    from logpi.policies.hub import answers

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    answers.cache_clear()
    yield
    answers.cache_clear()


def refused(line: str, words: dict[str, str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a bad command line ends, its code not 0."""
    capsys.readouterr()
    spelt = [_spelt(word, words) for word in line.split()]
    try:
        code = main(spelt)
    except SystemExit as leave:
        code = leave.code
    said = capsys.readouterr().err.strip().splitlines()
    assert code and len(said) == 1 and said[0].startswith("logpi"), said
    return said[0]


def _spelt(word: str, words: dict[str, str]) -> str:
    for name, path in words.items():
        if word == name or word.startswith(f"{name}/") or word.endswith(f":{name}"):
            return word.replace(name, path)
    return word


@pytest.mark.parametrize(
    ("line", "says"), LINES, ids=[f"{i}: {x[:60]}" for i, (x, _) in enumerate(LINES)]
)
def test_a_bad_line_is_one_line_at_once(line, says, words, capsys, tmp_path, monkeypatch, offline):
    monkeypatch.chdir(tmp_path)
    start = time.perf_counter()
    said = refused(line, words, capsys)
    assert says in said and len(said) < 1000
    assert time.perf_counter() - start < AT_ONCE
    assert not list(tmp_path.iterdir())  # nothing was made


def test_every_command_has_bad_lines():
    assert {line.split()[0] for line, _ in LINES} >= COMMANDS.keys() and len(LINES) >= 150


def _arguments() -> list[type]:
    """Every dataclass of arguments of a command: those whose fields were made by `option`."""
    modules = [
        importlib.import_module(m.name)
        for part in (logpi.jobs, logpi.commands, logpi.demos)
        for m in pkgutil.walk_packages(part.__path__, f"{part.__name__}.")
    ]
    classes = {
        c
        for m in modules
        for c in vars(m).values()
        if dataclasses.is_dataclass(c) and c.__module__ == m.__name__
    }
    return sorted(
        (c for c in classes if any("least" in f.metadata for f in dataclasses.fields(c))), key=str
    )


@pytest.mark.parametrize(
    "cls", _arguments(), ids=lambda c: f"{c.__module__.rpartition('.')[2]}.{c.__name__}"
)
def test_every_number_has_a_range_that_holds_its_default(cls):
    for f in dataclasses.fields(cls):
        if not any(number in str(f.type) for number in ("int", "float")):
            continue
        assert f.metadata.get("least") is not None or f.metadata.get("above") is not None, (
            f"{f.name} has no range"
        )
        if f.default not in (dataclasses.MISSING, None):
            default = list(f.default) if isinstance(f.default, tuple) else f.default
            assert values_of(cls, {f.name: default}, "").get(f.name, f.default) == f.default


def test_the_classes_are_all_there():
    assert len(_arguments()) >= len(COMMANDS)


def test_a_demonstration_goes_on_where_it_was_only_with_its_own_arguments(
    words, capsys, tmp_path, monkeypatch
):
    """The demo's directory is known by its arguments.json; another seed would silently show the old
    one's runs."""
    from logpi.demos.chain import home
    from logpi.errors import UserError

    monkeypatch.chdir(tmp_path)
    with home(ReasoningDemo(seed=5), "demo") as run:
        assert run.path == Path("runs/demo-1") and run.command == "demo"
    with home(ReasoningDemo(seed=5, out=run.path), "demo") as again:
        assert again.path == run.path
    with pytest.raises(UserError, match="was begun with seed 5, not 6"):
        home(ReasoningDemo(seed=6, out=run.path), "demo")
    with home(ReasoningDemo(seed=6, out=run.path), "demo", free=("seed",)) as free:
        assert free.arguments["seed"] == 5


def test_a_model_with_a_template_and_one_without_are_told_apart(
    capsys, tmp_path, words, monkeypatch
):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    CausalLM(tiny_model(std=0.2), tiny_tokenizer()).save(tmp_path / "chatty")
    assert main(["chat", "--model", str(tmp_path / "chatty"), "--max-completion-length", "2"]) == 0
    assert "has no chat template" in refused("chat --chat --model MODEL", words, capsys)
