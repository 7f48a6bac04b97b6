"""Modules by the path of their file or directory, and never another of the same name.

Run: python -m pytest -q tests/envs/packages/test_importing.py
"""

from __future__ import annotations

import importlib
import sys

import pytest

from logpi.envs.packages.importing import importable


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_files_and_directories(place):
    (place / "logpi_one.py").write_text("x = 1")
    for name in ("logpi_two", "logpi_three"):
        (place / name).mkdir()
    (place / "logpi_two/__init__.py").write_text("")
    names = ("logpi_one.py", "logpi_two", "logpi_three/")
    stems = [importable(f"{place}/{name}") for name in names]
    assert stems == ["logpi_one", "logpi_two", "logpi_three"]
    assert importlib.import_module("logpi_one").x == 1
    assert importable("some.package") == "some.package"


def test_another_module_of_the_same_name_is_not_taken_for_it(place):
    (place / "json.py").write_text("x = 1")
    with pytest.raises(ValueError, match=r"json.py cannot be imported as 'json': .*json/__init__"):
        importable(f"{place}/json.py")
    (place / "v1.2").mkdir()
    with pytest.raises(ValueError, match="its name is no module's; rename it"):
        importable(f"{place}/v1.2")
