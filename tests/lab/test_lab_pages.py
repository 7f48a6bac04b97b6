"""The command line, the reports, the pages made of them, and the worked example of `check`."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import shlex
import unicodedata
from pathlib import Path

import pytest
import torch

from logpi import algorithm
from logpi.commands.lab import COMMANDS, main
from logpi.errors import UserError
from logpi.lab import check
from logpi.lab.report import Report, ReportTable
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import Advantage, RewardToGo
from logpi.ops.weights import SequenceSum
from logpi.runs.plots import Panel, figure

ROOT = Path(__file__).parents[2]
FAST = ("kl", "clip", "length", "bellman", "preferences", "step-values", "weights", "worked")
SLOW = ("bias", "variance", "trust-region", "ladder")


def columns(line: str) -> int:
    """Of a terminal: accents that combine take none."""
    return sum(not unicodedata.combining(c) for c in line)


def _docs():
    spec = importlib.util.spec_from_file_location("lab_docs", ROOT / "scripts" / "lab_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    [
        *FAST,
        *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW),
    ],
)
def test_pages_are_what_the_command_prints(name, tmp_path):
    docs = _docs()
    made = docs.report(name)
    there = (ROOT / "docs" / "lab" / f"{name}.md").read_text(encoding="utf-8")
    assert docs.page(name, made) == there, "run: python scripts/lab_docs.py"
    assert max(map(columns, made.text().splitlines())) <= 100
    assert made.shown in (ROOT / "docs" / "lab" / "README.md").read_text(encoding="utf-8")
    assert made.picture(tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads(made.json())["tables"]) == len(made.tables)


def test_step_values_are_the_same_on_two_threads():
    """Its model was trained once, so only sums in another order could change a digit."""
    docs = _docs()
    torch.set_num_threads(2)
    text = docs.report("step-values").text()
    assert text in (ROOT / "docs" / "lab" / "step-values.md").read_text(encoding="utf-8")


def test_the_command_on_a_page_is_what_one_types():
    docs = _docs()
    assert docs.command_line("clip") == "$ logpi lab clip"
    lines = docs.command_line("step-values", most=60).splitlines()
    assert all(len(line) <= 60 for line in lines)
    typed = shlex.split(" ".join(line.removesuffix("\\") for line in lines))
    options = {k.replace("_", "-"): str(v) for k, v in docs.ARGUMENTS["step-values"].items()}
    assert typed[:4] == ["$", "logpi", "lab", "step-values"]
    assert typed[4:] == [word for k, v in options.items() for word in (f"--{k}", v)]


def test_every_command_has_a_page():
    assert {p.stem for p in (ROOT / "docs" / "lab").glob("*.md")} == {
        *COMMANDS,
        "README",
        "your_own",
    }


def _example() -> list[tuple[str, str]]:
    """(code, what the page says it prints) of each block in turn."""
    text = (ROOT / "docs" / "lab" / "your_own.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)


def test_worked_example_runs_and_prints_what_the_page_says():
    space: dict = {"__name__": "example"}
    blocks = _example()
    assert len(blocks) == 4
    for code, expected in blocks:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "your_own.md", "exec", dont_inherit=True), space)
        assert out.getvalue().strip() == expected.strip()
    assert not space["wrong"].unbiased
    assert not space["padded"].unbiased
    assert space["right"].unbiased


class PositionBaseline(Advantage):
    """Reads the row's position in the batch, which a rollout may permute."""

    group, equation, source = 1, "", ""

    def __call__(self, batch, value=None):
        out = RewardToGo()(batch)
        out[0] = 0
        return out


def test_check_refuses_an_objective_that_reads_the_order_of_rows():
    with pytest.raises(AssertionError, match="order"):
        check(PolicyGradient(PositionBaseline(), weight=SequenceSum()), responses=(2,))


def test_check_tells_the_theorem_from_its_imitations():
    assert check(algorithm("rloo").objective, responses=(2, 3)).verdict == "the policy gradient"
    assert (
        check(algorithm("dr_grpo").objective, responses=(2, 3)).verdict
        == "a scaled policy gradient"
    )
    grpo = check(algorithm("grpo", beta=0).objective, responses=(2, 4))
    assert not grpo.unbiased
    assert 0.9 < grpo.cosine < 0.999


def test_json_and_picture_of_the_command(capsys, tmp_path):
    picture = tmp_path / "new" / "clip.png"
    assert main(["clip", "--json", "--picture", str(picture)]) == 0
    assert json.loads(capsys.readouterr().out)["command"] == "clip"
    assert picture.stat().st_size > 1000


def test_overview_names_every_command(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize(
    ("argv", "says"), [(["bais"], "did you mean bias"), (["steps"], "step-values")]
)
def test_unknown_command_is_one_line(argv, says):
    with pytest.raises(UserError, match=says):
        main(argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["bias", "--responses", "9"],
        ["bellman", "--slip", "2"],
        ["ladder", "--runs", "1"],
        ["step-values", "--model", "x"],
    ],
)
def test_wrong_options_are_one_line(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_picture_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    report = Report("x", "?", (), ".", lambda: figure([Panel()]))
    with pytest.raises(UserError, match="cannot write"):
        report.picture(tmp_path / "file" / "x.png")


def test_tables_align_and_show_nothing_as_a_dash():
    table = ReportTable(
        "t", ("name", "x"), (("a", -0.0001), ("bb", None), ("c", float("inf"))), ("", ".2f")
    )
    lines = table.text().splitlines()
    assert lines[4:] == ["a     0.00", "bb       –", "c        ∞"]
    assert table.json()["rows"][2] == {"name": "c", "x": None}
