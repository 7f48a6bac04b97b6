"""DeepSeek-R1's chain on two ranks: every stage, once on disk."""

from __future__ import annotations

import json
from pathlib import Path

from logpi.cli import main
from tests.demos.test_r1 import home, words  # noqa: F401 (a fixture)
from tests.distributed.several import on_ranks


def chain(argv: list[str]) -> int:
    return main(argv)


def test_the_chain_on_two_ranks(home: Path, tmp_path: Path) -> None:  # noqa: F811
    argv = words(home, tmp_path / "chain")
    assert on_ranks(2, chain, argv) == [0, 0]
    report = json.loads((tmp_path / "chain" / "report.json").read_text())
    assert report
    assert on_ranks(2, chain, ["r1", "--resume", str(tmp_path / "chain")]) == [0, 0]
    for stage in ("zero", "cold-start", "reasoning", "sft", "final"):
        assert (tmp_path / "chain" / stage / "model" / "config.json").exists(), stage
