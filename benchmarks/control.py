"""Control: results over seeds and speed, beside Stable-Baselines3, sb3-contrib and rejax at the
same settings.

    python benchmarks/control.py results [--seeds 5] [--only CartPole] [--peer PYTHON]
        the table of results; continues where it stopped
    python benchmarks/control.py speed [--peer PYTHON] [--jax PYTHON] [--only CleanRL]
        steps a second, paired
    python benchmarks/control.py processes --env HalfCheetah-v5 [--envs 16] [--seeds 5]
        environment steps a second of wall-clock time, in one process, in one for each core, and in
        as many that know nothing of each other
    python benchmarks/control.py table
        results/control.json as Markdown

PYTHON is an interpreter with stable-baselines3 and sb3-contrib, or (--jax) with rejax. Every run
is a process of one thread, measured in its own CPU seconds (and in wall-clock time, which other
work stretches).
Scores are greedy episodes on seeds that training does not use.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "control.json"
EVAL_EPISODES = 50
CELLS = [  # (environment, algorithm, library, seeds at most, named settings); short ones first
    *(("CartPole-v1", "ppo", lib, 5, "") for lib in ("logpi", "sb3")),
    *(
        ("CartPole-v1", a, "logpi", 5, "")
        for a in ("reinforce", "reinforce_baseline", "a2c", "trpo")
    ),
    *(
        ("logpi/GridWorld-v0", a, "logpi", 5, "")
        for a in ("reinforce", "reinforce_baseline", "actor_critic_q", "a2c", "ppo", "trpo", "grpo")
    ),
    *(
        (env, "ppo", "logpi", 5, "")
        for env in ("MountainCarContinuous-v0", "Pendulum-v1", "Acrobot-v1")
    ),
    ("CartPole-v1", "trpo", "sb3", 5, ""),
    ("CartPole-v1", "a2c", "sb3", 5, ""),
    ("Pendulum-v1", "ppo", "sb3", 5, ""),
    ("Acrobot-v1", "ppo", "sb3", 3, ""),
    *(("CartPole-v1", a, "logpi", 5, "") for a in ("grpo", "rloo", "actor_critic_q")),
    ("InvertedPendulum-v5", "ppo", "logpi", 5, ""),
    ("LunarLander-v3", "ppo", "logpi", 5, ""),
    ("MountainCar-v0", "ppo", "logpi", 5, ""),
    ("HalfCheetah-v5", "ppo", "logpi", 5, "cleanrl"),
    ("HalfCheetah-v5", "ppo", "logpi", 5, ""),
    ("LunarLander-v3", "ppo", "sb3", 3, ""),
    ("HalfCheetah-v5", "ppo", "sb3", 2, "cleanrl"),
    ("HalfCheetah-v5", "ppo", "sb3", 2, ""),
]


# --- one run, in its own process ---


def run_logpi(env: str, algorithm: str, named: str, seed: int, steps: int | None) -> dict:
    from logpi.jobs.gym import Gym
    from logpi.runs.metrics import read_metrics

    with tempfile.TemporaryDirectory() as out:
        path = Path(out) / "run"
        arguments = Gym(
            env=env,
            algorithm=algorithm,
            seed=seed,
            steps=steps,
            out=path,
            evaluations=0,
            eval_episodes=EVAL_EPISODES,
            save_every=10**9,
            options=_options(named),
        )
        outcome = arguments.run().outcome
        rows = [r for r in read_metrics(path) if "time/rollout" in r]
    solved = _solved(
        [(r["num_tokens_seen"], r.get("reward_100", -1e9), r["step_time"]) for r in rows], env
    )
    return {
        "score": outcome.last["eval/reward"],
        "steps": rows[-1]["num_tokens_seen"],
        "seconds": sum(r["step_time"] for r in rows),
        "rollout": sum(r["time/rollout"] for r in rows),
        "training": rows[-1].get("reward_100"),
        **solved,
    }


def _options(named: str) -> tuple[str, ...]:
    return (f"settings={named}",) if named else ()


def loop_logpi(env: str, algorithm: str, named: str, seed: int, steps: int) -> dict:
    """Rollout and update alone, without a run's directory; the first update (which loads half of
    torch) is not counted. CPU seconds."""
    from logpi.jobs.gym import Gym
    from logpi.jobs.gym_parts import build, evaluator
    from logpi.runs import rng

    rng.seed(seed)
    a = Gym(
        env=env,
        algorithm=algorithm,
        seed=seed,
        steps=steps,
        vectorized=named == "wide",
        eval_episodes=EVAL_EPISODES,
        options=_options(named),
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
    """Environment steps a CPU second with no learner at all: of the environment alone, and of the
    policy's choices alone."""
    import numpy as np

    envs, choose, n = rollout.envs, rollout._sample, 300  # type: ignore[attr-defined]
    actions = np.random.default_rng(0).integers(0, 2, (n, envs.n))
    start = time.process_time()
    for action in actions:
        envs.step(action)
    middle = time.process_time()
    for _ in range(n):
        choose(envs.obs)
    return {
        "environment_alone": n * envs.n / (middle - start),
        "policy_alone": n * envs.n / (time.process_time() - middle),
    }


