"""`logpi view` on runs of 10, 10⁴ and 10⁵ responses (1 GB): how long until the first page, a list
of responses, a sorted one, a text that is nowhere; and the server's memory.

    python benchmarks/viewer.py --rows 10 10000 100000 --length 2200

Runs are written as `logpi rl` writes them: 64 responses a step, with token ids, log-probabilities
and advantages, from a pool of 512 texts. Each server is fresh and cold; the page is painted by
Chromium through Playwright where they are installed. Left out: a disk that is cold (the files were
just written).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GROUP, STEP, POOL = 8, 64, 512
WORDS = (
    "so we add the two numbers and carry one then check wait that is wrong again = 12 47".split()
)


def write_run(path: Path, rows: int, length: int) -> int:
    """A run of `rows` responses of about `length` characters; returns bytes of its samples."""
    rng = random.Random(0)
    (path / "samples").mkdir(parents=True)
    arguments = {"algorithm": "grpo", "options": {}, "model": "m", "task": "t", "seed": 0}
    record = {"command": "rl", "arguments": arguments | {"steps": -(-rows // STEP)}}
    (path / "arguments.json").write_text(json.dumps(record))
    (path / "versions.json").write_text("{}")
    size, pool = 0, [_response(rng, length) for _ in range(POOL)]
    with open(path / "metrics.jsonl", "w") as metrics:
        for step in range(1, -(-rows // STEP) + 1):
            count = min(STEP, rows - (step - 1) * STEP)
            data = b"".join(_line(rng, pool, step, i) for i in range(count))
            (path / "samples" / f"step-{step:06d}.jsonl").write_bytes(data)
            size += len(data)
            values = {"reward": rng.random(), "entropy": rng.random(), "step_time": 1.0}
            metrics.write(json.dumps({"step": step, **values}) + "\n")
    return size


def _response(rng: random.Random, length: int) -> bytes:
    """The end of a line: what a policy wrote, with its tokens."""
    text = " ".join(rng.choices(WORDS, k=max(1, int(rng.gauss(length, length / 4)) // 5)))
    tokens = len(text) // 4
    row = {"completion": text, "answer": "1", "rewards": {"exact": 1.0}, "errors": {}}
    row |= {"stop": "eos", "tokens": tokens, "ids": rng.choices(range(150_000), k=tokens)}
    row |= {"advantage": 0.5, "logp": [-0.1234] * tokens}
    return json.dumps(row).encode()[1:] + b"\n"


def _line(rng: random.Random, pool: Sequence[bytes], step: int, i: int) -> bytes:
    head = {"prompt": f"{step}+{i // GROUP}=", "group": i // GROUP, "reward": rng.random()}
    return json.dumps(head).encode()[:-1] + b", " + rng.choice(pool)


class Server:
    """A server of its own over a folder."""

    def __init__(self, folder: Path) -> None:
        words = [sys.executable, "-m", "logpi", "view", str(folder)]
        begin = time.perf_counter()
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.address = self.process.stdout.readline().strip()
        self.started = time.perf_counter() - begin
        self.home, _, self.token = self.address.partition("?token=")

    def get(self, path: str) -> tuple[Any, float]:
        """A route's answer, and the seconds it took."""
        begin = time.perf_counter()
        request = urllib.request.Request(f"{self.home}api/{path}", headers={"X-Token": self.token})
        with urllib.request.urlopen(request) as answer:
            value = json.load(answer)
        return value, time.perf_counter() - begin

    def whole(self, path: str) -> tuple[Any, float, float]:
        """Ask until the answer is complete: it, seconds in all, and of the longest request."""
        total = longest = 0.0
        while True:
            answer, seconds = self.get(path)
            total, longest = total + seconds, max(longest, seconds)
            if answer["complete"]:
                return answer, total, longest

    def memory(self) -> float:
        """MB that are resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def measure(folder: Path) -> Mapping[str, float]:
    """The seconds of each thing, in the order in which a user meets them."""
    server = Server(folder)
    try:
        listed, first = server.get("runs")
        run = f"run/{listed['runs'][0]['id']}"
        numbers = {"start": server.started, "list of runs": first}
        numbers["the run"] = server.get(run)[1]
        numbers["its metrics"] = server.get(f"{run}/metrics?names=reward,entropy")[1]
        numbers["newest responses"] = server.get(f"{run}/samples")[1]
        numbers["one response"] = server.get(f"{run}/sample?step=1&row=0")[1]
        _, numbers["all indexed"], numbers["longest request"] = server.whole(
            f"{run}/samples?sort=best"
        )
        numbers["best again"] = server.get(f"{run}/samples?sort=best&offset=0")[1]
        _, numbers["text that is nowhere"], _ = server.whole(f"{run}/samples?text=nosuchtext")
        numbers["memory MB"] = server.memory()
    finally:
        server.close()
    return numbers


def paint(folder: Path) -> Mapping[str, float]:
    """Seconds until Chromium shows the list of runs, and the responses of the first."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return {}
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        return {}
    server = Server(folder)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=browser_path, args=["--no-sandbox"]
            )
            page = browser.new_page()
            page.goto("about:blank")
            begin = time.perf_counter()
            page.goto(server.address)
            page.wait_for_selector("main a[href*='run']")
            runs = time.perf_counter() - begin
            contentful = page.evaluate(
                "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
            )
            id = server.get("runs")[0]["runs"][0]["id"]
            begin = time.perf_counter()
            page.goto(f"{server.home}#/run/{id}/responses")
            page.wait_for_selector("main a.response", state="attached", timeout=60_000)
            responses = time.perf_counter() - begin
            browser.close()
    finally:
        server.close()
    first = {} if contentful is None else {"first paint": contentful / 1000}
    return first | {"runs shown": runs, "responses shown": responses}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rows", type=int, nargs="*", default=[10, 10_000, 100_000])
    p.add_argument("--length", type=int, default=2200, help="characters of a response, on average")
    p.add_argument("--no-browser", action="store_true")
    a = p.parse_args()
    for rows in a.rows:
        with tempfile.TemporaryDirectory() as folder:
            size = write_run(Path(folder) / "rl-1", rows, a.length)
            numbers = dict(measure(Path(folder)))
            if not a.no_browser:
                numbers |= paint(Path(folder))
        load = os.getloadavg()[0]
        print(f"{rows} responses, {size / 1e6:.1f} MB, load {load:.1f}", flush=True)
        for name, value in numbers.items():
            print(
                f"  {name:<22}{value:>9.3f}" if "MB" not in name else f"  {name:<22}{value:>9.0f}"
            )


if __name__ == "__main__":
    main()
