"""A stranger's run gives its policy only when it is trusted, if its arguments name code."""

from __future__ import annotations

from pathlib import Path

import pytest

import logpi
from logpi.errors import UserError
from logpi.runs.directory import Run


def test_a_strangers_environment_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "mine"))
    ran = tmp_path / "ran"
    (tmp_path / "maze.py").write_text(f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n")
    arguments = {"env": f"{tmp_path}/maze.py:Maze", "env_options": {}}
    with Run.create(tmp_path / "run", "gym", arguments) as run:
        run.save_model(lambda path: (path / "config.json").write_text("{}"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "theirs"))
    view = logpi.open_run(tmp_path / "run")
    assert view.command == "gym" and len(view.metrics) == 0
    with pytest.raises(UserError, match="its arguments run code"):
        view.policy()
    assert not ran.exists()
    with pytest.raises(UserError, match="maze.py has no 'Maze'"):
        logpi.open_run(tmp_path / "run", trust=True).policy()
    assert ran.exists()