def _solved(rows: list[tuple[float, float, float]], env: str) -> dict:
    """Environment steps and seconds until the mean of the last 100 training episodes was 475
    (CartPole only)."""
    seconds = 0.0
    for steps, reward, took in rows:
        seconds += took
        if env == "CartPole-v1" and reward >= 475:
            return {"solved_steps": steps, "solved_seconds": seconds}
    return {}


def run_sb3(
    env: str, algorithm: str, named: str, seed: int, steps: int | None, loop: bool = False
) -> dict:
    """`loop`: CPU seconds between the first rollout's end and the last one's, instead of a
    score."""
    import numpy as np
    from stable_baselines3.common.callbacks import BaseCallback

    clock = time.process_time if loop else time.perf_counter

    class Watch(BaseCallback):
        rows: ClassVar[list[tuple[float, float, float]]] = []
        last = 0.0

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            found, now = [x["r"] for x in self.model.ep_info_buffer], clock()
            self.rows.append(
                (
                    self.num_timesteps,
                    float(np.mean(found)) if len(found) == 100 else -1e9,
                    now - self.last,
                )
            )
            self.last = now

    model, venv, total = _sb3_model(env, algorithm, named, seed)
    watch = Watch()
    start = time.perf_counter()
    watch.last = clock()
    model.learn(steps or total, callback=watch)
    seconds, found = time.perf_counter() - start, {"steps": model.num_timesteps}
    if loop:
        counted = watch.rows[1:]
        found = {
            "steps": counted[-1][0] - watch.rows[0][0],
            "loop_seconds": sum(r[2] for r in counted),
        }
    return found | {
        "score": _sb3_score(model, venv, env),
        "seconds": seconds,
        **_solved(watch.rows[loop:], env),
    }


def _sb3_model(env: str, algorithm: str, named: str, seed: int) -> tuple[Any, Any, int]:
    """sb3's learner with the preset's settings, its environments, and the run's steps."""
    import torch
    from sb3_contrib import TRPO
    from stable_baselines3 import A2C, PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    from logpi.envs.control.presets import preset

    p = preset(env, algorithm, named or None)
    o = dict(p.options)
    venv = make_vec_env(env, p.envs, seed=seed, env_kwargs={"render_mode": None})
    if p.normalize or p.scale:
        venv = VecNormalize(venv, norm_obs=p.normalize, norm_reward=p.scale, gamma=o["gamma"])
    network = dict(
        net_arch=list(p.hidden),
        activation_fn=torch.nn.ReLU if p.relu else torch.nn.Tanh,
        ortho_init=not p.plain,
        log_std_init=p.log_std,
    )
    common = dict(
        policy="MlpPolicy",
        env=venv,
        learning_rate=(lambda left: p.lr * left) if p.linear else p.lr,
        n_steps=p.n_steps,
        gamma=o["gamma"],
        gae_lambda=o["lam"],
        policy_kwargs=network,
        seed=seed,
        device="cpu",
    )
    loss = dict(ent_coef=o.get("entropy_coef", 0.0), max_grad_norm=p.max_grad_norm,
                vf_coef=o.get("value_coef", 0.5) / 2)  # fmt: skip  # its squared error has no half
    batch = p.envs * p.n_steps // p.minibatches
    if algorithm == "a2c":
        return A2C(use_rms_prop=False, **loss, **common), venv, p.steps
    if algorithm == "ppo":
        low = o["low"]
        clip = dict(
            clip_range=(lambda left: low * left) if o.get("clip_decay") else low,
            clip_range_vf=o.get("value_clip"),
        )
        return PPO(n_epochs=p.epochs, batch_size=batch, **clip, **loss, **common), venv, p.steps
    damping = o.get("damping", 0.1)
    return (
        TRPO(
            n_critic_updates=p.epochs,
            batch_size=batch,
            target_kl=o["max_kl"],
            cg_damping=damping,
            **common,
        ),
        venv,
        p.steps,
    )


def _sb3_score(model: Any, venv: Any, env: str) -> float:
    """Greedy, on the very episodes that logpi's policies are scored on: which starts are drawn
    moves Pendulum's mean by 40."""
    from stable_baselines3.common.vec_env import VecNormalize

    from logpi.envs.control.make import make_vector_environment
    from logpi.envs.control.spaces import action_kind
    from logpi.jobs.gym_parts import fresh_seeds
    from logpi.rollouts.gym import play

    envs = make_vector_environment(env, 10)

    def choose(obs: Any) -> tuple[Any, Any]:
        seen = venv.normalize_obs(obs) if isinstance(venv, VecNormalize) else obs
        return obs, model.predict(seen, deterministic=True)[0]

    return float(play(envs, choose, action_kind(envs.action), fresh_seeds(EVAL_EPISODES)).mean())


