"""The newer rows of THE TABLE: variations of GRPO and DAPO, each one part away from an older row.

`table.py` names all rows and says how one is written. `logpi lab bias` says of each whether its
expected step is the policy gradient; where it is another, the row says what it climbs. Left out:
IcePop and sequence-level masked importance sampling, which are corrections of any row
(`ops/corrections.py`).
"""

from __future__ import annotations

from dataclasses import replace

from logpi.algorithms.composition import Algorithm, kl_in_loss
from logpi.algorithms.group_rows import dapo
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import GroupCenter, GroupNorm, TotalReward
from logpi.ops.gates import BinaryTV, SoftGate
from logpi.ops.group_advantages import BatchScale, LengthBaseline, MaxAtK, MeanScale, PassAtK
from logpi.ops.ratios import GeometricMeanRatio
from logpi.ops.selection import DropUniform
from logpi.ops.surrogates import Clip, ScoreFunction, Unclipped
from logpi.ops.weights import FixedLength, SequenceMean, SequenceSum, TokenMean

__all__ = [
    "dapo_forking",
    "dppo",
    "gmpo",
    "lite_ppo",
    "maxrl",
    "opo",
    "pass_at_k",
    "pkpo",
    "reinforce_rej",
    "sapo",
]


# --- other trust regions ---


def sapo(tau_pos: float = 1.0, tau_neg: float = 1.05) -> Algorithm:
    """SAPO (soft adaptive policy optimisation, arXiv:2511.20347): GRPO with a sigmoid gate in place
    of the clip, and no KL.

    - [surrogate] In a step at the sampling policy it is GRPO exactly, whatever the temperatures.
    """
    surrogate = SoftGate(tau_pos, tau_neg)
    return Algorithm(PolicyGradient(GroupNorm(), surrogate=surrogate, weight=SequenceMean()))


def gmpo(low: float = 0.4, high: float | None = None) -> Algorithm:
    """GMPO (geometric-mean policy optimisation, arXiv:2507.20673): the geometric mean of clipped
    token ratios in place of their mean.

    - [kl] verl's example adds k3 in the loss at 0.001 (kl="KL(0.001, k3, loss)").
    """
    ratio = GeometricMeanRatio(low, high)
    return Algorithm(PolicyGradient(GroupNorm(), ratio, Unclipped(), SequenceMean()))


def dppo(
    low: float = 0.15, high: float | None = None, max_completion_length: int = 512
) -> Algorithm:
    """DPPO (divergence proximal policy optimisation, arXiv:2602.04879): a token is left out once
    its probability, not its ratio, has moved too far.

    - [surrogate] The binary total variation; surrogate="BinaryKL(0.05)" is its other form. The
      paper's divergences of the top k tokens need whole distributions and are left out.
    - [surrogate] The paper measures from the sampler's probabilities; here from the learner's own
      before the update, which are the same with logpi's engine.
    - [advantage, weight] As in its code: no spread of the group, and a fixed length.
    """
    return Algorithm(
        PolicyGradient(
            GroupCenter(),
            surrogate=BinaryTV(low, high),
            weight=FixedLength(max_completion_length),
        )
    )


def dapo_forking(low: float = 0.2, high: float = 0.28, top_entropy: float = 0.2) -> Algorithm:
    """DAPO on forking tokens (the 80/20 rule, arXiv:2506.01939): only the fifth of the tokens at
    which the policy is least sure learns.

    - [top_entropy] The threshold is of the whole batch; TRL's is of each micro-batch on all ranks.
      The other tokens still count in the mean's denominator, as in the paper.
    """
    a = dapo(low, high)
    assert isinstance(a.objective, PolicyGradient)
    return replace(a, objective=replace(a.objective, top_entropy=top_entropy))


# --- other baselines and scales ---


def lite_ppo(low: float = 0.2, high: float | None = None) -> Algorithm:
    """Lite PPO (arXiv:2508.08221): the group's mean as baseline, the batch's spread as scale, every
    token the same weight.

    - [advantage] `reinforce_plus_plus_baseline` scales by the spread of the tokens' advantages;
      here it is the spread of the responses' returns.
    """
    surrogate = Clip(low, high)
    return Algorithm(PolicyGradient(BatchScale(), surrogate=surrogate, weight=TokenMean()))


def opo() -> Algorithm:
    """OPO (on-policy with the optimal reward baseline, arXiv:2505.23585): the group's mean return,
    long responses weighing more; one step a batch, no KL.

    - [weight] verl's averages over tokens; here the sum over a response, of which the baseline was
      derived.
    """
    advantage, score = LengthBaseline(), ScoreFunction()
    return Algorithm(PolicyGradient(advantage, surrogate=score, weight=SequenceSum()))


def reinforce_rej(low: float = 0.2, high: float | None = None, beta: float = 0.0) -> Algorithm:
    """Reinforce-Rej (arXiv:2504.11343): the plain return with a clipped ratio; groups that are all
    right or all wrong are left out.

    - [advantage] There is no baseline: with rewards of 0 and 1 only right responses teach.
    - [weight] Its code averages over tokens, those of the left-out groups among them.
    - [kl_estimator, kl_place] beta > 0 adds k3 in the loss, as its code does at 0.001.
    """
    return Algorithm(
        PolicyGradient(
            TotalReward(),
            surrogate=Clip(low, high),
            weight=SequenceMean(),
            kl=kl_in_loss(beta),
        ),
        keep=DropUniform(),
    )


# --- other goals than the expected return ---


def maxrl() -> Algorithm:
    """MaxRL (maximum likelihood reinforcement learning, arXiv:2602.02710): climbs log p of a right
    response, not p, the closer the larger the group.

    - [weight, surrogate] Its code changes the advantage of verl's loss alone; here the loss is its
      theorem's: the score function, summed over a response.
    """
    advantage, score = MeanScale(), ScoreFunction()
    return Algorithm(PolicyGradient(advantage, surrogate=score, weight=SequenceSum()))


def pkpo(k: int = 2) -> Algorithm:
    """PKPO (pass@k policy optimisation, arXiv:2505.15201): climbs the expected best of k samples,
    exactly.

    - [advantage] Of the paper's estimators the one with a baseline of k − 1 samples, which needs
      k ≥ 2. With k the whole group it is k times the advantage of arXiv:2503.19595, which verl
      calls grpo_passk and also divides by the group's spread.
    """
    advantage, score = MaxAtK(k), ScoreFunction()
    return Algorithm(PolicyGradient(advantage, surrogate=score, weight=SequenceSum()))


def pass_at_k(k: int = 2, low: float = 0.2, high: float = 0.28) -> Algorithm:
    """Pass@k Training (arXiv:2508.10751): DAPO's loss with the advantage of the best of k samples,
    in closed form.

    - [advantage] For rewards other than 0 and 1 the same over all subsets of k, whose reward is
      their maximum, as the paper defines it.
    - [weight] Its code is the advantage alone; the loss around it here has DAPO's clip and the mean
      over the batch's tokens.
    """
    surrogate = Clip(low, high)
    return Algorithm(PolicyGradient(PassAtK(k), surrogate=surrogate, weight=TokenMean()))
