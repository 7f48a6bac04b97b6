"""The script of `logpi completion`, as a shell uses it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from logpi.cli import main
from logpi.commands import COMMANDS
from logpi.commands.completion import SHELLS


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from contextlib import redirect_stdout

    path = tmp_path_factory.mktemp("completion") / "logpi.bash"
    with path.open("w") as file, redirect_stdout(file):
        assert main(["completion", "bash"]) == 0
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("logpi reward-m", ["reward-model"]),
        ("logpi rl --alg", ["--algorithm"]),
        ("logpi rl --algorithm dapo_f", ["dapo_forking"]),
        ("logpi rl --hi", ["--high"]),
        ("logpi gym --n-st", ["--n-steps"]),
        ("logpi rl --schedule cos", ["cosine"]),
        ("logpi lab vari", ["variance"]),
        ("logpi lab bias --resp", ["--responses"]),
        ("logpi sft --no-ch", ["--no-chat"]),
    ],
)
def test_bash_offers_what_can_stand_there(script: Path, line: str, offered: list[str]) -> None:
    words = line.split()
    code = f"""
source {script}
COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}
_shtab_logpi logpi {words[-1]} {words[-2]}
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "reward-model" in capsys.readouterr().out


def test_the_table_says_where_each_command_s_options_are() -> None:
    assert all(entry.declaration() for entry in COMMANDS.values())