# --- all of them ---


def one(
    env: str,
    algorithm: str,
    library: str,
    seed: int,
    peer: str,
    named: str = "",
    steps: int | None = None,
    loop: bool = False,
) -> dict:
    python = sys.executable if library == "logpi" else peer
    words = [
        python,
        __file__,
        "one",
        "--env",
        env,
        "--algorithm",
        algorithm,
        "--library",
        library,
        "--seed",
        str(seed),
        "--settings",
        named,
    ]
    words += ["--steps", str(steps)] if steps else []
    words += ["--loop"] if loop else []
    settings = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": str(HERE.parent),
    }
    done = subprocess.run(words, env=settings, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def results(seeds: int, only: str, peer: str | None) -> None:
    kept = _kept()
    jobs = [
        (seed, *cell) for seed in range(seeds) for cell in CELLS if seed < cell[3]
    ]  # every cell once before any cell twice
    for seed, env, algorithm, library, _, named in jobs:
        cell = {
            "env": env,
            "algorithm": algorithm,
            "library": library,
            "settings": named,
            "seed": seed,
        }
        done = any(cell.items() <= ({"settings": ""} | r).items() for r in kept["runs"])
        if (
            done
            or only not in f"{env} {algorithm} {library} {named}"
            or (library == "sb3" and not peer)
        ):
            continue
        made = cell | one(env, algorithm, library, seed, peer or "", named)
        kept = _kept()
        kept["runs"].append(made)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(kept, indent=1))
        print(kept["runs"][-1], flush=True)


def _kept() -> dict:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}


SPEED = (
    ("CleanRL's settings", "cleanrl", 30_720),
    ("RL-Zoo's settings", "", 100_000),
    ("ours, vectorised", "wide", 300_000),
)


