"""The command line as a user meets it: help, the table, and one clear line for each mistake, before
work is lost."""

import errno
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import logpi
from logpi.cli import main
from logpi.commands import COMMANDS
from logpi.envs.tasks import Addition
from logpi.jobs.compute import Compute
from logpi.jobs.gym import Gym
from logpi.jobs.options.run import read
from logpi.jobs.options.saved import to_json
from logpi.jobs.prefer import Prefer
from logpi.jobs.rl import RL
from logpi.jobs.rl_parts import ROUNDING
from logpi.policies.causal_lm import CausalLM
from logpi.policies.small import small_policy
from logpi.runs.directory import Run
from logpi.runs.metrics import read_metrics
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    small_policy(Addition().alphabet, width=32, layers=2, heads=2, seed=1).save(path)
    return path


def said(capsys, *words: str) -> str:
    """The one line on stderr with which `logpi WORDS` ends, code 2."""
    capsys.readouterr()  # what was said before
    try:
        code = main(list(words))
    except SystemExit as leave:
        code = leave.code
    error = capsys.readouterr().err.strip().splitlines()
    assert code == 2, error
    lines = [x for x in error if not x.startswith(("Loading", "Writing"))]
    assert len(lines) == 1, error
    return lines[0]


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "lab"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as leave:
        main([command, "--help"])
    assert leave.value.code == 0
    shown = capsys.readouterr().out
    assert f"logpi {command}" in shown
    # no file of the package, and one default for an option
    own = {f.name for f in Path(logpi.__file__).parent.rglob("*.py")}
    assert not own & set(re.findall(r"[\w.]+\.py\b", shown))
    assert not re.search(r"default:[^()]*\)\s*\(default:", shown)


def test_the_table_and_a_description(capsys):
    assert main(["algorithms"]) == 0
    assert "GroupTokenMean" in capsys.readouterr().out
    assert main(["describe", "dapo", "--options", "high=0.3"]) == 0
    assert "clip(ρₜ, 1−0.2, 1+0.3)" in capsys.readouterr().out


def test_mistakes_that_need_no_model(capsys, tmp_path):
    assert "did you mean rl" in said(capsys, "rll")
    assert "did you mean dapo" in said(capsys, "describe", "daapo")
    assert "did you mean high" in said(capsys, "describe", "dapo", "--options", "hihg=1")
    assert "did you mean --algorithm" in said(capsys, "rl", "--algoritm", "grpo")
    assert "--model must be given" in said(capsys, "rl")
    assert "NAME=VALUE" in said(capsys, "describe", "dapo", "--options", "high")
    assert "there is no run at" in said(capsys, "rl", "--resume", str(tmp_path / "none"))
    assert "nothing else" in said(capsys, "rl", "--resume", "x", "--lr", "3")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--model", "MODEL", "--algorithm", "rloo", "--num-generations", "1"],
            "--num-generations must be at least 2, not 1",
        ),
        (["--model", "/no/such/model"], "/no/such/model"),
        (["--model", "MODEL", "--task", "no-such.jsonl"], "no-such.jsonl"),
        (["--model", "MODEL", "--task", "adition"], "addition"),
        (["--model", "MODEL", "--chat"], "has no chat template"),
        (["--model", "MODEL", "--algorithm", "sft"], "use `logpi sft`"),
        (["--model", "MODEL", "--rewards", "numbre"], "number"),
        (["--model", "MODEL", "--options", "kl_target=1", "beta=0"], "beta above 0"),
        (["--model", "MODEL", "--schedule", "cosin"], "cosine"),
        (["--model", "MODEL", "--steps", "many"], "many"),
        (["--model", "MODEL", "--prompts", "0"], "--prompts: must be at least 1, not 0"),
        (["--model", "MODEL", "--eval-items", "0"], "--eval-items: must be at least 1, not 0"),
        (["--model", "MODEL", "--eval-samples", "0"], "--eval-samples: must be at least 1, not 0"),
        (["--model", "MODEL", "--tool-timeout", "0"], "--tool-timeout: must be above 0, not 0"),
        (
            ["--model", "MODEL", "--tool-patience", "-1"],
            "--tool-patience: must be at least 0, not -1",
        ),
        (["--model", "MODEL", "--temperature", "0"], "--temperature: must be above 0, not 0"),
    ],
)
def test_mistakes_of_rl(capsys, model, tmp_path, words, expected):
    given = [str(model) if w == "MODEL" else w for w in words]
    assert expected in said(capsys, "rl", *given, "--out", str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_wrong_columns_name_the_row(capsys, model, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question_text": "1+1", "answer": "2"}\n')
    line = said(
        capsys, "rl", "--model", str(model), "--task", str(rows), "--out", str(tmp_path / "run")
    )
    assert "prompt" in line and "question_text" in line
    rows.write_text("".join(f'{{"prompt": "{i}+1"}}\n' for i in range(40)))
    line = said(
        capsys, "rl", "--model", str(model), "--task", str(rows), "--out", str(tmp_path / "run")
    )
    assert "answer" in line
    line = said(
        capsys, "sft", "--model", str(model), "--task", str(rows), "--out", str(tmp_path / "run")
    )
    assert "completion" in line


def test_a_run_eval_and_repeat(capsys, model, tmp_path):
    run = tmp_path / "run"
    arguments = [
        "--steps",
        "2",
        "--prompts",
        "2",
        "--num-generations",
        "2",
        "--max-completion-length",
        "4",
        "--eval-items",
        "4",
    ]
    assert (
        main(
            [
                "rl",
                "--model",
                str(model),
                "--out",
                str(run),
                "--options",
                "beta=0",
                *map(str, arguments),
            ]
        )
        == 0
    )
    assert (run / "model" / "model.safetensors").exists() and (run / "curves.png").exists()
    assert "already holds a run" in said(
        capsys, "rl", "--model", str(model), "--out", str(run), *arguments
    )
    assert (
        main(
            [
                "eval",
                "--model",
                str(run / "model"),
                "--items",
                "4",
                "--samples",
                "2",
                "--json",
                "--max-completion-length=4",
                "--out",
                str(tmp_path / "eval"),
            ]
        )
        == 0
    )
    assert "pass@2" in json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert main(["repeat", str(run), "--out", str(tmp_path / "again")]) == 0
    one, two = ((p / "model" / "model.safetensors").read_bytes() for p in (run, tmp_path / "again"))
    assert one == two


def test_chat_answers_from_a_pipe(model):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "logpi",
            "chat",
            "--model",
            str(model),
            "--max-completion-length",
            "4",
        ],
        input="12+13=\n\n/reset\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) >= 1, done.stderr


def test_chat_takes_bytes_that_are_no_text(model):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "logpi",
            "chat",
            "--model",
            str(model),
            "--max-completion-length",
            "4",
        ],
        input=b"12\xff+13=\n12+13=\n",
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stdout.count(b"\n") == 1, done.stderr
    # this vocabulary lacks the character that stands for them
    assert "lacks '\ufffd'" in done.stderr.decode()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FloatingPointError("the weights have diverged"), "lower learning rate"),
        (
            ModuleNotFoundError("No module named 'gymnasium'", name="gymnasium"),
            "[control]'",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x/results.json"),
            "No space left on device: runs/x/results.json",
        ),
    ],
)
def test_what_the_machine_or_the_weights_do_is_one_line(error, says, capsys, monkeypatch):
    from logpi.commands import algorithms as table

    def fails(argv):
        raise error

    monkeypatch.setattr(table, "main", fails)
    assert main(["algorithms"]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said and says in said


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EINVAL, "Invalid argument"), ModuleNotFoundError("no", name="logpi.nothing")],
)
def test_what_is_no_users_business_keeps_its_traceback(error, monkeypatch):
    from logpi.commands import algorithms as table

    def fails(argv):
        raise error

    monkeypatch.setattr(table, "main", fails)
    with pytest.raises(type(error)):
        main(["algorithms"])


