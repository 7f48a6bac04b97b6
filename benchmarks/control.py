"""Control: results over seeds and speed, beside Stable-Baselines3 and sb3-contrib at the same settings.

    python benchmarks/control.py results [--seeds 5] [--only CartPole] [--peer PYTHON]     the table of results; goes on where it stopped
    python benchmarks/control.py speed --peer PYTHON                                       steps a second, paired
    python benchmarks/control.py table                                                     what results/control.json holds, as Markdown

PYTHON is an interpreter with stable-baselines3 and sb3-contrib. Every run is a process of one thread; its own CPU seconds are counted
(wall-clock too: other work on the machine stretches it). Scores are greedy episodes on seeds that training does not use.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "control.json"
EVAL_EPISODES = 50
CELLS = [  # (environment, algorithm, library, seeds at most); short ones first
    *(("CartPole-v1", "ppo", lib, 5) for lib in ("logpi", "sb3")),
    *(("CartPole-v1", a, "logpi", 5) for a in ("reinforce", "reinforce_baseline", "a2c", "trpo")),
    *(("logpi/GridWorld-v0", a, "logpi", 5) for a in ("reinforce", "reinforce_baseline", "actor_critic_q", "a2c", "ppo", "trpo", "grpo")),
    ("MountainCarContinuous-v0", "ppo", "logpi", 5), ("Pendulum-v1", "ppo", "logpi", 5), ("Acrobot-v1", "ppo", "logpi", 5),
    ("CartPole-v1", "trpo", "sb3", 5), ("Pendulum-v1", "ppo", "sb3", 5), ("Acrobot-v1", "ppo", "sb3", 3),
    ("CartPole-v1", "grpo", "logpi", 5), ("CartPole-v1", "rloo", "logpi", 5), ("CartPole-v1", "actor_critic_q", "logpi", 5),
    ("InvertedPendulum-v5", "ppo", "logpi", 5), ("LunarLander-v3", "ppo", "logpi", 5), ("MountainCar-v0", "ppo", "logpi", 3),
    ("HalfCheetah-v5", "ppo", "logpi", 5), ("LunarLander-v3", "ppo", "sb3", 3), ("HalfCheetah-v5", "ppo", "sb3", 2),
]  # fmt: skip


# ------------------------------------------------------------------------------------------------ one run, in its own process


def run_logpi(env: str, algorithm: str, seed: int, steps: int | None) -> dict:
    from logpi.recipes.gym import Gym, run
    from logpi.runs.metrics import read_metrics

    with tempfile.TemporaryDirectory() as out:
        path = Path(out) / "run"
        arguments = Gym(env=env, algorithm=algorithm, seed=seed, steps=steps, out=path, evaluations=0, eval_episodes=EVAL_EPISODES,
                        save_every=10**9)  # fmt: skip
        outcome = run(arguments)
        if outcome.stopped:
            raise SystemExit("stopped before its end: no result")
        rows = [r for r in read_metrics(path) if "time/rollout" in r]
    solved = _solved([(r["num_tokens_seen"], r.get("reward_100", -1e9), r["step_time"]) for r in rows], env)
    return {
        "score": outcome.last["eval/reward"], "steps": rows[-1]["num_tokens_seen"], "seconds": sum(r["step_time"] for r in rows),
        "rollout": sum(r["time/rollout"] for r in rows), "training": rows[-1].get("reward_100"), **solved,
    }  # fmt: skip


def loop_logpi(seed: int, steps: int) -> dict:
    """Rollout and update alone, without a run's directory; the first update (which loads half of torch) is not counted. CPU seconds."""
    from logpi.recipes.gym import Gym, build, evaluator
    from logpi.runs import rng

    changes = json.loads(os.environ["LOGPI_BENCHMARK_CHANGES"])
    rng.seed(seed)
    a = Gym(
        env="CartPole-v1",
        algorithm="ppo",
        seed=seed,
        steps=steps,
        vectorized="vectorized" in changes,
        eval_episodes=EVAL_EPISODES,
    )
    p, _, rollout, learner, updates = build(a)
    learner.update(rollout().batch)
    start, seen, acting, rows = time.process_time(), 0, 0.0, []
    for _ in range(updates - 1):
        before = time.process_time()
        found = rollout()
        acting += time.process_time() - before
        learner.update(found.batch)
        seen += int(found.metrics["num_tokens"])
        rows.append((seen, found.metrics.get("reward_100", -1e9), time.process_time() - before))
    seconds = time.process_time() - start
    score = evaluator(a, p, rollout.policy)(0)[0]["eval/reward"]
    return {
        "steps": seen,
        "loop_seconds": seconds,
        "acting": acting,
        "score": score,
        **floors(rollout),
        **_solved(rows, "CartPole-v1"),
    }