def run_rejax(named: str, seed: int, steps: int, python: str) -> dict:
    """`control_jax.py` with the preset's settings; compiling is not in its `loop_seconds`."""
    from logpi.envs.control.presets import preset

    settings = json.dumps(asdict(preset("CartPole-v1", "ppo", named or None)))
    words = [python, str(HERE / "control_jax.py"), settings, str(seed), str(steps)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def speed(peer: str | None, jax: str | None, rounds: int, only: str) -> None:
    """The same settings in turn, so that a busy machine hurts all. CPU seconds of rollout and
    update; the first update, and rejax's compiling, are not counted."""
    for title, named, steps in SPEED:
        if only not in title:
            continue
        pairs: list[dict[str, dict]] = []
        sides = [s for s, there in (("sb3", peer and named != "wide"), ("rejax", jax)) if there]
        for seed in range(rounds):
            pairs.append({})
            for library in ("logpi", *sides):
                made = (
                    run_rejax(named, seed, steps, jax or "")
                    if library == "rejax"
                    else one("CartPole-v1", "ppo", library, seed, peer or "", named, steps, True)
                )
                rate = made["steps"] / made["loop_seconds"]
                pairs[-1][library] = {
                    "settings": title,
                    "library": library,
                    "seed": seed,
                    "rate": rate,
                } | made
                print(pairs[-1][library], flush=True)
        kept, place = _kept(), "speed_rejax" if jax else "speed"
        others = [r for r in kept.get(place, []) if r["settings"] != title]
        kept[place] = others + [r for pair in pairs for r in pair.values()]
        RESULTS.write_text(json.dumps(kept, indent=1))
        print(_compared(title, pairs), flush=True)


def _compared(title: str, pairs: list[dict[str, dict]]) -> str:
    """Steps a second and CPU seconds to solved (mean of the last 100 training episodes ≥ 475; a
    seed that never is counts as infinite)."""
    said = [title]
    for library in pairs[0]:
        rate = statistics.median(p[library]["rate"] for p in pairs)
        solved = statistics.median(p[library].get("solved_seconds", math.inf) for p in pairs)
        said.append(
            f"{library} {rate:,.0f} steps/s, solved after {solved:.1f} s (medians of {len(pairs)})"
        )
    for other in [x for x in pairs[0] if x != "logpi"]:
        ratios = [p["logpi"]["rate"] / p[other]["rate"] for p in pairs]
        said.append(
            f"{statistics.median(ratios):.2f} times {other}'s steps a second, median of"
            f" {[round(r, 2) for r in ratios]}"
        )
    return "\n  ".join(said)


def processes(env: str, n: int, rounds: int, steps: int) -> None:
    """Environment steps a second of wall-clock time under random actions, `steps` in each round, in
    turn: in one process; in one for each core; and what the machine allows, which is as many
    processes as cores with n environments each that know nothing of each other. Medians. The
    machine must be idle. CPU seconds are this process's."""
    from logpi.distributed import cores
    from logpi.envs.control.make import make_vector_environment

    made = {
        "one process": make_vector_environment(env, n),
        f"{cores()} processes": make_vector_environment(env, n, processes=cores()),
    }
    for envs in made.values():
        envs.begin(lambda i: i)
    others = [_independent(env, n, steps) for _ in range(cores() - 1)]
    rates: dict[str, list[float]] = {name: [] for name in [*made, "each alone"]}
    # the first round warms up
    for number in range(rounds + 1):
        for name in rates:
            told = others if name not in made else []
            for pipe in told:
                pipe.send(None)
            wall, cpu = time.perf_counter(), time.process_time()
            _drive(made.get(name, made["one process"]), steps)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            rate = steps / wall + sum(pipe.recv() for pipe in told)
            if number:
                rates[name].append(rate)
                print(f"{name}: {rate:,.0f} steps/s, CPU here {cpu:.2f} s", flush=True)
    one, *_ = (statistics.median(x) for x in rates.values())
    for name, x in rates.items():
        ratios = [round(p / q, 2) for p, q in zip(x, rates["one process"], strict=True)]
        median = statistics.median(x)
        print(f"{env}, {n} environments, {name}: {median:,.0f} steps/s, {median / one:.2f} times")
        print(f"    in each round {ratios}")
    for envs in made.values():
        envs.close()


def _drive(envs: Any, steps: int) -> None:
    """So many steps of all environments together, under random actions."""
    import numpy as np

    from logpi.envs.control.spaces import action_kind

    kind, random = action_kind(envs.action), np.random.default_rng(0)
    params = np.zeros((envs.n, kind.outputs + kind.free), np.float32)
    for _ in range(steps // envs.n):
        envs.step(kind.to_env(kind.sample(params, random)))


def _independent(env: str, n: int, steps: int) -> Any:
    """The pipe of another process with environments of its own: for each message it takes `steps`
    steps, and answers with steps a second."""
    import multiprocessing

    def serve() -> None:
        from logpi.envs.control.make import make_vector_environment

        envs = make_vector_environment(env, n)
        envs.begin(lambda i: i)
        while True:
            theirs.recv()
            start = time.perf_counter()
            _drive(envs, steps)
            theirs.send(steps / (time.perf_counter() - start))

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    context.Process(target=serve, daemon=True).start()
    return ours


def table() -> None:
    from logpi.jobs.seed_report import interval

    kept = json.loads(RESULTS.read_text())
    cells: dict[tuple, list[dict]] = {}
    for r in kept["runs"]:
        cells.setdefault(
            (r["env"], r["algorithm"], r.get("settings", ""), r["library"]), []
        ).append(r)
    print(
        "| environment | algorithm | library | steps | seeds | score, mean ± 95 % | each seed | CPU"
        " s a run |\n|---|---|---|---|---|---|---|---|"
    )
    for (env, algorithm, named, library), runs in cells.items():
        mean, half = interval([r["score"] for r in runs])
        each = ", ".join(f"{r['score']:.4g}" for r in runs)
        cpu = sum(r["cpu_seconds"] for r in runs) / len(runs)
        steps = sum(r["steps"] for r in runs) / len(runs)
        print(
            f"| {env} | {algorithm}{f', {named}' if named else ''} | {library} |"
            f" {steps / 1000:.0f}k | {len(runs)} |"
            f" {mean:.1f}{f' ± {half:.1f}' if half == half else ''} | {each} | {cpu:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("results", "speed", "processes", "table", "one"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--peer")
    parser.add_argument("--jax")
    parser.add_argument("--envs", type=int, default=16)
    for name in ("env", "algorithm"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--library", dest="side", choices=("logpi", "sb3"))
    parser.add_argument("--settings", default="")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--loop", action="store_true")
    a = parser.parse_args()
    if a.what == "results":
        results(a.seeds, a.only, a.peer)
    elif a.what == "speed":
        speed(a.peer, a.jax, min(a.seeds, 3), a.only)
    elif a.what == "processes":
        processes(a.env or "HalfCheetah-v5", a.envs, a.seeds, a.steps or 40_000)
    elif a.what == "table":
        table()
    else:
        _one(a)


def _one(a: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(1)
    start = time.process_time()
    told = (a.env, a.algorithm, a.settings, a.seed, a.steps)
    if a.side == "sb3":
        found = run_sb3(*told, loop=a.loop)
    else:
        found = loop_logpi(*told) if a.loop else run_logpi(*told)
    print(json.dumps(found | {"cpu_seconds": time.process_time() - start}))


if __name__ == "__main__":
    main()
