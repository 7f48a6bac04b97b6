"""What each option of an algorithm does, in a line: by its name, and by row and name where a row
means something else.

Left out: the options themselves (`option_list.py`).
"""

from __future__ import annotations

__all__ = ["HELP", "HELP_OF_ROW"]

HELP = {
    "beta": "KL coefficient, reward a nat; 0: no reference model",
    "gamma": "discount of each own action, in [0, 1]",
    "lam": "GAE's λ, from bias (0) to variance (1)",
    "low": "distance of the ratio's lower bound from 1",
    "high": "distance of the ratio's upper bound from 1 (none: as low)",
    "max_completion_length": "number of tokens that each response is divided by",
    "smoothing": "share of preferences that are assumed wrong, in [0, 0.5)",
    "length_normalised": "divide a response's log-ratio by its length",
    "sft": "weight of the chosen response's mean negative log-likelihood",
    "recorded": "the reference's log-probabilities are in the data",
    "sampled": "responses are the policy's own samples",
    "desirable": "weight of good responses",
    "undesirable": "weight of bad responses",
    "margin": "the recorded rewards give the margin between a pair's responses",
    "centre": "strength of the pull of a pair's scores to a mean of 0",
    "whiten": "advantages to zero mean and unit spread over the batch",
    "value_coef": "coefficient of the critic's error ½(V − V̂)² (SB3's has no ½)",
    "value_clip": "largest change of V that lowers the error, in units of return",
    "entropy_coef": "reward of a nat of entropy",
    "correction": "for a sampler whose numerics are not the learner's",
    "correction_cap": "largest π_old/π_sampler that a token is weighted by (none: not corrected)",
    "advantage": "estimator of the advantage",
    "kl": "the penalty to the reference, as a whole (none: no penalty)",
    "top_entropy": "share of the tokens that learn, those at which the policy is least sure",
    "tau_pos": "how fast the gate closes around a ratio of 1 where the advantage is positive",
    "tau_neg": "the same where the advantage is negative",
    "k": "number of samples whose best one counts, at least 2",
    "weight": "weight of an action in the loss",
    "surrogate": "what is maximised at each action",
    "ratio": "the importance ratio, of a token or of a response",
    "kl_target": "nats a response that the KL coefficient adapts to (none: it is fixed)",
    "kl_estimator": (
        "k1, k2 or k3 of the action taken; reverse, forward or jsd of whole distributions"
    ),
    "kl_place": "place of the penalty: reward, action or loss",
    "dual_clip": "largest ratio that pushes a bad action down, above 1 (none: no bound)",
    "clip_decay": "the clip's bounds fall linearly to 0 over the run",
    "epochs": "passes over a batch",
    "minibatches": "optimiser steps in a pass",
    "micro_tokens": "most tokens in a forward and backward (memory only; none: all at once)",
    "max_grad_norm": "gradients are scaled down to this norm (none: never)",
    "shuffle": "how rows are dealt out to the minibatches",
    "max_kl": "size of the trust region, nats an action",
    "damping": "added to the Fisher matrix's diagonal",
    "cg_steps": "steps of conjugate gradient",
    "shrink": "factor between one trial of the line search and the next",
    "trials": "trials of the line search",
    "critic": "steps of the critic's regression",
    "trust_steps": "trust-region steps on one batch, within one bound of KL",
    "fisher_fraction": "share of the rows that the Fisher matrix is estimated on",
    "keep": "which groups enter the batch",
    "truncation": "treatment of rows that the length limit cut off",
    "update": "how parameters move",
}
HELP_OF_ROW = {
    ("simpo", "gamma"): "margin by which the chosen response must win",
    **{
        (name, "beta"): "how strongly the policy is tied to the reference, above 0"
        for name in ("dpo", "robust_dpo", "slic", "ipo", "kto")
    },
    ("gmpo", "low"): "largest fall of a token's log-probability, nats",
    ("gmpo", "high"): "largest rise of a token's log-probability, nats (none: as low)",
    ("dppo", "low"): "largest fall of a token's probability",
    ("dppo", "high"): "largest rise of a token's probability (none: as low)",
    ("orpo", "beta"): "weight of the odds ratio",
    ("simpo", "beta"): "scale of the difference of mean log-likelihoods",
}