def test_every_extra_is_one_of_the_projects():
    import tomllib
    from pathlib import Path

    from logpi.cli import EXTRAS

    extras = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())[
        "project"
    ]["optional-dependencies"]
    for package, extra in EXTRAS.items():
        assert any(wanted.startswith(package) for wanted in extras[extra]), package


def test_out_of_memory_is_one_line(capsys, monkeypatch, model, tmp_path):
    from logpi.policies.causal_lm import CausalLM

    def starve(*_, **__):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] not enough memory: you tried to allocate 9 bytes"
        )

    monkeypatch.setattr(CausalLM, "hidden", starve)
    try:
        code = main(["rl", "--model", str(model), "--out", str(tmp_path / "run"), "--steps", "1"])
    except SystemExit as leave:
        code = leave.code
    assert code == 2 and "out of memory" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        ["sft", "--task", "addition", "--steps", "0"],
        ["sft", "--task", "addition", "--save-every", "0"],
        ["prefer", "--data", "x.jsonl", "--save-every", "0"],
        ["reward-model", "--data", "x.jsonl", "--pairs", "0"],
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_read(capsys, words):
    assert said(capsys, *words, "--model", "m").startswith(
        f"logpi {words[0]}: {words[-2]}: must be at least 1, not 0"
    )


@pytest.mark.parametrize(
    "made",
    [
        RL(
            model="m",
            stop=("a b", "</x>", "--out=x"),
            options={"beta": 0, "low": -1},
            temperature=0.5,
            chat=False,
        ),
        Compute(model="m", beams=(), samples=4),  # emptied, where the default is not empty
        Gym(options={"lr": 1e-3}, steps=100),
        Prefer(model="m", data="d.jsonl"),
    ],
    ids=lambda a: type(a).__name__,
)
def test_a_run_s_arguments_are_repeated_as_they_were(made, tmp_path):
    """Not as words of a command line, where a list's item may look like an option."""
    command = {RL: "rl", Compute: "compute", Gym: "gym", Prefer: "prefer"}[type(made)]
    Run.create(tmp_path / "run", command, to_json(made)).close()
    again = read(type(made), ["--repeat", str(tmp_path / "run"), "--out", "other"], command, "")
    assert again == replace(made, out=Path("other"))


def test_sixteen_bit_weights_learn_with_their_mismatch_weighed(capsys, tmp_path):
    """The decoder's log-probabilities are further from the learner's than float32's tolerance
    allows: it used to end there."""
    CausalLM(tiny_model(std=0.2), tiny_tokenizer(chat_template=None)).save(tmp_path / "model")
    words = [
        "--model",
        str(tmp_path / "model"),
        "--dtype",
        "bfloat16",
        "--rewards",
        "soft_overlong(24, cache=24)",
        "--steps",
        "2",
        "--prompts",
        "4",
        "--num-generations",
        "4",
        "--max-completion-length",
        "24",
        "--eval-items",
        "2",
        "--lr",
        "1e-3",
    ]
    assert main(["rl", *words, "--options", "beta=0", "--out", str(tmp_path / "run")]) == 0
    assert "min(π_old/π_sampler, 2)" in capsys.readouterr().err
    learned = [r for r in read_metrics(tmp_path / "run") if "gap_sampler/max" in r]
    assert len(learned) == 2 and all(
        r["gap_sampler/max"] > 0.01 and r["gap_old/mean"] < ROUNDING for r in learned
    )
