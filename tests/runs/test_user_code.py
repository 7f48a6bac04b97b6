"""Objects of the user's own files, by FILE.py:NAME."""

from __future__ import annotations

from pathlib import Path

import pytest

from logpi.errors import UserError
from logpi.runs.user_code import from_user_code


def test_an_object_of_a_file_and_of_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("VALUE = 3\n")
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\nfrom neighbour_of_mine import VALUE\n\n"
        "@dataclass\nclass Maze:\n    size: int = VALUE\n"
    )
    assert from_user_code(f"{tmp_path}/mine.py:Maze")().size == 3
    assert from_user_code(f"{tmp_path}/mine.py:Maze") is from_user_code(f"{tmp_path}/mine.py:Maze")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "Maze", "no such file"),
        ("Maze = 1\n", "Mase", "has no 'Mase'; did you mean Maze?"),
        ("1 / 0\n", "Maze", "cannot be run: ZeroDivisionError"),
        ("def (\n", "Maze", "cannot be run: SyntaxError"),
    ],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, text: str | None, name: str, message: str
) -> None:
    if text is not None:
        (tmp_path / "file.py").write_text(text)
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        from_user_code(f"{tmp_path}/file.py:{name}")
