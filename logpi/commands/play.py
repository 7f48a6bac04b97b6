"""`logpi play`: watch a trained policy, in the terminal where the environment can be drawn as text,
else as a GIF or MP4.

Each step is a line: the action, its reward, the return so far, and π(·|s).

       1  →      reward −1   return −1   → .93 █  ↑ .05 ▏  ← .01 ▏  ↓ .01 ▏

Trains nothing; the same seeds show the same episodes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError, as_user_errors
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option
from logpi.jobs.options.saved import from_json

if TYPE_CHECKING:
    from logpi.envs.control.vector import SyncVectorEnvironment
    from logpi.jobs.gym import Gym
    from logpi.policies.mlp import ActorCritic


@dataclass(frozen=True)
class Play:
    """Arguments of `logpi play`."""

    run: Path = option(help="a run's directory", positional=True)
    episodes: int = option(3, help="to play", least=1, most=10_000)
    sample: bool = option(False, help="sample actions as in training, instead of the likeliest")
    seed: int = option(0, help="of the first episode", least=0)
    video: Path | None = option(
        None, help="write a .gif or .mp4 (default: RUN/play.gif where there is no text)"
    )
    max_frames: int = option(1500, help="of a video", least=1, most=100_000)
    lines: int = option(
        40, help="steps of each episode to print, the first ones", least=0, most=1_000_000
    )
    fps: float = option(8.0, help="of drawings in the terminal", above=0, most=1000)
    trust: bool = option(False, help="run the environment that a stranger's run names")


def main(argv: Sequence[str]) -> int:
    a = parse(Play, argv, "logpi play", "Watch a trained policy.")
    from gymnasium.error import DependencyNotInstalled

    from logpi.jobs.gym import Gym
    from logpi.jobs.gym_parts import load_policy, own_network
    from logpi.runs.directory import allow, read_arguments, refuse_links
    from logpi.runs.disk import refuse_unwritable

    _, saved = read_arguments(a.run, "gym")
    trained = from_json(Gym, saved)
    if trained.seeds > 1:
        raise UserError(
            f"{a.run} holds several seeds; watch one of them: logpi play"
            f" {a.run}/seed-{trained.seed}"
        )
    if a.video is not None and a.video.suffix not in (".gif", ".mp4"):
        raise UserError(f"a video is a .gif or an .mp4, not {a.video.name}")
    allow(a.run, a.trust)
    if a.video is None:
        refuse_links(a.run)  # play.gif is written there
    else:
        refuse_unwritable(a.video)
    envs, text = _env_of(a, trained)
    policy = load_policy(a.run / "model", envs, own_network(trained.network))
    if text and trained.env == "logpi/GridWorld-v0":
        print(_map(policy, envs))
    try:
        frames = _episodes(a, policy, envs, text)
    except DependencyNotInstalled as error:
        raise UserError(f"{trained.env} cannot be drawn: {error}") from None
    if not text:
        path = a.video or a.run / "play.gif"
        _write(frames, path, float(envs.envs[0].metadata.get("render_fps", 30)))
        print(f"video   {path}", file=sys.stderr)
    return 0


def _env_of(a: Play, trained: Gym) -> tuple[SyncVectorEnvironment, bool]:
    """One environment, drawn as text if it can and no video is wanted."""
    import gymnasium as gym

    from logpi.envs.control.make import make_env
    from logpi.envs.control.vector import SyncVectorEnvironment
    from logpi.jobs.gym_parts import resolved

    with as_user_errors():
        repeat = resolved(trained)[0].repeat
    options: dict[str, Any] = dict(trained.env_options)
    probe = make_env(trained.env, **options)
    modes = probe.metadata.get("render_modes", [])
    probe.close()
    text = "ansi" in modes and a.video is None
    if not text and "rgb_array" not in modes:
        raise UserError(
            f"{trained.env} cannot be drawn: it offers {', '.join(modes) or 'no render mode'}"
        )
    with as_user_errors():
        try:
            env = make_env(
                trained.env, repeat, render_mode="ansi" if text else "rgb_array", **options
            )
        except gym.error.Error as error:
            raise UserError(str(error)) from None
    return SyncVectorEnvironment([env]), text


def _episodes(a: Play, policy: ActorCritic, envs: SyncVectorEnvironment, text: bool) -> list[Any]:
    """Plays, printing drawings, steps and returns; the frames for a video."""
    import numpy as np

    from logpi.envs.control.grid_model import ARROWS
    from logpi.envs.control.gridworld import GridWorld

    act, rng, frames, env = policy.actor(), np.random.default_rng(a.seed), [], envs.envs[0]
    seeds = iter(range(a.seed, a.seed + a.episodes))
    envs.begin(lambda i: next(seeds, None))
    names = ARROWS if isinstance(env.unwrapped, GridWorld) else ()
    for episode in range(a.episodes):
        total, steps, over = 0.0, 0, False
        while not over:
            frame = env.render()
            if text:
                print(f"\n{frame}", flush=True)
                time.sleep(1 / a.fps if sys.stdout.isatty() else 0)
            elif len(frames) < a.max_frames:
                frames.append(frame)
            params = act(envs.obs)
            action = policy.kind.sample(params, rng) if a.sample else policy.kind.mode(params)
            taken = policy.kind.to_env(action)
            step = envs.step(taken)
            total, steps = total + float(step.reward[0]), steps + 1
            if steps <= a.lines:
                chances = policy.kind.shown(params[0], names)
                print(_line(steps, _said(taken[0], names), float(step.reward[0]), total, chances))
            over = bool(step.terminated[0] or step.truncated[0])
        if steps > a.lines > 0:
            print(f"     … and {steps - a.lines} more steps (--lines {steps})")
        print(f"episode {episode + 1}, seed {a.seed + episode}: return {total:g} in {steps} steps")
    return frames


def _line(step: int, action: str, reward: float, total: float, chances: str) -> str:
    """One step: what was done, what it paid, and π(·|s) before it.

    >>> _line(3, "→", -1.0, -3.0, "→ .93 █  ↑ .07 ▏")
    '   3  →      reward −1   return −3   → .93 █  ↑ .07 ▏'
    """
    paid = f"reward {f'{reward:.4g}':<5}return {f'{total:.4g}':<5}".replace("-", "−")
    return f"{step:>4}  {action:<7}{paid}{chances}"


def _said(action: Any, names: Sequence[str]) -> str:
    """An action as it is called, or its numbers."""
    import numpy as np

    parts = np.ravel(action)
    if np.issubdtype(parts.dtype, np.floating):
        return " ".join(f"{x:+.2f}" for x in parts).replace("-", "−")
    return " ".join(names[int(x)] if names else str(x) for x in parts)


def _map(policy: ActorCritic, envs: SyncVectorEnvironment) -> str:
    """What the policy does in every cell of the grid world, and its values if it has a critic."""
    import numpy as np
    import torch

    from logpi.envs.control.gridworld import GridWorld, draw, move_chances

    world = envs.envs[0].unwrapped
    assert isinstance(world, GridWorld)
    model = world.model
    cells = np.eye(model.states, dtype=np.float32)
    value = None if policy.critic_net is None else policy.value(torch.from_numpy(cells)).tolist()
    return (
        "the likeliest move in every cell"
        + (", and its value\n" if value else "\n")
        + draw(model, move_chances(model, policy), value)
    )


def _write(frames: Sequence[Any], path: Path, fps: float) -> None:
    """A GIF by Pillow; an MP4 by imageio, if its ffmpeg is installed."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        images = [Image.fromarray(f) for f in frames]
        images[0].save(
            path,
            save_all=True,
            append_images=images[1:],
            duration=max(20, round(1000 / fps)),
            loop=0,
        )
        return
    try:
        import imageio  # pyright: ignore[reportMissingImports]

        # The codec wants even sizes.
        imageio.mimsave(path, list(frames), fps=fps, macro_block_size=2)
    except (ImportError, ValueError):
        raise UserError(
            "an .mp4 needs ffmpeg: pip install 'imageio[ffmpeg]', or write a .gif"
        ) from None
