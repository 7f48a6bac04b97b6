"""`logpi preferences-demo`, shortened: all lanes, and what it prints."""

from __future__ import annotations

import pytest

from logpi.demos import preferences
from logpi.demos.preferences import gold
from logpi.runs.metrics import read_metrics

SHORT = "--sft-steps 2 --reward-steps 2 --ppo-steps 2 --dpo-steps 2 --pairs 64".split()


@pytest.mark.parametrize(
    ("prompt", "response", "value"),
    [("b:", "aeiaeiae", 1.0), ("b:", "aaaaaaaa", 1 / 8), ("a:", "aaaaaaaa", 0.0), ("b:", "", 0.0)],
)
def test_the_rule(prompt, response, value):
    """Repeating the best letter is worth next to nothing."""
    assert gold(prompt, response) == value


def test_every_lane_is_trained_and_shown(tmp_path, capsys):
    out = tmp_path / "demo"
    assert preferences.main(["--out", str(out), *SHORT]) == 0
    shown = capsys.readouterr().out
    for lane in ("SFT ", "→ reward model → PPO", "→ the same without KL", "→ DPO"):
        # one line of numbers, one of answers
        assert shown.count(f"\n{lane}") == 1 and shown.count(f"\n  {lane}") == 1
    assert shown.count("  step   1  proxy") == shown.count("  step   2  proxy") == 2
    assert (out / "hacking.png").read_bytes().startswith(b"\x89PNG")
    with_kl, without = (read_metrics(out / name) for name in ("ppo", preferences.FREE))
    assert any("kl_sequence" in r for r in with_kl)
    assert not any("kl_sequence" in r for r in without)
