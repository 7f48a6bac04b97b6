"""Run by test_crash.py in a process of its own, so that children can be forked off and killed.

`points`: kill a writer at every file-system call it makes (audit hooks see them all), and look at
what is left. `times`: kill a writer that saves on and on, after a random while.
Prints one line of JSON. What is looked at: a step that the writer reported as saved is there, or a
later one is; whatever is there is whole; nothing half-made stays after the next start.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import torch

from logpi.runs.directory import Run
from logpi.runs.disk import settle

warnings.simplefilter("ignore", DeprecationWarning)


def state(step: int) -> dict:
    return {
        "weights": torch.full((64, 64), float(step)),
        "moments": {0: (torch.full((64,), step), step)},
        "step": step,
    }


def is_whole(step: int, found: dict) -> bool:
    return (
        found["step"] == step
        and torch.equal(found["weights"], state(step)["weights"])
        and torch.equal(found["moments"][0][0], state(step)["moments"][0][0])
    )


def fork_and_die(work) -> bool:
    """Do `work` in a child. True if it was killed, False if it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def die_at(call: int) -> None:
    """SIGKILL this process right before its `call`-th call to the file system."""
    seen = 0

    def hook(event: str, _: tuple) -> None:
        nonlocal seen
        if event == "open" or (event.startswith(("os.", "shutil.")) and event != "os.kill"):
            if seen == call:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(hook)


def look(path: Path, known: set[int]) -> int:
    """Open what a killed writer left; the step that is found."""
    with Run.open(path) as run:
        step, found = run.latest()
        assert step in known and is_whole(step, found), (step, known)
        left = [p.name for p in (path / "checkpoints").iterdir() if p.name.startswith(".")]
        assert not left, left
        assert all(is_whole(int(p.name[5:]), _load(p)) for p in run.history.whole())
        assert (path / "best").read_text() == "checkpoints/step-000001\n"
    return step


def _load(path: Path) -> dict:
    from logpi.runs.checkpoint import load

    return load(path)


def points(root: Path, step: int) -> dict:
    """Checkpoint 1 (best) and 2 are there; the write of `step` (3, or 2 again) dies at its n-th
    call, for every n."""
    found = []
    for call in range(10_000):
        path = root / f"{step}-{call}"
        with Run.create(path, "test", {}) as run:
            run.checkpoint(1, state(1), best=True)
            run.checkpoint(2, state(2))

        def work(path: Path = path, call: int = call) -> None:
            run = Run.open(path)
            die_at(call)
            run.checkpoint(step, state(step))

        killed = fork_and_die(work)
        found.append(look(path, {2, step}))
        if not killed:
            return {
                "calls": call,
                "old": found.count(2),
                "new": found.count(step),
                "last": found[-1],
            }
    raise AssertionError("it never came to its end")


def times(root: Path, tries: int) -> dict:
    """Kill at random moments, inside any system call: the last step that was reported is there, or
    the next."""
    rng, path, behind = random.Random(0), root / "times", 1
    with Run.create(path, "test", {}) as run:
        run.checkpoint(1, state(1), best=True)
    for attempt in range(tries):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            run = Run.open(path)
            for step in range(behind + 1, behind + 10_000):
                run.checkpoint(step, state(step))
                os.write(writing, f"{step}\n".encode())
        os.close(writing)
        heard = (
            os.read(reading, 4096) if attempt % 2 else b""
        )  # half of them come as far as a step, on a slow machine too
        time.sleep(rng.uniform(0.005, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            reported = [int(line) for line in (heard + pipe.read()).splitlines()]
        last = max(reported, default=behind)
        behind = look(path, {last, last + 1})
    return {"tries": tries, "steps": behind}


if __name__ == "__main__":
    torch.set_num_threads(1)
    root = Path(sys.argv[2])
    print(json.dumps({"points": points, "times": times}[sys.argv[1]](root, int(sys.argv[3]))))
    settle(root)