def floors(rollout: object) -> dict:
    """Environment steps a CPU second with no learner at all: of the environment alone, and of the policy's choices alone."""
    import numpy as np

    lanes, choose, n = rollout.lanes, rollout._sample, 300  # type: ignore[attr-defined]
    actions = np.random.default_rng(0).integers(0, 2, (n, lanes.n))
    start = time.process_time()
    for action in actions:
        lanes.step(action)
    middle = time.process_time()
    for _ in range(n):
        choose(lanes.obs)
    return {
        "environment_alone": n * lanes.n / (middle - start),
        "policy_alone": n * lanes.n / (time.process_time() - middle),
    }


def _solved(rows: list[tuple[float, float, float]], env: str) -> dict:
    """Environment steps and seconds until the mean of the last 100 training episodes was 475 (CartPole only)."""
    seconds = 0.0
    for steps, reward, took in rows:
        seconds += took
        if env == "CartPole-v1" and reward >= 475:
            return {"solved_steps": steps, "solved_seconds": seconds}
    return {}


def run_sb3(env: str, algorithm: str, seed: int, steps: int | None) -> dict:
    import numpy as np
    from sb3_contrib import TRPO
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    from logpi.envs.presets import preset

    class Watch(BaseCallback):
        rows: list[tuple[float, float, float]] = []
        last = 0.0
        clock = time.perf_counter

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            found = [x["r"] for x in self.model.ep_info_buffer]
            now = type(self).clock()
            self.rows.append(
                (self.num_timesteps, float(np.mean(found)) if len(found) == 100 else -1e9, now - self.last)
            )
            self.last = now

    p = preset(env, algorithm)
    o = dict(p.options)
    venv = make_vec_env(env, p.envs, seed=seed, env_kwargs={"render_mode": None})
    if p.normalize or p.scale:
        venv = VecNormalize(venv, norm_obs=p.normalize, norm_reward=p.scale, gamma=o["gamma"])
    rate = (lambda left: p.lr * left) if p.linear else p.lr
    common = dict(learning_rate=rate, n_steps=p.n_steps, batch_size=p.envs * p.n_steps // p.minibatches, gamma=o["gamma"],
                  gae_lambda=o["lam"], policy_kwargs={"net_arch": list(p.hidden)}, seed=seed, device="cpu")  # fmt: skip
    if algorithm == "ppo":
        model = PPO("MlpPolicy", venv, n_epochs=p.epochs, clip_range=o["low"], ent_coef=o.get("entropy_coef", 0.0),
                    vf_coef=o.get("value_coef", 0.5) / 2,  # its squared error has no half
                    clip_range_vf=o.get("value_clip"), max_grad_norm=p.max_grad_norm, **common)  # fmt: skip
    else:
        model = TRPO(
            "MlpPolicy",
            venv,
            n_critic_updates=p.epochs,
            target_kl=o["max_kl"],
            cg_damping=o.get("damping", 0.1),
            **common,
        )
    watch = Watch()
    Watch.clock = time.process_time if os.environ.get("LOGPI_BENCHMARK_CHANGES") else time.perf_counter
    start = watch.last = time.perf_counter()
    model.learn(steps or p.steps, callback=watch)
    seconds = time.perf_counter() - start
    if os.environ.get("LOGPI_BENCHMARK_CHANGES"):  # speed: between the first rollout's end and the last one's
        rest = watch.rows[1:]
        return {"steps": rest[-1][0] - watch.rows[0][0], "loop_seconds": sum(r[2] for r in rest), **_solved(rest, env)}
    if isinstance(venv, VecNormalize):
        venv.training, venv.norm_reward = False, False
    score, _ = evaluate_policy(model, _evaluation(env, venv), n_eval_episodes=EVAL_EPISODES, warn=False)
    return {"score": float(score), "steps": model.num_timesteps, "seconds": seconds, **_solved(watch.rows, env)}


def _evaluation(env: str, venv: object) -> object:
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    fresh = make_vec_env(env, 10, seed=10_000, env_kwargs={"render_mode": None})
    if not isinstance(venv, VecNormalize):
        return fresh
    wrapped = VecNormalize(fresh, training=False, norm_reward=False, norm_obs=venv.norm_obs)
    wrapped.obs_rms = venv.obs_rms
    return wrapped


# ------------------------------------------------------------------------------------------------ all of them


def one(env: str, algorithm: str, library: str, seed: int, peer: str, steps: int | None = None) -> dict:
    python = sys.executable if library == "logpi" else peer
    words = [python, __file__, "one", "--env", env, "--algorithm", algorithm, "--library", library, "--seed", str(seed)]
    words += ["--steps", str(steps)] if steps else []
    settings = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(words, env=settings, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def results(seeds: int, only: str, peer: str | None) -> None:
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}
    jobs = [
        (seed, *cell) for seed in range(seeds) for cell in CELLS if seed < cell[-1]
    ]  # every cell once before any cell twice
    for seed, env, algorithm, library, _ in jobs:
        cell = {"env": env, "algorithm": algorithm, "library": library, "seed": seed}
        done = any(cell.items() <= r.items() for r in kept["runs"])
        if done or only not in f"{env} {algorithm} {library}" or (library == "sb3" and not peer):
            continue
        made = cell | one(env, algorithm, library, seed, peer or "")
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else kept
        kept["runs"].append(made)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(kept, indent=1))
        print(kept["runs"][-1], flush=True)


