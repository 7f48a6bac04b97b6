"""Names of TRL, verl, Stable-Baselines3, CleanRL and OpenRLHF: a table for each library.

Each name is an option of the right value, a setting of the job, or refused with a line that says
what to use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from logpi import algorithm
from logpi.algorithms import TABLE, known_as, names, options

JOB = "it is a setting of the job"

# (row, their name, their value, what it is here): an option with its value, or part of the line
TRL = [
    ("grpo", "beta", 0.1, {"beta": 0.1}),
    ("grpo", "epsilon", 0.1, {"low": 0.1}),
    ("dapo", "epsilon_high", 0.3, {"high": 0.3}),
    ("grpo", "delta", 4.0, {"dual_clip": 4.0}),
    ("grpo", "num_iterations", 3, {"epochs": 3}),
    ("grpo", "max_grad_norm", 0.2, {"max_grad_norm": 0.2}),
    ("grpo", "vllm_importance_sampling_cap", 3.0, {"correction_cap": 3.0}),
    ("grpo", "loss_type", "dapo", "choose the row"),
    ("grpo", "scale_rewards", "none", "dr_grpo does not"),
    ("grpo", "importance_sampling_level", "sequence", "gspo"),
    ("grpo", "mask_truncated_completions", True, "truncation=mask"),
    ("grpo", "steps_per_generation", 4, "minibatches"),
    ("grpo", "learning_rate", 1e-5, f"{JOB}, lr"),
    ("grpo", "num_generations", 8, f"{JOB}, num_generations"),
    ("grpo", "max_completion_length", 64, f"{JOB}, max_completion_length"),
    ("dr_grpo", "max_completion_length", 64, {"max_completion_length": 64}),
    ("grpo", "temperature", 1.0, f"{JOB}, temperature"),
    ("grpo", "max_steps", 10, f"{JOB}, steps"),
    ("grpo", "processing_class", "x", f"{JOB}, tokenizer"),
    ("grpo", "peft_config", 8, f"{JOB}, lora"),
    ("grpo", "report_to", "wandb", f"{JOB}, trackers"),
    ("grpo", "num_train_epochs", 1, "say steps"),
    ("grpo", "reward_weights", [1.0], "beside the rewards"),
    ("grpo", "ref_model_sync_steps", 10, f"{JOB}, refresh_reference"),
    ("cispo", "epsilon_high", 5.0, "the bound itself"),
    ("dapo", "top_entropy_quantile", 0.2, {"top_entropy": 0.2}),
    ("sapo", "sapo_temperature_pos", 2.0, {"tau_pos": 2.0}),
    ("sapo", "sapo_temperature_neg", 2.0, {"tau_neg": 2.0}),
    ("gmpo", "epsilon", 0.3, {"low": 0.3}),
    ("grpo", "vllm_importance_sampling_mode", "token_mask", "MaskedIS for token_mask"),
    ("rloo", "normalize_advantages", True, {"whiten": True}),
    ("rloo", "rloo_k", 4, f"{JOB}, num_generations"),
    ("ppo", "num_ppo_epochs", 2, {"epochs": 2}),
    ("ppo", "num_mini_batches", 2, {"minibatches": 2}),
    ("ppo", "cliprange", 0.1, {"low": 0.1}),
    ("ppo", "cliprange_value", 0.1, {"value_clip": 0.1}),
    ("ppo", "kl_coef", 0.1, {"beta": 0.1}),
    ("ppo", "vf_coef", 0.1, {"value_coef": 0.1}),
    ("dpo", "label_smoothing", 0.1, {"smoothing": 0.1}),
    ("dpo", "rpo_alpha", 0.2, {"sft": 0.2}),
    ("kto", "desirable_weight", 1.5, {"desirable": 1.5}),
    ("kto", "undesirable_weight", 1.5, {"undesirable": 1.5}),
    ("simpo", "simpo_gamma", 0.4, {"gamma": 0.4}),
    ("simpo", "cpo_alpha", 0.2, {"sft": 0.2}),
    ("reward_model", "center_rewards_coefficient", 0.01, {"centre": 0.01}),
]
VERL = [
    ("grpo", "clip_ratio", 0.1, {"low": 0.1}),
    ("grpo", "clip_ratio_low", 0.1, {"low": 0.1}),
    ("grpo", "clip_ratio_high", 0.3, {"high": 0.3}),
    ("ppo", "clip_ratio_c", 4.0, {"dual_clip": 4.0}),
    ("ppo", "ppo_epochs", 2, {"epochs": 2}),
    ("ppo", "entropy_coeff", 0.1, {"entropy_coef": 0.1}),
    ("grpo", "kl_loss_coef", 0.1, {"beta": 0.1}),
    ("grpo", "kl_loss_type", "kl", {"kl_estimator": "k1"}),
    ("rloo", "kl_loss_type", "low_var_kl", {"kl_estimator": "k3"}),
    ("reinforce_plus_plus", "kl_penalty", "mse", {"kl_estimator": "k2"}),
    ("grpo", "use_kl_loss", True, "kl_place"),
    ("sapo", "tau_neg", 1.1, {"tau_neg": 1.1}),
    ("grpo", "policy_loss", "geo_mean", "gmpo for geo_mean"),
    ("grpo", "loss_agg_mode", "token-mean", "choose the row"),
    ("ppo", "lam", 0.9, {"lam": 0.9}),
    ("ppo", "gamma", 0.9, {"gamma": 0.9}),
    ("ppo", "cliprange_value", 0.3, {"value_clip": 0.3}),
    ("ppo", "grad_clip", 0.3, {"max_grad_norm": 0.3}),
    ("ppo", "adv_estimator", "gae", "choose the row"),
    ("grpo", "norm_adv_by_std_in_grpo", False, "dr_grpo does not"),
    ("rloo", "kl_coef", 0.1, {"beta": 0.1}),
    ("grpo", "tis_imp_ratio_cap", 2.0, {"correction_cap": 2.0}),
    ("ppo", "ppo_mini_batch_size", 64, "minibatches"),
    ("grpo", "n", 8, f"{JOB}, num_generations"),
    ("grpo", "train_batch_size", 8, f"{JOB}, prompts"),
    ("grpo", "max_response_length", 8, f"{JOB}, max_completion_length"),
    ("rloo", "target_kl", 0.1, "say kl_target"),
]
SB3 = [
    ("ppo", "learning_rate", 3e-4, f"{JOB}, lr"),
    ("ppo", "n_steps", 128, f"{JOB}, n_steps"),
    ("ppo", "batch_size", 64, "minibatches"),
    ("ppo", "n_epochs", 3, {"epochs": 3}),
    ("ppo", "gamma", 0.9, {"gamma": 0.9}),
    ("ppo", "gae_lambda", 0.9, {"lam": 0.9}),
    ("ppo", "clip_range", 0.1, {"low": 0.1}),
    ("ppo", "clip_range_vf", 0.1, {"value_clip": 0.1}),
    ("a2c", "normalize_advantage", True, {"whiten": True}),
    ("ppo", "ent_coef", 0.1, {"entropy_coef": 0.1}),
    ("ppo", "vf_coef", 0.1, {"value_coef": 0.1}),
    ("ppo", "max_grad_norm", 0.4, {"max_grad_norm": 0.4}),
    ("ppo", "target_kl", 0.02, "ends an update's passes early"),
    ("ppo", "total_timesteps", 1000, f"{JOB}, steps"),
    ("ppo", "n_envs", 8, f"{JOB}, envs"),
    ("ppo", "policy_kwargs", {}, "say hidden"),
    ("trpo", "target_kl", 0.02, {"max_kl": 0.02}),
    ("trpo", "cg_max_steps", 15, {"cg_steps": 15}),
    ("trpo", "cg_damping", 0.2, {"damping": 0.2}),
    ("trpo", "line_search_shrinking_factor", 0.7, {"shrink": 0.7}),
    ("trpo", "line_search_max_iter", 5, {"trials": 5}),
    ("trpo", "sub_sampling_factor", 2, "fisher_fraction"),
]
CLEANRL = [
    ("ppo", "learning_rate", 3e-4, f"{JOB}, lr"),
    ("ppo", "num_envs", 4, f"{JOB}, envs"),
    ("ppo", "num_steps", 128, f"{JOB}, n_steps"),
    ("ppo", "anneal_lr", True, f"{JOB}, linear"),
    ("ppo", "gamma", 0.9, {"gamma": 0.9}),
    ("ppo", "gae_lambda", 0.9, {"lam": 0.9}),
    ("ppo", "num_minibatches", 4, {"minibatches": 4}),
    ("ppo", "update_epochs", 3, {"epochs": 3}),
    ("a2c", "norm_adv", True, {"whiten": True}),
    ("ppo", "clip_coef", 0.1, {"low": 0.1}),
    ("ppo", "clip_vloss", True, "value_clip"),
    ("ppo", "ent_coef", 0.1, {"entropy_coef": 0.1}),
    ("ppo", "vf_coef", 0.1, {"value_coef": 0.1}),
    ("ppo", "max_grad_norm", 0.4, {"max_grad_norm": 0.4}),
    ("ppo", "target_kl", 0.02, "ends an update's passes early"),
]
OPENRLHF = [
    ("ppo", "init_kl_coef", 0.1, {"beta": 0.1}),
    ("rloo", "kl_target", 3.0, {"kl_target": 3.0}),
    ("rloo", "kl_estimator", "k2", {"kl_estimator": "k2"}),
    ("ppo", "eps_clip", 0.1, {"low": 0.1}),
    ("ppo", "value_clip", 0.1, {"value_clip": 0.1}),
    ("ppo", "lambd", 0.9, {"lam": 0.9}),
    ("ppo", "dual_clip", 3.0, {"dual_clip": 3.0}),
    ("ppo", "max_epochs", 2, {"epochs": 2}),
    ("ppo", "max_norm", 0.3, {"max_grad_norm": 0.3}),
    ("ppo", "entropy_loss_coef", 0.1, {"entropy_coef": 0.1}),
    ("dpo", "nll_loss_coef", 0.1, {"sft": 0.1}),
    ("ppo", "advantage_estimator", "gae", "choose the row"),
    ("grpo", "n_samples_per_prompt", 8, f"{JOB}, num_generations"),
    ("grpo", "dynamic_filtering", True, "groups=resample"),
]


@pytest.mark.parametrize(
    ("row", "name", "value", "here"), [*TRL, *VERL, *SB3, *CLEANRL, *OPENRLHF], ids=str
)
def test_a_name_of_another_library(row: str, name: str, value: object, here: dict | str) -> None:
    if isinstance(here, dict):
        assert algorithm(row, **{name: value}) == algorithm(row, **here) != algorithm(row)
        assert known_as(row, name) == next(iter(here))
    else:
        with pytest.raises(ValueError, match=f"{row} has no option '{name}': ") as error:
            algorithm(row, **{name: value})
        assert here in str(error.value) and "\n" not in str(error.value)


def test_an_early_stop_is_never_taken_for_an_adaptive_coefficient() -> None:
    for row in TABLE:
        assert known_as(row, "target_kl") in ("target_kl", "max_kl")


def test_an_option_says_what_others_call_it() -> None:
    aliases = {o.name: o.aliases for o in options("ppo")}
    assert {"epsilon", "clip_range", "clip_coef", "clip_ratio", "eps_clip"} <= set(aliases["low"])
    assert {"gae_lambda", "lambd"} <= set(aliases["lam"])
    assert "target_kl" in {o.name: o.aliases for o in options("trpo")}["max_kl"]
    for row in TABLE:
        for option in options(row):
            assert all(known_as(row, alias) == option.name for alias in option.aliases)


def test_names_lead_somewhere_and_none_means_two_things() -> None:
    every = {o.name for row in TABLE for o in options(row)}
    assert set(names.OPTIONS.values()) <= every and set(names.ROWS.values()) <= set(TABLE)
    assert not set(names.OPTIONS) & {*names.ELSEWHERE, *names.JOB_NAMES}
    assert not set(names.ELSEWHERE) & set(names.JOB_NAMES)


def test_one_option_under_two_names_is_refused() -> None:
    with pytest.raises(ValueError, match="epsilon is low, which is given too"):
        algorithm("grpo", low=0.1, epsilon=0.2)


def test_none_is_a_word() -> None:
    assert algorithm("ppo", value_clip="none") == algorithm("ppo")
    with pytest.raises(ValueError, match="low must be a number"):
        algorithm("ppo", low="none")


def test_the_names_load_no_torch() -> None:
    code = "import sys; from logpi.algorithms import names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
