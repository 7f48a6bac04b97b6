"""The rows of THE TABLE whose baseline is made of samples: groups of one prompt, or a greedy
response.

`table.py` names all rows and says how one is written. Left out: rows with a critic, or without a
baseline (`table.py`).
"""

from __future__ import annotations

from logpi.algorithms.composition import Algorithm, kl_in_loss, kl_in_reward
from logpi.objectives.policy_gradient import PolicyGradient
from logpi.ops.advantages import GreedyBaseline, GroupCenter, GroupNorm, LeaveOneOut
from logpi.ops.ratios import SequenceRatio
from logpi.ops.selection import MixedOutcomes
from logpi.ops.surrogates import Clip, ClippedScore, ScoreFunction
from logpi.ops.weights import FixedLength, GroupTokenMean, SequenceMean, SequenceSum, TokenMean

__all__ = ["cispo", "dapo", "dr_grpo", "grpo", "grpo_r1", "grpo_sequence", "gspo", "remax", "rloo"]


def rloo(beta: float = 0.05) -> Algorithm:
    """REINFORCE leave-one-out (arXiv:2402.14740): the response is one action, the prompt's other
    samples are its baseline.

    - [kl, kl_place, advantage] The KL of the whole response is in the reward before the baseline is
      taken, as in the paper.
    - [surrogate, whiten] TRL's RLOOTrainer adds a clipped ratio and, optionally, normalises
      advantages; neither is in the paper.
    """
    return Algorithm(
        PolicyGradient(
            advantage=LeaveOneOut(),
            surrogate=ScoreFunction(),
            weight=SequenceSum(),
            kl=kl_in_reward(beta),
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
            kl=kl_in_reward(beta),
        )
    )


def grpo(low: float = 0.2, high: float | None = None, beta: float = 0.04) -> Algorithm:
    """Group relative policy optimisation (DeepSeekMath, arXiv:2402.03300): rewards in spreads of
    their group.

    - β = 0.04 is the paper's. TRL's default is 0 (no reference in memory): beta=0.
    - [weight] TRL's GRPOTrainer aggregates like DAPO by default (loss_type="dapo"); here as the
      paper: mean over a response, then over responses.
    """
    return Algorithm(
        PolicyGradient(
            # A = (R − mean) / std within a prompt
            advantage=GroupNorm(),
            surrogate=Clip(low, high),
            kl=kl_in_loss(beta),
            # 1 / (responses · length of this one)
            weight=SequenceMean(),
        )
    )


def grpo_r1(low: float = 0.2, high: float | None = None, beta: float = 0.001) -> Algorithm:
    """GRPO as DeepSeek-R1 writes it (arXiv:2501.12948, eq. 1): no division by the response's
    length.

    - β = 0.001 is R1's.
    - [surrogate, low] R1 clips at ε = 10, which is no clip: low=10. With one step a batch no clip
      ever acts.
    - [ratio] R1's ratio is of whole responses; here of tokens, as Liu, *Brief Introduction of
      Policy Gradient in LLM Reasoning*, writes it (`grpo_sequence` has the other).
    """
    return Algorithm(
        PolicyGradient(
            advantage=GroupNorm(),
            surrogate=Clip(low, high),
            kl=kl_in_loss(beta),
            weight=SequenceSum(),
        )
    )


def grpo_sequence(low: float = 0.2, high: float | None = None, beta: float = 0.04) -> Algorithm:
    """GRPO with the product ratio of the whole response (Ju, "Maths for Policy Gradient Methods",
    section 2.6; R1's eq. 1).

    - [kl, kl_estimator, kl_place] Ju's KL is k1 of the whole response in the loss, whose expected
      gradient is 0; here k3 of each token, averaged over the response as the rest (kl_estimator=k1
      is Ju's, over the response's length).
    """
    return Algorithm(
        PolicyGradient(
            advantage=GroupNorm(),
            ratio=SequenceRatio(mean=False),
            surrogate=Clip(low, high),
            kl=kl_in_loss(beta),
            weight=SequenceMean(),
        )
    )


def dr_grpo(
    low: float = 0.2, high: float | None = None, max_completion_length: int = 512
) -> Algorithm:
    """Dr. GRPO (arXiv:2503.20783): GRPO without its two biases, the spread and the length.

    - [weight] The constant is the largest completion length, the paper's MAX_TOKENS.
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

    - [ratio, weight] verl ships the token form (GSPO-token) and weights by tokens; here the paper's
      sequence form and weight.
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
    every token keeps learning."""
    return Algorithm(
        PolicyGradient(advantage=GroupNorm(), surrogate=ClippedScore(low, high), weight=TokenMean())
    )