def speed(peer: str, rounds: int = 3) -> None:
    """The same settings in turn, so that a busy machine hurts both. CPU seconds of rollout and update; the first update is not counted."""
    found = []
    for name, changes, steps in (("CleanRL's settings", CLEANRL, 30_720), ("RL-Zoo's settings", {"envs": 8}, 100_000)):
        os.environ["LOGPI_BENCHMARK_CHANGES"] = json.dumps(changes)
        ratios = []
        for seed in range(rounds):
            pair = []
            for library in ("logpi", "sb3"):
                made = one("CartPole-v1", "ppo", library, seed, peer, steps)
                pair.append({"settings": name, "library": library, "rate": made["steps"] / made["loop_seconds"]} | made)
                print(pair[-1], flush=True)
            ratios.append(pair[0]["rate"] / pair[1]["rate"])
            found += pair
        print(
            f"{name}: {statistics.median(ratios):.2f} times the steps a second, median of {[round(r, 2) for r in ratios]}",
            flush=True,
        )
    os.environ["LOGPI_BENCHMARK_CHANGES"] = json.dumps(WIDE)
    for seed in range(rounds):
        made = one("CartPole-v1", "ppo", "logpi", seed, peer, 300_000)
        found.append(
            {"settings": "ours, vectorised", "library": "logpi", "rate": made["steps"] / made["loop_seconds"]} | made
        )
        print(found[-1], flush=True)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}
    RESULTS.write_text(json.dumps(kept | {"speed": found}, indent=1))


WIDE = dict(vectorized=True, envs=128, n_steps=32, epochs=3, minibatches=4, lr=4e-3)
CLEANRL = dict(envs=4, n_steps=128, epochs=4, minibatches=4, lr=2.5e-4, options=[["gamma", 0.99], ["lam", 0.95], ["low", 0.2],
                                                                                ["entropy_coef", 0.01]])  # fmt: skip


def apply_changes() -> None:
    """For `speed`: the preset's changes, for whichever library runs here."""
    from dataclasses import replace

    from logpi.envs import presets

    changes = json.loads(os.environ.get("LOGPI_BENCHMARK_CHANGES", "{}"))
    changes.pop("vectorized", None)
    if changes:
        if "options" in changes:
            changes["options"] = tuple(tuple(x) for x in changes["options"])
        key = ("CartPole-v1", "ppo")
        presets.PRESETS[key] = replace(presets.PRESETS[key], **changes)


def table() -> None:
    from logpi.recipes.seeds import interval

    kept = json.loads(RESULTS.read_text())
    cells: dict[tuple, list[dict]] = {}
    for r in kept["runs"]:
        cells.setdefault((r["env"], r["algorithm"], r["library"]), []).append(r)
    print(
        "| environment | algorithm | library | steps | seeds | score, mean ± 95 % | each seed | CPU s a run |\n|---|---|---|---|---|---|---|---|"
    )
    for (env, algorithm, library), runs in cells.items():
        mean, half = interval([r["score"] for r in runs])
        each = ", ".join(f"{r['score']:.4g}" for r in runs)
        cpu = sum(r["cpu_seconds"] for r in runs) / len(runs)
        steps = sum(r["steps"] for r in runs) / len(runs)
        print(
            f"| {env} | {algorithm} | {library} | {steps / 1000:.0f}k | {len(runs)} | {mean:.1f}{f' ± {half:.1f}' if half == half else ''} | {each} | {cpu:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("results", "speed", "table", "one"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--peer")
    for name in ("env", "algorithm"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--library", dest="side", choices=("logpi", "sb3"))
    parser.add_argument("--seed", type=int)
    parser.add_argument("--steps", type=int)
    a = parser.parse_args()
    if a.what == "results":
        results(a.seeds, a.only, a.peer)
    elif a.what == "speed":
        speed(a.peer)
    elif a.what == "table":
        table()
    else:
        import torch

        torch.set_num_threads(1)
        apply_changes()
        start = time.process_time()
        if a.side == "logpi" and os.environ.get("LOGPI_BENCHMARK_CHANGES"):
            found = loop_logpi(a.seed, a.steps)
        else:
            found = (run_logpi if a.side == "logpi" else run_sb3)(a.env, a.algorithm, a.seed, a.steps)
        print(json.dumps(found | {"cpu_seconds": time.process_time() - start}))


if __name__ == "__main__":
    main()
