"""The rows of THE TABLE that learn from preferences: which response is better, or whether one is
good.

`table.py` names all rows and says how one is written. Left out: the objectives
(`objectives/preferences.py`) and their parts (`ops/comparison.py`).
"""

from __future__ import annotations

from logpi.algorithms.composition import Algorithm
from logpi.objectives.preferences import BradleyTerry, KahnemanTversky, Preference
from logpi.ops.comparison import Hinge, Logistic, LogLikelihood, LogOdds, LogRatio, Robust, Squared

__all__ = ["dpo", "ipo", "kto", "orpo", "reward_model", "robust_dpo", "simpo", "slic"]


def dpo(
    beta: float = 0.1,
    smoothing: float = 0.0,
    length_normalised: bool = False,
    sft: float = 0.0,
    recorded: bool = False,
) -> Algorithm:
    """Direct preference optimisation (arXiv:2305.18290): RLHF's optimum fitted to pairs, without
    reward model or samples.

    - smoothing > 0 is cDPO (a share of wrong labels); sft > 0 adds the winner's likelihood (RPO,
      arXiv:2404.19733).
    - length_normalised divides log-ratios by |y| (TRL's sigmoid_norm). recorded: reference
      log-probabilities are in the data.
    """
    return Algorithm(
        Preference(
            LogRatio(mean=length_normalised), Logistic(beta, smoothing), sft=sft, recorded=recorded
        )
    )


def robust_dpo(beta: float = 0.1, smoothing: float = 0.1, recorded: bool = False) -> Algorithm:
    """Robust DPO (arXiv:2403.00409): DPO's loss made unbiased under a known share of flipped
    labels."""
    return Algorithm(Preference(margin=Robust(beta, smoothing), recorded=recorded))


def slic(beta: float = 0.1, recorded: bool = False) -> Algorithm:
    """SLiC-HF's hinge (arXiv:2305.10425) on DPO's implicit rewards, as RSO (arXiv:2309.06657) uses
    it.

    - SLiC-HF itself compares log-likelihoods and regularises with a language-modelling loss; here
      and in TRL log-ratios.
    """
    return Algorithm(Preference(margin=Hinge(beta), recorded=recorded))


def ipo(beta: float = 0.1, length_normalised: bool = True, recorded: bool = False) -> Algorithm:
    """Identity preference optimisation (arXiv:2310.12036): a squared loss whose margin has a goal.

    - β is the paper's τ.
    - [mean] Log-ratios are averaged over tokens, as in its authors' and TRL's code; the paper
      writes the sum.
    """
    return Algorithm(Preference(LogRatio(mean=length_normalised), Squared(beta), recorded=recorded))


def kto(
    beta: float = 0.1,
    desirable: float = 1.0,
    undesirable: float = 1.0,
    recorded: bool = False,
    sampled: bool = False,
) -> Algorithm:
    """Kahneman–Tversky optimisation (arXiv:2402.01306): single responses called good or bad, no
    pairs.

    - [sampled] z₀ is estimated once for each batch from mismatched responses (TRL: in each
      micro-batch).
    - sampled: online; good is above the mean reward of the prompt's samples, and z₀ is their mean
      log-ratio.
    """
    return Algorithm(KahnemanTversky(beta, desirable, undesirable, recorded, sampled))


def orpo(beta: float = 0.1) -> Algorithm:
    """Odds ratio preference optimisation (arXiv:2403.07691): likelihood of the winner plus the odds
    ratio; no reference.

    - β is the paper's λ. TRL's likelihood term covers the prompt's tokens too; here the response's,
      as the paper.
    """
    return Algorithm(Preference(LogOdds(), Logistic(beta=1.0), coef=beta, sft=1.0))


def simpo(
    beta: float = 2.0, gamma: float = 1.0, smoothing: float = 0.0, sft: float = 0.0
) -> Algorithm:
    """Simple preference optimisation (arXiv:2405.14734): mean log-likelihoods with a target margin;
    no reference.

    - [beta, gamma] TRL's CPOTrainer (loss_type="simpo") has the defaults β = 0.1, γ = 0.5; here
      within the paper's ranges.
    """
    return Algorithm(Preference(LogLikelihood(), Logistic(beta, smoothing, gamma), sft=sft))


def reward_model(margin: bool = False, centre: float = 0.0) -> Algorithm:
    """Reward modelling (Bradley and Terry 1952; arXiv:2203.02155): the chosen response should score
    higher."""
    return Algorithm(BradleyTerry(margin, centre))
