"""The names of TRL, verl, Stable-Baselines3, CleanRL and OpenRLHF, and logpi's names of the same.

The tables hold words alone and import nothing heavy, so an option parser may read them first. Left
out: which options an algorithm has (`option_list.py`).

    ROWS         a method's other name            -> the row of the table
    OPTIONS      an option's other name           -> the option of an algorithm, value unchanged
    VALUES       an option's values elsewhere     -> the values that they are here
    JOB_NAMES    a setting of the job elsewhere   -> the field of a job (`--lr`, `lr=`)
    ELSEWHERE    a name that cannot be translated -> the line that says what to use instead
"""

from __future__ import annotations

__all__ = [
    "ELSEWHERE",
    "ELSEWHERE_OF_ROW",
    "JOB_NAMES",
    "OPTIONS",
    "OPTIONS_OF_ROW",
    "ROWS",
    "VALUES",
]

ROWS = {
    "gae": "ppo",
    "vpg": "policy_gradient",
    "reinforce++": "reinforce_plus_plus",
    "group_norm": "grpo",
    "reinforce++_baseline": "reinforce_plus_plus_baseline",
    "drgrpo": "dr_grpo",
    "dr.grpo": "dr_grpo",
    "geo_mean": "gmpo",
    "dppo_tv": "dppo",
    "liteppo": "lite_ppo",
    "max_rl": "maxrl",
    "passk": "pass_at_k",
}

OPTIONS = {
    # TRL: GRPOConfig, RLOOConfig, PPOConfig, DPOConfig, KTOConfig, CPOConfig, RewardConfig
    "epsilon": "low",
    "epsilon_high": "high",
    "delta": "dual_clip",
    "num_iterations": "epochs",
    "num_ppo_epochs": "epochs",
    "num_mini_batches": "minibatches",
    "cliprange": "low",
    "cliprange_value": "value_clip",
    "normalize_advantages": "whiten",
    "init_kl_coef": "beta",
    "vllm_importance_sampling_cap": "correction_cap",
    "label_smoothing": "smoothing",
    "rpo_alpha": "sft",
    "cpo_alpha": "sft",
    "desirable_weight": "desirable",
    "undesirable_weight": "undesirable",
    "center_rewards_coefficient": "centre",
    "top_entropy_quantile": "top_entropy",
    "sapo_temperature_pos": "tau_pos",
    "sapo_temperature_neg": "tau_neg",
    # verl: actor, critic, algorithm
    "clip_ratio": "low",
    "clip_ratio_low": "low",
    "clip_ratio_high": "high",
    "clip_ratio_c": "dual_clip",
    "ppo_epochs": "epochs",
    "entropy_coeff": "entropy_coef",
    "kl_coef": "beta",
    "kl_loss_coef": "beta",
    "kl_loss_type": "kl_estimator",
    "kl_penalty": "kl_estimator",
    "grad_clip": "max_grad_norm",
    "tis_imp_ratio_cap": "correction_cap",
    "rollout_is_threshold": "correction_cap",
    # Stable-Baselines3 and sb3-contrib. Its critic's error has no ½: its vf_coef of 0.5 is 1 here.
    "n_epochs": "epochs",
    "gae_lambda": "lam",
    "clip_range": "low",
    "clip_range_vf": "value_clip",
    "normalize_advantage": "whiten",
    "ent_coef": "entropy_coef",
    "vf_coef": "value_coef",
    "cg_max_steps": "cg_steps",
    "cg_damping": "damping",
    "line_search_shrinking_factor": "shrink",
    "line_search_max_iter": "trials",
    # CleanRL
    "update_epochs": "epochs",
    "num_minibatches": "minibatches",
    "clip_coef": "low",
    "norm_adv": "whiten",
    # OpenRLHF
    "eps_clip": "low",
    "lambd": "lam",
    "max_epochs": "epochs",
    "max_norm": "max_grad_norm",
    "entropy_loss_coef": "entropy_coef",
    "nll_loss_coef": "sft",
}

# sb3-contrib's TRPO calls the size of the trust region what SB3's PPO calls its early stop.
OPTIONS_OF_ROW = {("trpo", "target_kl"): "max_kl", ("simpo", "simpo_gamma"): "gamma"}

VALUES = {"kl_estimator": {"kl": "k1", "mse": "k2", "low_var_kl": "k3"}}

JOB_NAMES = {
    # TRL's GKDTrainer
    "teacher_model_name_or_path": "teacher",
    # models, data, directories
    "model_name_or_path": "model",
    "pretrain": "model",
    "train_dataset": "task",
    "reward_funcs": "rewards",
    "processing_class": "tokenizer",
    "peft_config": "lora",
    "lora_r": "lora",
    "lora_rank": "lora",
    "env_id": "env",
    "output_dir": "out",
    "save_path": "out",
    "report_to": "trackers",
    "resume_from_checkpoint": "resume",
    # sizes
    "max_steps": "steps",
    "total_timesteps": "steps",
    "train_batch_size": "prompts",
    "rollout_batch_size": "prompts",
    "num_generations": "num_generations",
    "rloo_k": "num_generations",
    "n": "num_generations",
    "n_samples_per_prompt": "num_generations",
    "max_completion_length": "max_completion_length",
    "response_length": "max_completion_length",
    "max_response_length": "max_completion_length",
    "max_new_tokens": "max_completion_length",
    "generate_max_len": "max_completion_length",
    "n_envs": "envs",
    "num_envs": "envs",
    "n_steps": "n_steps",
    "num_steps": "n_steps",
    # optimiser
    "learning_rate": "lr",
    "actor_learning_rate": "lr",
    "warmup_steps": "warmup",
    "lr_scheduler_type": "schedule",
    "lr_scheduler": "schedule",
    "anneal_lr": "linear",
    # sampling, the reference, the run
    "temperature": "temperature",
    "ref_model_sync_steps": "refresh_reference",
    "eval_steps": "eval_every",
    "save_steps": "save_every",
    "seed": "seed",
    "device": "device",
}

