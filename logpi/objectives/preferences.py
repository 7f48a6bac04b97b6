"""Preferences as objectives: which of a prompt's responses is better, whether a response is good,
and the scores of a reward model.

A pair is two rows of one `group`; its winner is the row with the larger reward (chosen 1, rejected
0). With more rows, or rewards of another kind, the best rows of a group are compared with its worst
(`ops.comparison.sides`), so the same objectives also learn online, from a policy's own samples.

    minimise  Σ_pairs w [ λ ℓ(s(y⁺) − s(y⁻)) − α log π(y⁺)/|y⁺| ]

A method is a score s, a loss ℓ and α. Sums are over the rows of a group, in any order. Left out:
where pairs come from (`rollouts/preference_pairs.py`), the reward model's network
(`policies/reward_model.py`), and the names of the methods (`algorithms`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from logpi.ops.comparison import (
    Logistic,
    LogLikelihood,
    LogRatio,
    Margin,
    ResponseScore,
    of_row,
    sides,
)
from logpi.ops.groups import by_group, group_count, group_sum, total_reward
from logpi.ops.time import own
from logpi.types import Batch, Comparison, Data, Explanation, Objective, PolicyOutput

__all__ = ["KahnemanTversky", "Preference", "BradleyTerry"]


class _Compared(Objective):
    """What the objectives of this file share: the rows of a group are scored together, and every
    group counts the same."""

    whole_groups = True

    @property
    def learns_from(self) -> Data:
        return Data.PAIRS | Data.SAMPLES

    @property
    def min_group(self) -> int:
        return 2

    def weight(self, mask: Tensor, group: Tensor) -> Tensor:
        """[B, T] 1 / (groups of the optimiser batch)."""
        return mask.to(torch.float32) / group_count(mask, group)

    def idle(self, batch: Batch, targets: Comparison) -> Tensor:
        """[B] bool, rows on no side."""
        return (targets.side == 0) | ~batch.mask.any(1)


def _reference(who: object, batch: Batch, ref: PolicyOutput | None, recorded: bool) -> Tensor:
    """[B, T] log π_ref of the own actions. Raises ValueError if there is none."""
    if ref is None and not recorded:
        raise ValueError(f"{who} needs a reference policy: give the learner one, or recorded=True")
    logp = batch.logp if ref is None or recorded else ref.logp
    return own(logp.detach(), batch.mask)


def _pairs(
    batch: Batch, side: Tensor, weight: Tensor, score: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row its share [B] of its pair's weight; of each group the weight [P] and the margin
    s(y⁺) − s(y⁻) [P].

    Raises:
        ValueError: a comparison has lost a side, so its margin would be one response's score.
    """
    if bool((by_group(side, batch.group).abs() > 1e-3).any()):
        raise ValueError(
            "rows of one comparison were parted: minibatches must be at most as many as the groups"
            " of a batch"
        )
    share = side.abs() / 2 * of_row(weight.to(score.dtype), batch.mask)
    return share, by_group(share, batch.group), by_group(side * score, batch.group)


