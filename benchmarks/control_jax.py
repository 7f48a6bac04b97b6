"""PPO on CartPole by rejax on gymnax: the environment, the rollout and the update compiled into one
program by XLA. A peer of `control.py`, run by an interpreter that has rejax.

    PYTHON benchmarks/control_jax.py '{"envs": 4, "n_steps": 128, …}' SEED STEPS

The settings are those of a preset (`control.py` writes them). It prints one line of JSON: CPU
seconds of compiling and of training apart, and the mean return of 128 sampled episodes. One thread.
Left out: what rejax does otherwise than logpi (Adam for actor and critic apart, gradients clipped
by element, time-outs as ends, advantages whitened in each minibatch; no decay of rates).
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
from rejax import PPO
from rejax.evaluate import evaluate


def main() -> None:
    settings, seed, steps = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    options, batch = dict(settings["options"]), settings["envs"] * settings["n_steps"]
    algorithm = PPO.create(
        env="CartPole-v1",
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": tuple(settings["hidden"])},
        num_envs=settings["envs"],
        num_steps=settings["n_steps"],
        num_epochs=settings["epochs"],
        num_minibatches=settings["minibatches"],
        learning_rate=settings["lr"],
        max_grad_norm=settings["max_grad_norm"],
        gamma=options["gamma"],
        gae_lambda=options["lam"],
        clip_eps=options["low"],
        ent_coef=options.get("entropy_coef", 0.0),
        total_timesteps=steps // batch * batch,
        eval_freq=steps // batch * batch,
        skip_initial_evaluation=True,
    )
    algorithm = algorithm.replace(eval_callback=lambda algo, state, key: state.global_step)
    key, start = jax.random.PRNGKey(seed), time.process_time()
    train = jax.jit(algorithm.train).lower(key).compile()
    compiled = time.process_time()
    state, _ = jax.block_until_ready(train(key))
    trained = time.process_time()
    act, env = algorithm.make_act(state), algorithm.env
    _, returns = evaluate(act, key, env, algorithm.env_params, 128, 500)
    print(
        json.dumps(
            {
                "steps": int(state.global_step),
                "compile_seconds": compiled - start,
                "loop_seconds": trained - compiled,
                "score": float(returns.mean()),
            }
        )
    )


if __name__ == "__main__":
    main()
