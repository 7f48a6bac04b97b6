"""Takes the pictures of docs/viewer.md from real runs, by Chromium.

    python scripts/screenshots.py              makes small runs (half an hour), then pictures
    python scripts/screenshots.py --runs DIR   takes runs that are there already

The runs: a demonstration, sums by three algorithms and seeds, one with too high a learning rate, a
small model with a search tool, CartPole, and the grid world with a film. Left out: checks of the
page (tests/viewer).
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from logpi.viewer.files import Folders
from logpi.viewer.runs_index import RunsIndex
from logpi.viewer.server import viewer_app

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
SUMS = "--task addition --prompts 8 --num-generations 8 --max-completion-length 64 --eval-every 10"
MODEL = "rl --model {runs}/demo/sft/model " + SUMS + " --eval-items 100"
# what the pictures show: the run's folder and the line that makes it
RUNS = {
    "demo": "demo --sft-steps 500 --steps 50",
    **{f"grpo-{s}": f"{MODEL} --beta 0 --lr 1e-4 --steps 30 --seed {s}" for s in range(3)},
    "rloo": f"{MODEL} --algorithm rloo --lr 1e-4 --steps 30",
    "ppo": f"{MODEL} --algorithm ppo --lr 1e-4 --steps 20",
    "too-fast": f"{MODEL} --lr 3e-3 --steps 40",
    "tools": "tools-demo search --sft-steps 150 --steps 30 --eval-items 50",
    "grid": "gym --env logpi/GridWorld-v0 --algorithm reinforce_baseline --updates 60",
    "cartpole": "gym --env CartPole-v1 --algorithm ppo --steps 40000 --seeds 3 --at-once 1",
}


@dataclass(frozen=True)
class Shot:
    """A picture.

    Attributes:
        name: docs/images/view_NAME.png. place: the page's address, with {PATH} for a run's id.
        act: what is done before. size: of the window. dark: the theme.
    """

    name: str
    place: str
    act: Callable[[Page], Any] = lambda page: None
    size: tuple[int, int] = (1280, 800)
    dark: bool = False


def hover(selector: str) -> Callable[[Page], Any]:
    return lambda page: page.locator(selector).first.hover()


def first_response(page: Page) -> None:
    """The first of the list, pointing at one of its tokens."""
    page.locator(".item a").first.click()
    page.locator(".answer .tok").nth(5).hover()


def first_mask(page: Page) -> None:
    first_response(page)
    page.get_by_label("mask").check()


def first_group(page: Page) -> None:
    """The group of the first response of the list, best first."""
    page.locator(".item a").first.click()
    page.locator(".answer").wait_for()
    page.keyboard.press("g")
    page.get_by_label("Order").select_option("best")
    page.get_by_label("Dim").select_option("best")


def objective(page: Page) -> None:
    """It is composed in the server, which loads torch for the first one."""
    page.locator("math").first.wait_for(timeout=120_000)


TOKENS = "#/run/{ppo}/responses?from=4&sort=longest&reward_max=0"
TOOLS = "#/run/{tools/seed-0/search/rl}/responses?sort=longest&reward_min=1"
SHOTS = (
    Shot("runs", "#/", size=(1280, 900)),
    Shot("run", "#/run/{demo/rl}", hover("figure[aria-label=reward] .u-over"), (1280, 860)),
    Shot("objective", "#/run/{demo/rl}/about", objective, (1280, 620)),
    Shot("compare", "#/compare?ids={grpo-0},{grpo-1},{grpo-2},{rloo}", size=(1280, 760)),
    Shot("responses", "#/run/{demo/rl}/responses?sort=longest&to=10", size=(1280, 640)),
    Shot("group", "#/run/{demo/rl}/responses?from=6&to=6&sort=longest", first_group, (1280, 430)),
    Shot("tokens", TOKENS, first_response, (1280, 430)),
    Shot("dark", TOKENS, first_response, (1280, 430), dark=True),
    Shot("tools", TOOLS, first_mask, (1280, 600)),
    Shot("phone", "#/run/{demo/rl}", size=(390, 844)),
)


def make(folder: Path) -> None:
    """The runs that are not there yet; then a film of the grid world."""
    folder.mkdir(parents=True, exist_ok=True)
    logpi = [sys.executable, "-m", "logpi"]
    for name, line in RUNS.items():
        if not (folder / name / "arguments.json").exists():
            words = line.format(runs=folder).split()
            subprocess.run([*logpi, *words, "--out", str(folder / name)], check=True)
    film = folder / "grid" / "play.gif"
    if not film.exists():
        subprocess.run([*logpi, "play", str(folder / "grid"), "--video", str(film)], check=True)


@contextmanager
def served(folders: Folders) -> Iterator[str]:
    """The address of a server in this process."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = viewer_app(folders, "token")
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/?token=token"
    server.should_exit = True
    thread.join(10)


def take(browser: Browser, address: str, shot: Shot, ids: dict[str, str], out: Path) -> None:
    place = re.sub(r"\{([^}]+)\}", lambda m: ids[m[1]], shot.place)
    width, height = shot.size
    theme = "dark" if shot.dark else "light"
    view = {"width": width, "height": height}
    page = browser.new_page(viewport=view, color_scheme=theme, reduced_motion="reduce")
    page.set_default_timeout(60_000)
    page.goto(address + place)
    page.locator("#main h1").first.wait_for()
    page.wait_for_timeout(2000)  # scanned, drawn
    shot.act(page)
    page.wait_for_timeout(1000)
    file = out / f"view_{shot.name}.png"
    page.screenshot(path=file)
    page.close()
    print(f"{file}   {file.stat().st_size // 1024} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=Path, help="folder of runs (default: made there)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--only", nargs="*", help="names of pictures")
    a = parser.parse_args()
    folder = a.runs or ROOT / "build" / "screenshots"
    if a.runs is None:
        make(folder)
    browser_path = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser_path is None:
        raise SystemExit("Chromium is missing: apt-get install chromium")
    folders = Folders([folder])
    ids = {run.shown: run.id for run in RunsIndex(folders).runs()}
    with served(folders) as address, sync_playwright() as p:
        browser = p.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for shot in SHOTS:
            if not a.only or shot.name in a.only:
                take(browser, address, shot, ids, a.out)
        browser.close()


if __name__ == "__main__":
    main()
