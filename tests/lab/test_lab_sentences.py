"""Closing sentences: the claims are read off the tables, at the least and the largest option."""

from __future__ import annotations

import pytest

from logpi.lab import bias, variance
from logpi.lab.report import ReportTable
from logpi.lab.worlds import double, standard


@pytest.fixture(scope="module")
def by_m() -> ReportTable:
    with double():
        return bias._by_group_size()


@pytest.mark.parametrize(("m", "turns"), [(2, False), (6, True)])
def test_bias_says_what_turns_at_its_own_m(by_m: ReportTable, m: int, turns: bool) -> None:
    """With binary rewards and M = 2 GRPO without lengths is a scaled policy gradient."""
    with double():
        alone = bias._alone(standard(), m)
    said = bias.sentence(alone, by_m, m)
    turned = said.split("turn it: ")[1].split(". ")[0].split(", ")
    assert ("grpo_r1" in turned) is turns
    assert {"grpo", "dapo", "reinforce γ=.9"} <= set(turned)
    assert not {"rloo", "dr_grpo", "reinforce", "orz, wrong V"} & set(turned)
    assert f"({(m - 1) / m:.4g} at M = {m})" in said
    assert "baselines do not change" in said
    assert "binary rewards from M = 4 on, with real ones from M = 2" in said


def test_bias_takes_back_a_claim_that_does_not_hold(by_m: ReportTable) -> None:
    rows = (
        ("rloo", "−∇J", "", 0.0, 0.0, 0.9, bias.TURNED),
        ("dr_grpo", "", "", 0.0, 0.0, 0.5, "a scaled policy gradient"),
    )
    said = bias.sentence(ReportTable("", (), rows), by_m, 3)
    assert "baselines change the policy gradient" in said and "turn it: rloo." in said


def test_discounted_return_is_off_and_cheaper() -> None:
    with double():
        rows = variance._discounted(standard()).rows
    for k, error in ((1, 2), (4, 5)):
        squares, variances = [r[k] for r in rows], [r[error] for r in rows]
        # γ = .5 … 1
        assert squares == sorted(squares, reverse=True) and squares[-1] < 1e-20
        assert variances == sorted(variances)


def test_variance_reads_its_claims() -> None:
    def said(verdict: str = "same", bias_of: float = 0.0, span: str = "−0.20 … +0.70") -> str:
        names = ["none", "J", "constant", "p(x)", variance.VALUE, "best"]
        numbers = (4.0, 3.0, 2.0, 1.6, 1.2, 1.0)
        rows = [(n, v, 0.0, 0.0, "same") for n, v in zip(names, numbers, strict=True)]
        rows[-1] = (*rows[-1][:4], verdict)
        tables = (
            rows,
            [("rloo", "", "0 … +0.50", ""), ("ppo", "", span, "")],
            [(0.0, bias_of, 0.5, 0.0, 0.1), (1.0, 0.0, 0.75, 0.0, 0.0)],
        )
        return variance.sentence(*(ReportTable("", (), tuple(t)) for t in tables))

    whole = said()
    assert "no signal" in whole and "50%" in whole and "V(s) 30%" in whole and "one 25%" in whole
    assert "from 0.7500 to 0.5000 without bias" in whole and "biased there" in whole
    assert whole.endswith("negative advantage: ppo.")
    assert "some signal" in said(verdict="other")
    assert "with bias" in said(bias_of=0.1)
    assert said(span="0 … +0.70").endswith("advantage: none.")
