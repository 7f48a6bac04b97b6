"""THE TABLE: every named method as a composition of independent choices.

    advantage × ratio × surrogate × KL (coefficient, estimator, place) × weight (aggregation) ×
    update

An algorithm is a value; a new method is a new function here. A docstring's first paragraph is the
method's source, each `- ` line a divergence from the paper or from common libraries: `describe`
prints both. The parts are in `ops`,
    what is done with them in
`objectives/policy_gradient.py` and `objectives/preferences.py`; finding a method by name is the
package's business (`__init__.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from logpi.objectives.policy_gradient import PolicyGradient
from logpi.objectives.preferences import BradleyTerry, KahnemanTversky, Preference
from logpi.ops.advantages import (
    GAE,
    GreedyBaseline,
    GroupCenter,
    GroupNorm,
    LeaveOneOut,
    QValue,
    RewardToGo,
    TotalReward,
    Uniform,
)
from logpi.ops.comparison import Hinge, Logistic, LogLikelihood, LogOdds, LogRatio, Robust, Squared
from logpi.ops.kl import KL, k1, k3
from logpi.ops.ratios import SequenceRatio
from logpi.ops.selection import Bootstrap, Keep, KeepAll, MixedOutcomes, Truncation
from logpi.ops.surrogates import Clip, ClippedScore, ScoreFunction, Unclipped
from logpi.ops.weights import FixedLength, GroupTokenMean, SequenceMean, SequenceSum, TokenMean
from logpi.types import Data
from logpi.updates.sgd import SGD
from logpi.updates.trust_region import TrustRegion

if TYPE_CHECKING:
    from logpi.types import Objective

__all__ = ["NAMES", "TABLE", "Algorithm", "learning_from"]


@dataclass(frozen=True)
class Algorithm:
    """A named composition.

    Attributes:
        objective: what is maximised. update: how parameters move.
        keep: which groups enter the batch. truncation: what becomes of rows cut off by the length
            limit.
        name: the table's row. source: where it comes from. differs: where it departs from the paper
            or from common libraries.
    """

    objective: Objective
    update: SGD | TrustRegion = SGD()
    keep: Keep = KeepAll()
    truncation: Truncation = Bootstrap()
    name: str = "custom"
    source: str = ""
    differs: tuple[str, ...] = ()


def _in_reward(beta: float) -> KL | None:
    return KL(beta, k1, "reward") if beta else None


def _in_loss(beta: float) -> KL | None:
    return KL(beta, k3, "loss") if beta else None


# --- from the theorem to the critic ---


def policy_gradient(beta: float = 0.0) -> Algorithm:
    """Policy gradient theorem (Sutton et al. 2000): the whole trajectory's reward for each action.

    - beta > 0 adds k1 in the reward, so each action also carries the KL of the whole trajectory.
    """
    return Algorithm(
        PolicyGradient(
            advantage=TotalReward(),
            surrogate=ScoreFunction(),
            weight=SequenceSum(),
            kl=_in_reward(beta),
        )
    )


def reinforce(gamma: float = 1.0, beta: float = 0.0) -> Algorithm:
    """REINFORCE (Williams 1992): return-to-go instead of the whole reward.

    - beta > 0 is the KL trick: an action carries only the KL of what follows it.
    - OpenRLHF's `reinforce` is another method: here it is `reinforce_plus_plus`.
    """
    return Algorithm(
        PolicyGradient(
            advantage=RewardToGo(gamma),
            surrogate=ScoreFunction(),
            weight=SequenceSum(),
            kl=_in_reward(beta),
        )
    )


def reinforce_baseline(gamma: float = 1.0, beta: float = 0.0) -> Algorithm:
    """REINFORCE with a learned baseline (Williams 1992; Sutton and Barto, section 13.4): G − V(s),
    critic fitted to G."""
    return Algorithm(
        PolicyGradient(
            advantage=GAE(gamma, lam=1.0),
            surrogate=ScoreFunction(),
            weight=SequenceSum(),
            kl=_in_reward(beta),
            value_coef=0.5,
        )
    )


def a2c(gamma: float = 1.0, lam: float = 0.95, beta: float = 0.0) -> Algorithm:
    """Advantage actor–critic (arXiv:1602.01783) with generalised advantages.

    - The paper sums n-step returns from several threads; here λ mixes them (lam=1 gives the n-step
      return of a fragment).
    """
    return Algorithm(
        PolicyGradient(
            advantage=GAE(gamma, lam),
            surrogate=ScoreFunction(),
            weight=TokenMean(),
            kl=_in_reward(beta),
            value_coef=0.5,
        )
    )


def actor_critic_q(gamma: float = 1.0, beta: float = 0.0) -> Algorithm:
    """Actor–critic with Q values and no baseline (Sutton et al. 2000, Theorem 1): biased as far as
    the critic is wrong."""
    return Algorithm(
        PolicyGradient(
            advantage=QValue(gamma),
            surrogate=ScoreFunction(),
            weight=SequenceSum(),
            kl=_in_reward(beta),
            value_coef=0.5,
        )
    )


# --- reusing data ---


def trpo(gamma: float = 1.0, lam: float = 0.95) -> Algorithm:
    """Trust region policy optimisation (arXiv:1502.05477): the largest step whose KL(π_old‖π) stays
    below a bound.

    - The paper estimates Q from Monte-Carlo returns; here generalised advantages, as its authors'
      later code (arXiv:1506.02438).
    - Advantages are whitened, which changes the gain's unit and not the step. Options: max_kl,
      damping, cg_steps, shrink, trials, fisher_fraction.
    """
    return Algorithm(
        PolicyGradient(
            advantage=GAE(gamma, lam),
            surrogate=Unclipped(),
            weight=TokenMean(),
            whiten=True,
            value_coef=0.5,
        ),
        update=TrustRegion(),
    )


def ppo(
    gamma: float = 1.0,
    lam: float = 0.95,
    low: float = 0.2,
    high: float | None = None,
    beta: float = 0.0,
) -> Algorithm:
    """Proximal policy optimisation (arXiv:1707.06347): clipped ratios, generalised advantages,
    several passes over a batch.

    - beta > 0 is RLHF's form (arXiv:2203.02155): k1 of each token in its reward.
    - Advantages are whitened, as in the common code, not in the paper. The critic's error is not
      clipped (value_clip=0.2 for that).
    """
    return Algorithm(
        PolicyGradient(
            # δ-sums of the critic's surprise
            advantage=GAE(gamma, lam),
            # pessimistic clip of π/π_old
            surrogate=Clip(low, high),
            # every action counts the same
            weight=TokenMean(),
            # RLHF: stay near the reference
            kl=_in_reward(beta),
            # after the critic's target was taken
            whiten=True,
            value_coef=0.5,
        ),
        update=SGD(epochs=4),
    )


def orz(low: float = 0.2) -> Algorithm:
    """Open-Reasoner-Zero (arXiv:2503.24290): PPO with γ = λ = 1 and no KL, so the critic is only a
    baseline.

    - Its code averages over the tokens of each packed micro-batch; here over the tokens of the
      optimiser batch.
    """
    return Algorithm(
        PolicyGradient(
            advantage=GAE(gamma=1.0, lam=1.0),
            surrogate=Clip(low),
            weight=TokenMean(),
            whiten=True,
            value_coef=0.5,
        )
    )


def reinforce_plus_plus(
    low: float = 0.2, high: float | None = None, beta: float = 0.01
) -> Algorithm:
    """REINFORCE++ (arXiv:2501.03262): return-to-go with the KL of each token, whitened over all
    tokens of the global batch.

    - OpenRLHF calls it `reinforce`. verl's returns restart at tool tokens; here tool output is not
      there at all.
    """
    return Algorithm(
        PolicyGradient(
            advantage=RewardToGo(),
            surrogate=Clip(low, high),
            weight=TokenMean(),
            kl=_in_reward(beta),
            whiten=True,
        )
    )


def reinforce_plus_plus_baseline(
    low: float = 0.2, high: float | None = None, beta: float = 0.0
) -> Algorithm:
    """REINFORCE++-baseline (arXiv:2501.03262, v3): the group's mean as baseline, the global batch's
    spread as scale.

    - The paper penalises with k2 in the loss; here beta puts k3 there. Pass another objective for
      k2.
    """
    return Algorithm(
        PolicyGradient(
            advantage=GroupCenter(),
            surrogate=Clip(low, high),
            weight=TokenMean(),
            kl=_in_loss(beta),
            whiten=True,
        )
    )


# --- without a critic: baselines from samples ---


def rloo(beta: float = 0.05) -> Algorithm:
    """REINFORCE leave-one-out (arXiv:2402.14740): the response is one action, the prompt's other
    samples are its baseline.

    - The KL of the whole response is in the reward before the baseline is taken, as in the paper.
    - TRL's RLOOTrainer adds a clipped ratio and, optionally, normalises advantages; neither is in
      the paper.
    """
    return Algorithm(
        PolicyGradient(
            advantage=LeaveOneOut(),
            surrogate=ScoreFunction(),
            weight=SequenceSum(),
            kl=_in_reward(beta),
        )
    )


def remax(beta: float = 0.05) -> Algorithm:
    """ReMax (arXiv:2310.10505): the greedy response's reward as baseline; one more response for
    each prompt."""
    return Algorithm(
        PolicyGradient(
            advantage=GreedyBaseline(),
            surrogate=ScoreFunction(),
            weight=SequenceSum(),
            kl=_in_reward(beta),
        )
    )


def grpo(low: float = 0.2, high: float | None = None, beta: float = 0.04) -> Algorithm:
    """Group relative policy optimisation (DeepSeekMath, arXiv:2402.03300): rewards in spreads of
    their group, k3 in the loss.

    - β = 0.04 is the paper's. TRL's default is 0 (no reference in memory): beta=0.
    - TRL's GRPOTrainer aggregates like DAPO by default (loss_type="dapo"); here as the paper: mean
      over a response, then over responses.
    - The paper's std has no ε; here 1e-6 (TRL 1e-4). k3 in the loss has the gradient of the
      *forward* KL (see `logpi.ops.kl`).
    """
    return Algorithm(
        PolicyGradient(
            # A = (R − mean) / std within a prompt
            advantage=GroupNorm(),
            surrogate=Clip(low, high),
            kl=_in_loss(beta),
            # 1 / (responses · length of this one)
            weight=SequenceMean(),
        )
    )


def grpo_r1(low: float = 0.2, high: float | None = None, beta: float = 0.001) -> Algorithm:
    """GRPO as DeepSeek-R1 writes it (arXiv:2501.12948, eq. 1): no division by the response's
    length.

    - β = 0.001 is R1's. R1 clips at ε = 10, which is no clip: low=10. With one pass over a batch no
      clip ever acts.
    - R1's ratio is of whole responses; here of tokens, as in the analysis text (see `grpo_sequence`
      for the other).
    """
    return Algorithm(
        PolicyGradient(
            advantage=GroupNorm(),
            surrogate=Clip(low, high),
            kl=_in_loss(beta),
            weight=SequenceSum(),
        )
    )


def grpo_sequence(low: float = 0.2, high: float | None = None, beta: float = 0.04) -> Algorithm:
    """GRPO with the product ratio of the whole response (Ju, "Maths for policy gradient methods",
    section 2.6; R1's eq. 1).

    - ρ = exp(Σ Δ log π) has a spread that grows with length: with more than one step a batch, most
      long responses are clipped.
    """
    return Algorithm(
        PolicyGradient(
            advantage=GroupNorm(),
            ratio=SequenceRatio(mean=False),
            surrogate=Clip(low, high),
            kl=_in_loss(beta),
            weight=SequenceMean(),
        )
    )


def dr_grpo(
    low: float = 0.2, high: float | None = None, max_completion_length: int = 512
) -> Algorithm:
    """Dr. GRPO (arXiv:2503.20783): GRPO without its two biases, the spread and the length.

    - The constant is the largest completion length (the paper's MAX_TOKENS); verl's default divides
      by the padded width.
    """
    return Algorithm(
        PolicyGradient(
            advantage=GroupCenter(),
            surrogate=Clip(low, high),
            weight=FixedLength(max_completion_length),
        )
    )


def dapo(low: float = 0.2, high: float = 0.28) -> Algorithm:
    """DAPO (arXiv:2503.14476): GRPO without KL; asymmetric clip; tokens of one prompt count
    equally; mixed groups only.

    - Overlong shaping is a reward: `logpi.rewards.SoftOverlong`.
    - Common code takes the token mean over the whole batch instead of each prompt's group.
    """
    return Algorithm(
        PolicyGradient(
            # A = (R − mean) / std within a prompt
            advantage=GroupNorm(),
            # clip-higher
            surrogate=Clip(low, high),
            # 1 / (tokens of the prompt's group)
            weight=GroupTokenMean(),
        ),
        # dynamic sampling: drop all-right and all-wrong groups, refill
        keep=MixedOutcomes(),
    )


def gspo(low: float = 3e-4, high: float | None = 4e-4) -> Algorithm:
    """GSPO (arXiv:2507.18071): the geometric-mean ratio of the response, clipped as a whole.

    - verl ships the token form (GSPO-token) and weights by tokens; here the paper's sequence form
      and weight.
    """
    return Algorithm(
        PolicyGradient(
            advantage=GroupNorm(),
            ratio=SequenceRatio(mean=True),
            surrogate=Clip(low, high),
            weight=SequenceMean(),
        )
    )


def cispo(high: float = 4.0, low: float = float("inf")) -> Algorithm:
    """CISPO (MiniMax-M1, arXiv:2506.13585): the ratio is a clipped weight without gradient, so
    every token keeps learning.

    - `high` is a distance from 1. In TRL the same name is the bound itself, and its default makes
      every weight 0.2.
    """
    return Algorithm(
        PolicyGradient(advantage=GroupNorm(), surrogate=ClippedScore(low, high), weight=TokenMean())
    )


# --- supervised ---


def sft() -> Algorithm:
    """Supervised fine-tuning: a policy gradient with A = 1 on someone else's trajectories."""
    return Algorithm(
        PolicyGradient(advantage=Uniform(), surrogate=ScoreFunction(), weight=TokenMean())
    )


# --- preferences ---


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

    - β is the paper's τ. Log-ratios are averaged over tokens, as its authors' and TRL's code; the
      paper writes the sum.
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

    - z₀ is estimated once for each batch from mismatched responses (TRL: in each micro-batch).
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
    """Simple preference optimisation (arXiv:2405.14734): mean log-likelihoods with a margin to be
    won by; no reference.

    - TRL's CPOTrainer (loss_type="simpo") has the defaults β = 0.1, γ = 0.5; here within the
      paper's ranges.
    """
    return Algorithm(Preference(LogLikelihood(), Logistic(beta, smoothing, gamma), sft=sft))


def reward_model(margin: bool = False, centre: float = 0.0) -> Algorithm:
    """Reward modelling (Bradley and Terry 1952; arXiv:2203.02155): the chosen response should score
    higher."""
    return Algorithm(BradleyTerry(margin, centre))


TABLE: dict[str, Callable[..., Algorithm]] = {
    f.__name__: f
    for f in (
        policy_gradient,
        reinforce,
        reinforce_baseline,
        a2c,
        actor_critic_q,
        trpo,
        ppo,
        orz,
        reinforce_plus_plus,
        reinforce_plus_plus_baseline,
        rloo,
        remax,
        grpo,
        grpo_r1,
        grpo_sequence,
        dr_grpo,
        dapo,
        gspo,
        cispo,
        sft,
        dpo,
        robust_dpo,
        slic,
        ipo,
        kto,
        orpo,
        simpo,
        reward_model,
    )
}


def learning_from(data: Data) -> tuple[str, ...]:
    """The rows that learn from some of this data.

    >>> learning_from(Data.DEMONSTRATIONS), "grpo" in learning_from(Data.SAMPLES)
    (('sft',), True)
    """
    return tuple(name for name, row in TABLE.items() if row().objective.learns_from & data)


# The policy gradients: they learn from single trajectories, whose rewards they read.
NAMES = tuple(name for name in TABLE if name not in learning_from(Data.PAIRS | Data.LABELS))