_ROW = "choose the row by its name"
_EARLY_STOP = (
    "in SB3 and CleanRL it ends an update's passes early, which logpi does not do (epochs=1 keeps"
    " the policy near); for a KL coefficient that adapts to a target, say kl_target"
)
ELSEWHERE = {
    "target_kl": _EARLY_STOP,
    "loss_type": f"{_ROW}: grpo, dapo, dr_grpo, cispo, sapo; dpo, ipo, slic, robust_dpo, simpo",
    "scale_rewards": f"{_ROW}: grpo divides by the group's spread, dr_grpo does not",
    "norm_adv_by_std_in_grpo": f"{_ROW}: grpo divides by the group's spread, dr_grpo does not",
    "importance_sampling_level": f"{_ROW}: gspo has one ratio for a response, grpo for each token",
    "vllm_importance_sampling_mode": "say correction=TruncatedIS for token_truncate, MaskedIS for"
    " token_mask, SequenceMaskedIS for sequence_mask",
    "policy_loss": f"{_ROW}: ppo for vanilla, gspo, cispo, sapo, dppo for dppo_tv, gmpo for"
    " geo_mean",
    "loss_agg_mode": f"{_ROW}, or from Python give weight=, one of logpi.ops.weights",
    "adv_estimator": f"{_ROW}: ppo for gae, grpo, rloo, remax, opo, reinforce_plus_plus",
    "advantage_estimator": f"{_ROW}: ppo for gae, grpo, rloo, reinforce_plus_plus for reinforce",
    "mask_truncated_completions": "the job has it: truncation=mask",
    "overlong_filter": "the job has it: truncation=mask",
    "filter_groups": "the job has it: groups=resample",
    "dynamic_filtering": "the job has it: groups=resample",
    "use_kl_loss": "say kl_place=loss, or beta=0 for no penalty",
    "use_kl_in_reward": "say kl_place=reward, or beta=0 for no penalty",
    "args": "its settings are keywords of the job: learning_rate=1e-6, beta=0",
    "num_train_epochs": "say steps, how many updates there are",
    "bf16": "say dtype=bfloat16",
    "fp16": "say dtype=bfloat16; float16 is for inference",
    "eval_dataset": "a data set with a test split, or {'train': …, 'test': …}, has its own;"
    " of one table a tenth is held out",
    "callbacks": "leave it out and write `for step in job:`",
    "callback": "leave it out and write `for step in job:`",
    "reward_weights": "say them beside the rewards: (score, 0.5), or score.py:score:0.5",
    "ref_model": "leave it out: the reference is the model as training begins",
    "reward_model": "it is one of the rewards: model:DIRECTORY",
    "reward_pretrain": "it is one of the rewards: model:DIRECTORY",
    "remote_rm_url": "say rewards, with FILE.py:FUNCTION or a function",
    "max_prompt_length": "prompts longer than the context are dropped or cut, see overlong_prompts",
    "prompt_max_len": "prompts longer than the context are dropped or cut, see overlong_prompts",
    "logging_steps": "leave it out: every step is logged",
    "verbose": "leave it out",
    "tensorboard_log": "leave it out: the run's directory holds it, where TensorBoard is installed",
    "policy_kwargs": "say hidden=(64, 64), relu=true, or give networks of your own as network",
    "net_arch": "say hidden=(64, 64)",
    "use_vllm": "leave it out: logpi samples with the learner's own weights",
    "horizon": "kl_target makes the coefficient adaptive, with a horizon of 10000 responses",
    "kl_horizon": "kl_target makes the coefficient adaptive, with a horizon of 10000 responses",
    "clip_vloss": "say value_clip=0.2, how far the critic may move, or leave it out for no clip",
    "eps_clip_low_high": "say low and high",
    "batch_size": "say minibatches, how many steps a pass has",
    "ppo_mini_batch_size": "say minibatches, how many steps a pass has",
    "mini_batch_size": "say minibatches, how many steps a pass has",
    "steps_per_generation": "say minibatches, how many steps a pass has",
    "gradient_accumulation_steps": "say micro_tokens, the tokens that fit into memory at once",
    "per_device_train_batch_size": "say prompts, and micro_tokens for what fits into memory",
    "sub_sampling_factor": "say fisher_fraction, its inverse",
    "n_critic_updates": "say epochs in `logpi gym`, or critic=SGD(epochs=10) from Python",
}

# TRL's CISPO gives the bound itself; here high is a distance from 1.
ELSEWHERE_OF_ROW = {
    ("cispo", "epsilon_high"): "TRL's is the bound itself; say high, the bound less 1",
}
