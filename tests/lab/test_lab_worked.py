"""The worked examples: golden numbers of Chan's series, and the claims of the closing sentence."""

from __future__ import annotations

import math

import pytest
import torch

from logpi.lab import unpacking, worked
from logpi.lab.report import ReportTable
from logpi.lab.worlds import double


@pytest.fixture(scope="module")
def tables() -> tuple[ReportTable, ...]:
    return worked.worked().tables


def column(table: ReportTable, name: str) -> list:
    return [row[table.columns.index(name)] for row in table.rows]


def test_the_trajectory_is_the_series_own(tables) -> None:
    *steps, total = tables[0].rows
    assert [r[3] for r in steps] == [-1, -1, -1, 5]
    assert [r[4] for r in steps] == [2, 3, 4, 5]
    expected = [g * math.log(p) for g, p in zip((2, 3, 4, 5), (0.4, 0.3, 0.5, 0.7), strict=True)]
    assert [r[8] for r in steps] == pytest.approx(expected)
    assert total[8] == pytest.approx(-10.0005, abs=5e-5)


@pytest.mark.parametrize("place", [6, 8])
def test_what_the_series_prints_is_rounded(tables, place: int) -> None:
    """Products are printed within 0.02 of what they are: 5 · −0.36 for 5 · −0.3567."""
    for row in tables[0].rows:
        if row[place] is not None:
            printed = float(str(row[place + 1]).replace("−", "-"))
            assert float(row[place]) == pytest.approx(printed, abs=0.02)


def test_the_surrogate_is_no_expected_return(tables) -> None:
    worked_policy, uniform, best, worst = tables[1].rows
    # the best and the worst certain policy have the same surrogate
    assert best[1] == pytest.approx(2.0, abs=1e-6) and worst[1] == pytest.approx(-4.0, abs=1e-6)
    assert best[2] == pytest.approx(0.0, abs=1e-6) and worst[2] == pytest.approx(0.0, abs=1e-6)
    for row in (worked_policy, uniform):
        assert row[4] == "< 1e−10"
        assert row[5] > 90


def test_uniform_is_worse_and_has_the_higher_surrogate(tables) -> None:
    better, worse = tables[1].rows[:2]
    assert better[1] > worse[1] and better[2] < worse[2]


def test_softmax_gradient(tables) -> None:
    good, bad = tables[2].rows
    p = math.e / (math.e + 1)
    assert good[1:3] == pytest.approx((p, 1 - p))
    assert good[4] == pytest.approx(-4 * (1 - p)) and good[6] == pytest.approx(4 * (1 - p))
    assert bad[4] == pytest.approx(4 * (1 - p))
    assert bad[7] < p < good[7]


def test_maya_s_group(tables) -> None:
    assert column(tables[3], "÷ std (G−1)") == ["+0.8660", "−0.8660", "+0.8660", "−0.8660"]
    assert column(tables[3], "÷ std (G)") == ["+1.0000", "−1.0000", "+1.0000", "−1.0000"]
    assert column(tables[3], "leave-one-out") == ["+0.6667", "−0.6667", "+0.6667", "−0.6667"]
    assert "every advantage is 0 and 0" in tables[3].note


def test_the_clip_picks_what_the_series_says(tables) -> None:
    assert column(tables[4], "picks") == column(tables[4], "printed")
    assert column(tables[4], "min") == pytest.approx([1.2, 0.5, -1.5, -0.8])
    assert column(tables[4], "gradient") == pytest.approx([0, 0.5, -1.5, 0])


def test_the_chain_by_hand(tables) -> None:
    lines = {row[1].split(" = ")[0].split(":")[0]: row[2:] for row in tables[5].rows}
    assert lines["δ"] == pytest.approx((0.5, -0.5, 1.0, 0.5))
    assert lines["Â⁽²⁾"] == pytest.approx((0.0, 0.5, 1.5, 0.5))
    assert lines["Â⁽³⁾"] == pytest.approx((1.0, 1.0, 1.5, 0.5))
    assert lines["Â⁽∞⁾"] == pytest.approx(lines["G − V(s)"])
    # ½·½ + ¼·0 + ⅛·1 + ⅛·1.5
    assert lines["GAE"][0] == pytest.approx(0.5625) or lines["GAE"][0] == pytest.approx(1.35625)


def test_the_average_is_gae_and_its_weights_are_one(tables) -> None:
    total = tables[6].rows[-1]
    td, weights, average, more, wide, whole = total[2:]
    assert weights == pytest.approx(1) and more == pytest.approx(1)
    ladder = tables[5].rows
    assert (average, wide) == pytest.approx((ladder[8][2], ladder[9][2]))
    assert (td, whole) == pytest.approx((ladder[2][2], ladder[10][2]))


def test_a_perfect_critic_s_error_is_the_advantage(tables) -> None:
    for _, _, delta, advantage, mean, _ in tables[7].rows:
        assert delta == pytest.approx(advantage, abs=1e-12)
        assert abs(delta) > 0.1 and mean == pytest.approx(0, abs=1e-12)


def test_slips_are_computed(tables) -> None:
    said = {row[0]: row[2] for row in tables[8].rows}
    assert said["from (2, 3) right to (3, 3)"].startswith("r = +4")
    assert said["from (2, 3) up"].startswith("(2, 3)")
    assert said["3 moves to the +5 net"].startswith("3:")
    assert said["10 moves to the +5 net"] == "−4"


def test_the_sentence_follows_the_tables(tables) -> None:
    """A ladder whose average is not GAE, and a gradient that is off, are said to be so."""
    from dataclasses import replace

    def changed(number: int, row: int, place: int, value: float | str) -> str:
        table = tables[number]
        rows = [list(r) for r in table.rows]
        rows[row][place] = value
        other = replace(table, rows=tuple(tuple(r) for r in rows))
        return worked._sentence([*tables[:number], other, *tables[number + 1 :]], -10.0005)

    assert "GAE is the λ-average" in worked._sentence(tables, -10.0005)
    assert "GAE is not the λ-average" in changed(5, 7, 2, 9.0)
    assert "samples held fixed is ∇J" in worked._sentence(tables, -10.0005)
    assert "samples held fixed is not ∇J" in changed(1, 0, 4, "3e-01")


def test_the_ladder_takes_any_trajectory_of_four_steps() -> None:
    with double():
        row = worked._batch([[0.0, 0.0, 0.0, 1.0]])
        lines = unpacking.ladder(row).rows
        torch.testing.assert_close(lines[7][2:], lines[8][2:])