@dataclass(frozen=True)
class Preference(_Compared):
    """The better response of a prompt against the worse one (this module's first lines).

    Attributes:
        score: what of a response is compared. margin: the loss of the difference.
        coef: λ ≥ 0, of that loss. sft: α ≥ 0, of the winner's mean negative log-likelihood (RPO,
            arXiv:2404.19733).
        recorded: the batch's `logp` are the reference's, so no reference model is needed.

    Divergence: with `sft` tokens are averaged over each
    winner, as RPO and ORPO write; TRL averages over all winners' tokens of a micro-batch.
    """

    score: ResponseScore = LogRatio()
    margin: Margin = Logistic()
    coef: float = 1.0
    sft: float = 0.0
    recorded: bool = False

    @property
    def needs_reference(self) -> bool:
        return self.score.reference and not self.recorded

    def prepare(self, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None) -> Comparison:
        """Sides and the reference's log-probabilities.

        Raises:
            ValueError: a score that reads a reference, and none given.
        """
        if not self.score.reference:
            return Comparison(own(now.logp.detach(), batch.mask), None, sides(batch))
        logp_ref = _reference(self.score, batch, ref, self.recorded)
        logp_old = logp_ref if self.recorded else own(now.logp.detach(), batch.mask)
        return Comparison(logp_old, logp_ref, sides(batch))

    def loss(
        self, batch: Batch, targets: Comparison, weight: Tensor, now: PolicyOutput
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Σ over pairs of weight · (λ ℓ(h) + α NLL of the winner), and implicit rewards.

        Raises:
            ValueError: a group is not whole.
        """
        mask, side, logp = batch.mask, targets.side, own(now.logp, batch.mask)
        score = self.score(logp, targets.logp_ref, mask)
        share, pair, h = _pairs(batch, side, weight, score)
        chosen, rejected = 2 * share * (side > 0), 2 * share * (side < 0)
        loss = self.coef * (pair * self.margin(h)).sum()
        if self.sft:
            loss = loss - self.sft * (chosen * LogLikelihood()(logp, None, mask)).sum()
        reward, gap = self.margin.scale * score.detach(), h.detach()
        total = logp.detach().sum(1)
        # TRL's names, as means over the pairs of the optimiser batch
        return loss, {
            "+rewards/chosen": (chosen * reward).sum(),
            "+rewards/rejected": (rejected * reward).sum(),
            "+rewards/margins": self.margin.scale * (pair * gap).sum(),
            "+rewards/accuracies": (pair * (gap > 0)).sum(),
            "+logps/chosen": (chosen * total).sum(),
            "+logps/rejected": (rejected * total).sum(),
        }

    def explain(self) -> Explanation:
        term = "ℓ(s(y⁺) − s(y⁻))" if self.coef == 1 else f"{self.coef:g} ℓ(s(y⁺) − s(y⁻))"
        if self.sft:
            term = f"[ {term} − {self.sft:g} log π(y⁺)/|y⁺| ]"
        parts = {
            "advantage": "best − worst",
            "ratio": self.score,
            "surrogate": self.margin,
            "KL": "in the score" if self.score.reference else None,
            "weight": "1 / groups",
        }
        where = [self.score.equation, self.margin.equation, "w = 1 / (groups of the batch)"]
        if self.recorded:
            where.append("log π_ref as recorded in the batch, computed once for the data set")
        return Explanation(
            f"minimise  Σ w {term}", tuple(where), parts, (self.score.source, self.margin.source)
        )


@dataclass(frozen=True)
class KahnemanTversky(_Compared):
    """Single responses called good or bad (KTO, arXiv:2402.01306, eqs. 7 and 8).

        minimise  Σ w λ_y (1 − σ(±β (r(y) − z₀))),   r = Σₜ log π/π_ref,   + for good, − for bad
        z₀ = max(0, mean of r over responses to other prompts), constant

    A row is good if its reward is above 0, bad if below. Rows with reward 0 are the mismatched
    responses from which z₀ is estimated, before the update; without any, z₀ = 0. Each group counts
    the same and has one labelled row.

    `sampled` rows are the policy's own. They are good above their group's mean reward and bad below
    it, and each counts 1/n of its group's n rows. Their mean r estimates KL(π ‖ π_ref), which is
    what z₀ stands for, so no mismatched responses are needed.

    Attributes:
        beta: β > 0. desirable, undesirable: λ of good and bad rows. recorded: as in `Preference`.
        sampled: rows come in groups of samples from the policy (online).

    Divergence: TRL estimates z₀ again in each micro-batch; here once for each batch, so splits do
    not change the gradient.
    """

    beta: float = 0.1
    desirable: float = 1.0
    undesirable: float = 1.0
    recorded: bool = False
    sampled: bool = False
    needs_policy = True
    whole_groups = False

    @property
    def learns_from(self) -> Data:
        return Data.LABELS | Data.SAMPLES

    @property
    def min_group(self) -> int:
        return 2 if self.sampled else 1

    @property
    def needs_reference(self) -> bool:
        return not self.recorded

    def prepare(self, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None) -> Comparison:
        """Labels, reference log-probabilities and z₀. Raises ValueError
        without a reference."""
        mask = batch.mask
        logp_ref = _reference("KTO", batch, ref, self.recorded)
        logp = own(now.logp.detach(), mask)
        label = self._labels(total_reward(batch), mask.any(1), batch.group)
        unbiased = mask.any(1) if self.sampled else (label == 0) & mask.any(1)
        ratio = (logp - logp_ref).sum(1)[unbiased]
        z0 = ratio.mean().clamp(min=0) if len(ratio) else logp.new_zeros(())
        return Comparison(logp, logp_ref, label, reference_point=z0.expand(len(batch)))

    def _labels(self, reward: Tensor, alive: Tensor, group: Tensor) -> Tensor:
        """[B] above 0 for good rows and below for bad ones; its size is the row's share of its
        group."""
        if not self.sampled:
            return reward.sign()
        count = group_sum(alive.to(reward.dtype), group).clamp(min=1)
        mean = group_sum(reward * alive, group) / count
        return torch.where(alive, (reward - mean).sign() / count, 0.0)

    def loss(
        self, batch: Batch, targets: Comparison, weight: Tensor, now: PolicyOutput
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Σ weight · λ (1 − σ(label β (r − z₀))) over the rows, and implicit rewards."""
        mask = batch.mask
        share, z0 = targets.side, targets.reference_point
        assert z0 is not None
        ratio = LogRatio()(own(now.logp, mask), targets.logp_ref, mask)
        label, w = share.sign(), of_row(weight.to(ratio.dtype), mask) * share.abs()
        scale = torch.where(label > 0, self.desirable, self.undesirable)
        loss = (w * scale * torch.sigmoid(-label * self.beta * (ratio - z0))).sum()
        reward = self.beta * ratio.detach()
        right = torch.where(label > 0, reward > self.beta * z0, reward < self.beta * z0)
        return loss, {
            "+rewards/signed": (w * label * reward).sum(),
            "+rewards/accuracies": (w * right).sum(),
            "kto/z0": z0.amax(),
            "+kto/desirable": (w * (label > 0)).sum(),
        }

    def explain(self) -> Explanation:
        parts = {
            "advantage": "±1, the label",
            "ratio": LogRatio(),
            "surrogate": "1 − σ(±β(r − z₀))",
            "KL": "in the score",
            "weight": "1 / groups",
        }
        of = "the samples" if self.sampled else "mismatched responses"
        where = (
            "r(y) = Σₜ log π(yₜ)/π_ref(yₜ)",
            f"z₀ = max(0, mean r of {of}), constant",
            f"β = {self.beta:g}, λ = {self.desirable:g} if good, {self.undesirable:g} if bad",
        )
        sources = ("KTO, arXiv:2402.01306, eqs. 7 and 8",)
        return Explanation("minimise  Σ w λ (1 − σ(±β (r(y) − z₀)))", where, parts, sources)


@dataclass(frozen=True)
class BradleyTerry(_Compared):
    """Bradley–Terry: the chosen response's score should be the larger (arXiv:2203.02155, eq. 1).

        minimise  Σ w [ −log σ(r⁺ − r⁻ − m) + c (r⁺ + r⁻)² ]

    r is `PolicyOutput.value` in the state after the last own action, so rows are given as not
    terminated.

    Attributes:
        margin: m is the difference of the recorded rewards less 1 (chosen 1 + m, rejected 0; Llama
            2,
            arXiv:2307.09288, eq. 2); False: m = 0.
        centre: c ≥ 0, pulls the scores of a pair to a mean of 0 (arXiv:2312.09244); TRL's
            center_rewards_coefficient.
    """

    margin: bool = False
    centre: float = 0.0
    scores_actions = False

    @property
    def learns_from(self) -> Data:
        return Data.PAIRS

    def prepare(self, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None) -> Comparison:
        """Sides and margins."""
        side = sides(batch)
        gap = group_sum(side * total_reward(batch), batch.group) - 1.0
        blank = torch.zeros_like(own(now.logp, batch.mask))
        return Comparison(blank, None, side, margin=gap if self.margin else torch.zeros_like(gap))

    def loss(
        self, batch: Batch, targets: Comparison, weight: Tensor, now: PolicyOutput
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Σ over pairs, and the scores. Raises ValueError without values, or if a group is not
        whole."""
        if now.value is None or targets.margin is None:
            raise ValueError("reward modelling needs a policy that gives values: a RewardModel")
        mask = batch.mask
        last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1)
        side = targets.side
        score = torch.where(side != 0, now.value.gather(1, last[:, None]).squeeze(1), 0.0)
        share, pair, h = _pairs(batch, side, weight, score)
        m = by_group(side.abs() / 2 * targets.margin, batch.group)
        loss = -(pair * logsigmoid(h - m)).sum()
        if self.centre:
            total = by_group(side.abs() * score, batch.group)
            loss = loss + self.centre * (pair * total**2).sum()
        gap, reward = h.detach(), score.detach()
        return loss, {
            "+accuracy": (pair * (gap > 0)).sum(),
            "+margin": (pair * gap).sum(),
            "+mean_reward": (share * reward).sum(),
            "reward/min": reward.amin(),
            "reward/max": reward.amax(),
        }

    def explain(self) -> Explanation:
        parts = {
            "advantage": "best − worst",
            "ratio": None,
            "surrogate": self,
            "KL": None,
            "weight": "1 / groups",
        }
        term = "−log σ(r(y⁺) − r(y⁻)" + (" − m)" if self.margin else ")")
        if self.centre:
            term = f"[ {term} + {self.centre:g} (r(y⁺) + r(y⁻))² ]"
        where = ("r(y) = the score in the response's last state", "w = 1 / (groups of the batch)")
        sources = ("Bradley and Terry (1952); InstructGPT, arXiv:2203.02155, eq. 1",)
        return Explanation(f"minimise  Σ w {term}", where, parts, sources)
