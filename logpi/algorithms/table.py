"""THE TABLE: every named method as a composition of independent choices.

    advantage × ratio × surrogate × KL (coefficient, estimator, place) × weight (aggregation) ×
    update

An algorithm is a value; a new method is a new function here. The first paragraph of its docstring
is its source, and each `- ` line a divergence from the paper or from common libraries; `describe`
prints both. A line that begins with `[weight]` is about the row's weight: with another one it is
not printed. What a part does otherwise than its source is said by the part. Rows whose baseline is
made of samples are in `group_rows.py`, newer ones in `newer_rows.py`, those that learn from
preferences in `preference_rows.py`.
Left out: the parts (`ops`), the objectives that are made of them (`objectives`), and options by
name (`by_name.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from logpi.algorithms.composition import Algorithm, kl_in_loss, kl_in_reward, kl_to_teacher
from logpi.algorithms.group_rows import (
    cispo,
    dapo,
    dr_grpo,
    grpo,
    grpo_r1,
    grpo_sequence,
    gspo,
    remax,
    rloo,
)
from logpi.algorithms.newer_rows import (
    dapo_forking,
    dppo,
    gmpo,
    lite_ppo,
    maxrl,
    opo,
    pass_at_k,
    pkpo,
    reinforce_rej,
    sapo,
)
from logpi.algorithms.preference_rows import (
    dpo,
    ipo,
    kto,
    orpo,
    reward_model,
    robust_dpo,
    simpo,
    slic,
)
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import (
    GAE,
    GroupCenter,
    QValue,
    RewardToGo,
    TotalReward,
)
from logpi.ops.constant_advantages import NoReward, Uniform
from logpi.ops.surrogates import Clip, ScoreFunction, Unclipped
from logpi.ops.weights import SequenceSum, TokenMean
from logpi.types import Data
from logpi.updates.sgd import SGD
from logpi.updates.trust_region import TrustRegion

__all__ = ["NAMES", "TABLE", "learning_from"]


# --- from the theorem to the critic ---


def policy_gradient(beta: float = 0.0) -> Algorithm:
    """Policy gradient theorem (Sutton et al. 2000): the whole trajectory's reward for each action.

    - [advantage, kl_estimator, kl_place] beta > 0 adds k1 in the reward, so each action also
      carries the KL of the whole trajectory.
    """
    return Algorithm(
        PolicyGradient(
            advantage=TotalReward(),
            surrogate=ScoreFunction(),
            weight=SequenceSum(),
            kl=kl_in_reward(beta),
        )
    )


def reinforce(gamma: float = 1.0, beta: float = 0.0) -> Algorithm:
    """REINFORCE (Williams 1992): return-to-go instead of the whole reward.

    - [advantage, kl_place] beta > 0 is the KL trick: an action carries only the KL of what follows
      it.
    - OpenRLHF's `reinforce` is another method: here it is `reinforce_plus_plus`.
    """
    return Algorithm(
        PolicyGradient(
            advantage=RewardToGo(gamma),
            surrogate=ScoreFunction(),
            weight=SequenceSum(),
            kl=kl_in_reward(beta),
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
            kl=kl_in_reward(beta),
            value_coef=0.5,
        )
    )


def a2c(gamma: float = 1.0, lam: float = 0.95, beta: float = 0.0) -> Algorithm:
    """Advantage actor–critic (arXiv:1602.01783) with generalised advantages.

    - [advantage] The paper sums n-step returns from several threads; here λ mixes them
      (advantage="NStep(n=5)" for one n).
    """
    return Algorithm(
        PolicyGradient(
            advantage=GAE(gamma, lam),
            surrogate=ScoreFunction(),
            weight=TokenMean(),
            kl=kl_in_reward(beta),
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
            kl=kl_in_reward(beta),
            value_coef=0.5,
        )
    )


# --- reusing data ---


def trpo(gamma: float = 1.0, lam: float = 0.95) -> Algorithm:
    """Trust region policy optimisation (arXiv:1502.05477): the largest step whose KL(π_old‖π) stays
    below a bound.

    - [advantage] The paper estimates Q from Monte-Carlo returns; here generalised advantages, as
      its authors' later code (arXiv:1506.02438).
    - [whiten, update] Advantages are whitened, which changes the gain's unit and not the step.
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

    - [kl_estimator, kl_place] beta > 0 is RLHF's form (arXiv:2203.02155): k1 of each token in its
      reward.
    - [whiten] Advantages are whitened, as in the common code, not in the paper.
    - [advantage, value_clip] The critic's error is not clipped (value_clip=0.2 for that).
    """
    return Algorithm(
        PolicyGradient(
            # discounted sums of the critic's TD errors
            advantage=GAE(gamma, lam),
            # pessimistic clip of π/π_old
            surrogate=Clip(low, high),
            # every action counts the same
            weight=TokenMean(),
            # RLHF: stay near the reference
            kl=kl_in_reward(beta),
            # after the critic's target was taken
            whiten=True,
            value_coef=0.5,
        ),
        update=SGD(epochs=4),
    )


def orz(low: float = 0.2) -> Algorithm:
    """Open-Reasoner-Zero (arXiv:2503.24290): PPO with γ = λ = 1 and no KL, so the critic is only a
    baseline.

    - [whiten] Advantages are whitened, as in common PPO code; the paper's formula has them as they
      are, and then (whiten=false) the expected step is the policy gradient exactly.
    - [weight] Its code averages over the tokens of each packed micro-batch; here over the tokens of
      the optimiser batch.
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

    - OpenRLHF calls it `reinforce`.
    - [advantage] verl's returns restart at tool tokens; here tool output is not there at all.
    """
    return Algorithm(
        PolicyGradient(
            advantage=RewardToGo(),
            surrogate=Clip(low, high),
            weight=TokenMean(),
            kl=kl_in_reward(beta),
            whiten=True,
        )
    )


def reinforce_plus_plus_baseline(
    low: float = 0.2, high: float | None = None, beta: float = 0.0
) -> Algorithm:
    """REINFORCE++-baseline (arXiv:2501.03262, v3): the group's mean as baseline, the global batch's
    spread as scale.

    - [kl_estimator, kl_place] The paper penalises with k2 in the loss; here beta puts k3 there
      (kl_estimator=k2 for the paper's).
    """
    return Algorithm(
        PolicyGradient(
            advantage=GroupCenter(),
            surrogate=Clip(low, high),
            weight=TokenMean(),
            kl=kl_in_loss(beta),
            whiten=True,
        )
    )


# --- from a teacher ---


def distill(low: float = 0.2, high: float | None = None, beta: float = 1.0) -> Algorithm:
    """On-policy distillation (arXiv:2306.13649; arXiv:2306.08543): the student samples, the teacher
    says of each token how likely it was.

    - Rewards are only measured. To learn from both, give another row a teacher (`grpo` with
      beta=0.5 kl_place=action).
    - The advantage is log π_T − log π of the token that was taken: on average the gradient of the
      reverse KL in each state that the student visits. The paper compares whole distributions:
      kl_estimator=reverse, forward or jsd.
    - What a token changes in the states that follow is left out (discount 0), as in the paper.
    """
    return Algorithm(
        PolicyGradient(
            # what teaches is the penalty alone
            advantage=NoReward(),
            surrogate=Clip(low, high),
            weight=TokenMean(),
            kl=kl_to_teacher(beta),
        )
    )


# --- supervised ---


def sft() -> Algorithm:
    """Supervised fine-tuning: a policy gradient with A = 1 on someone else's trajectories."""
    return Algorithm(
        PolicyGradient(advantage=Uniform(), surrogate=ScoreFunction(), weight=TokenMean())
    )


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
        sapo,
        gmpo,
        dppo,
        dapo_forking,
        lite_ppo,
        opo,
        reinforce_rej,
        maxrl,
        pkpo,
        pass_at_k,
        distill,
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


# The policy gradients, which learn from single trajectories with rewards.
NAMES = tuple(name for name in TABLE if name not in learning_from(Data.PAIRS | Data.LABELS))
