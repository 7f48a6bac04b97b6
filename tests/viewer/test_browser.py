"""The page of `logpi view` in a real browser, against the real server and runs made by hand.

Every test also fails on an error in the console or on anything that the content security policy
refused. Without Chromium they are skipped, but not in CI. Left out: the server's answers themselves
(test_server.py).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("uvicorn", reason="logpi[view] is not installed")
playwright = pytest.importorskip("playwright.sync_api")
import uvicorn  # noqa: E402
from playwright.sync_api import Browser, Page, expect  # noqa: E402

from logpi.viewer.files import Folders  # noqa: E402
from logpi.viewer.server import viewer_app  # noqa: E402
from tests.viewer.browser_runs import TOKENIZER, records, write_all, write_run  # noqa: E402

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CI") != "true", reason="no Chromium is installed"
)
CHECKS = (Path(__file__).parent / "page_checks.js").read_text()
PATIENCE = 20_000  # milliseconds; a machine may be busy
expect.set_options(timeout=PATIENCE)
PLAIN = "so 0 is it"  # the response of row 0 of step 1


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "CI needs Chromium: apt-get install chromium"
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("runs"))


class Served:
    """The server in a thread, which a test may stop and start again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0
        self.start()

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(viewer_app(Folders([self.folder]), "secret"), log_level="error")
        config.timeout_graceful_shutdown = 1
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([listener],), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)

    def url(self, place: str) -> str:
        return f"http://127.0.0.1:{self.port}/?token=secret{place}"


@pytest.fixture(scope="module")
def served(runs: Path) -> Iterator[Served]:
    served = Served(runs)
    yield served
    served.stop()


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, served: Served) -> Iterator[Open]:
    """Opens a place of the page, and at the end asserts that the browser complained of nothing."""
    contexts, complaints = [], []

    def open_page(place: str, url: str = "", allowed: str = "(?!)", **options: Any) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)

        def listen(message: Any) -> None:
            if message.type in ("error", "warning") and not re.search(allowed, message.text):
                complaints.append(message.text)

        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url or served.url(place))
        page.locator("#main h1").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def ids_of(served: Served) -> dict[str, str]:
    """The ids of runs by their paths."""
    request = Request(served.url("").split("?")[0] + "api/runs", headers={"X-Token": "secret"})
    with urlopen(request) as answer:
        return {run["path"]: run["id"] for run in json.load(answer)["runs"]}


def id_of(served: Served, path: str) -> str:
    """Of a run that is new: the server looks for new ones every two seconds."""
    deadline = time.monotonic() + PATIENCE / 1000
    while path not in (ids := ids_of(served)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return ids[path]


@pytest.fixture(scope="module")
def ids(served: Served) -> dict[str, str]:
    return ids_of(served)


def response(ids: dict[str, str], step: int, row: int, colour: str = "") -> str:
    more = f"&colour={colour}" if colour else ""
    return f"#/run/{ids['all']}/response?kind=step&step={step}&row={row}{more}"


# --------------------------------------------------------------------------------- runs


def test_runs_are_listed_and_filtered_and_the_filter_is_in_the_address(open_page: Open) -> None:
    page = open_page("#/")
    names = page.locator("tbody .name")
    expect(names).to_have_count(5)
    seed = page.locator("tr", has_text="seed-0")
    expect(seed.locator(".reward")).to_contain_text("0.8")
    expect(seed.locator(".steps")).to_contain_text("10 / 10")
    expect(page.locator("tr", has_text="broken").locator(".badge")).to_have_text("unreadable")
    page.keyboard.press("/")
    page.keyboard.type("rloo")
    expect(names).to_have_text(["rloo"])
    assert "q=rloo" in page.url
    page.reload()
    expect(names).to_have_text(["rloo"])


def test_a_run_that_goes_on_is_followed(open_page: Open, served: Served, runs: Path) -> None:
    write_run(runs / "growing", records(10)[:3])
    page = open_page("#/")
    row = page.locator("tr", has_text="growing")
    expect(row.locator(".steps")).to_contain_text("2 / 10")
    curves = open_page(f"#/run/{id_of(served, 'growing')}", allowed="404")
    legend = curves.locator("figure", has_text="reward").first.locator(".legend b").first
    expect(legend).to_have_text("0.2")
    with (runs / "growing" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "reward": 0.875}) + "\n" + '{"step": 4, "rew')
    expect(legend).to_have_text("0.875")
    expect(row.locator(".steps")).to_contain_text("3 / 10")
    expect(row.locator(".reward")).to_contain_text("0.875")
    shutil.rmtree(runs / "growing")
    expect(row).to_have_count(0)
    expect(curves.locator(".empty")).to_contain_text("deleted or renamed")


def test_the_first_numbers_appear_by_themselves(
    open_page: Open, served: Served, runs: Path
) -> None:
    write_run(runs / "fresh", [])
    page = open_page(f"#/run/{id_of(served, 'fresh')}")
    expect(page.locator(".empty")).to_contain_text("No numbers yet")
    with (runs / "fresh" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 1, "reward": 0.25}) + "\n")
    expect(page.locator("figure[aria-label=reward] .legend b")).to_have_text("0.25")
    page.close()
    shutil.rmtree(runs / "fresh")


def test_an_empty_folder_says_how_to_start(open_page: Open, tmp_path: Path) -> None:
    empty = Served(tmp_path)
    page = open_page("", url=empty.url("#/"))
    expect(page.locator(".empty")).to_contain_text("logpi rl --model")
    empty.stop()


def test_the_page_goes_on_when_the_server_is_back(open_page: Open, runs: Path) -> None:
    own = Served(runs)
    page = open_page("", url=own.url("#/"), allowed="ERR_CONNECTION_REFUSED")
    expect(page.locator("#lost")).to_be_hidden()
    own.stop()
    expect(page.locator("#lost")).to_have_text("server gone, reconnecting…")
    own.start()
    expect(page.locator("#lost")).to_be_hidden()
    own.stop()


def test_without_the_token_nothing_is_shown(open_page: Open, served: Served) -> None:
    address = served.url("#/").replace("token=secret", "token=wrong")
    page = open_page("", url=address, allowed="403")
    expect(page.get_by_role("alert")).to_contain_text("token")


# --------------------------------------------------------------------------------- one run


def test_a_chart_tells_its_numbers_in_three_ways(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(f"#/run/{ids['all']}")
    panel = page.locator("figure[aria-label=reward]")
    expect(panel.locator("canvas")).to_have_count(1)
    expect(panel.locator(".hidden")).to_have_text(
        "reward: last 1 at step 10, lowest 0.1, highest 1."
    )
    expect(panel.locator(".meaning")).not_to_be_empty()
    panel.get_by_role("button", name="data").click()
    cells = panel.locator("tbody tr").first.locator("th, td")
    expect(cells).to_have_text(["10", "1"])
    expect(panel.locator("tbody tr")).to_have_count(10)


def test_the_crosshair_is_shared(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(f"#/run/{ids['all']}")
    reward = page.locator("figure[aria-label=reward]")
    entropy = page.locator("figure[aria-label=entropy]")
    expect(entropy.locator(".legend b")).to_have_text("0.1")
    box = reward.locator(".u-over").bounding_box()
    assert box
    page.mouse.move(box["x"] + 1, box["y"] + 20)
    expect(reward.locator(".legend b")).to_have_text("0.1")
    expect(entropy.locator(".legend b")).to_have_text("1")  # the entropy of step 1
    page.mouse.move(0, 0)
    expect(entropy.locator(".legend b")).to_have_text("0.1")


def test_smoothing_and_hours_stand_in_the_address(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(f"#/run/{ids['all']}?smooth=0.5&x=time")
    reward = page.locator("figure[aria-label=reward]")
    # 0.5 · mean + 0.5 · value over rewards 0.1 … 1, without the bias of the beginning
    expect(reward.locator(".legend b")).to_have_text("0.901")
    reward.get_by_role("button", name="data").click()
    # ten steps of 36 seconds are a tenth of an hour; the table holds the raw reward
    expect(reward.locator("tbody tr").first.locator("th, td")).to_have_text(["0.1", "1"])
    page.get_by_label("Horizontal axis").select_option("step")
    assert "x=time" not in page.url and "smooth=0.5" in page.url


def test_other_metrics_are_found(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(f"#/run/{ids['all']}")
    page.keyboard.press("/")
    page.keyboard.type("special")
    expect(page.locator("figure:visible")).to_have_count(1)
    expect(page.locator("figure:visible .legend b")).to_have_text("100")


def test_about_shows_the_objective_and_the_arguments(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(f"#/run/{ids['rloo']}/about")
    expect(page.locator("math").first).to_be_visible()
    page.get_by_label("Search arguments").fill("lr")
    table = page.get_by_role("region", name="Arguments")
    expect(table.locator("tbody tr")).to_have_text(["lr0.0003"])


def test_seeds_are_compared_as_one_curve(open_page: Open, ids: dict[str, str]) -> None:
    chosen = ",".join(ids[name] for name in ("seed-0", "seed-1", "rloo"))
    page = open_page(f"#/compare?ids={chosen}")
    panel = page.locator("figure[aria-label=reward]")
    # (0.8 + 0.6) / 2 of the seeds, and rloo alone
    expect(panel.locator(".legend b")).to_have_text(["0.7", "0.5"])
    differs = page.get_by_role("region", name="Arguments that differ")
    expect(differs.locator("tr", has_text="algorithm")).to_contain_text("grpogrporloo")
    page.get_by_label("seeds as mean").uncheck()
    expect(panel.locator(".legend b")).to_have_text(["0.8", "0.6", "0.5"])
    assert "seeds=apart" in page.url


def test_runs_of_one_seed_are_one_curve_without_a_band(
    open_page: Open, served: Served, runs: Path, ids: dict[str, str]
) -> None:
    shutil.copytree(runs / "seed-0", runs / "copy")
    chosen = f"{ids['seed-0']},{id_of(served, 'copy')}"
    page = open_page(f"#/compare?ids={chosen}")
    panel = page.locator("figure[aria-label=reward]")
    expect(panel.locator(".legend b")).to_have_text("0.8")
    expect(panel.locator(".legend")).not_to_contain_text("seeds")
    expect(page.locator("#main")).to_contain_text("2 runs have the same seed (0) and count as one")
    shutil.rmtree(runs / "copy")


def test_runs_are_ticked_for_comparison(open_page: Open) -> None:
    page = open_page("#/")
    page.get_by_label("Compare seed-0").check()
    page.get_by_label("Compare rloo").check()
    page.get_by_role("button", name="Compare 2 runs").click()
    expect(page.locator("h1")).to_have_text("Compare 2 runs")


def test_numbers_of_a_logarithmic_axis_keep_their_digits(open_page: Open) -> None:
    page = open_page("#/")
    ask = "([v, step]) => import('/page/chart.js').then((m) => m.tick(v, step))"
    wanted = {(0.001, 0.01): "0.001", (0.5, 0.25): "0.50", (1.0002, 2e-4): "1.0002", (0, 0.01): "0"}
    assert {pair: page.evaluate(ask, list(pair)) for pair in wanted} == wanted


def test_an_address_that_names_no_page_says_so(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page("#/nosuch")
    expect(page.locator("h1")).to_have_text("There is no such page")
    move(page, f"#/run/{ids['all']}/nosuch")
    expect(page.locator("h1")).to_have_text("There is no such page")
    expect(page.locator("#crumbs")).to_contain_text("no such page")


def test_a_run_that_is_gone_leaves_no_name_above_it(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(f"#/run/{ids['rloo']}", allowed="404")
    expect(page.locator("#crumbs")).to_contain_text("rloo")
    move(page, "#/run/nosuch")
    expect(page.get_by_role("alert")).to_contain_text("no such run")
    expect(page.locator("#crumbs")).to_have_text("Runsnot there")


def test_a_gym_run_has_no_responses(open_page: Open, served: Served, runs: Path) -> None:
    write_run(runs / "plays", [{"step": 1, "reward_100": 3.0}], command="gym")
    page = open_page(f"#/run/{id_of(served, 'plays')}/responses")
    expect(page.locator(".empty")).to_contain_text("No responses")
    expect(page.locator("[data-filter]")).to_have_count(0)
    shutil.rmtree(runs / "plays")


# --------------------------------------------------------------------------------- responses


def test_responses_are_filtered_and_sorted(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(f"#/run/{ids['all']}/responses?sort=best&text=answer")
    expect(page.locator(".count")).to_have_text("400 responses of 413")
    expect(page.locator(".item").first).to_contain_text("answer number 399")
    page.get_by_label("reward to").fill("0.25")
    expect(page.locator(".count")).to_have_text("101 responses of 413")
    expect(page.locator(".item").first).to_contain_text("answer number 100")
    page.get_by_role("button", name="clear").click()
    page.get_by_label("How it stopped").select_option("length")
    expect(page.locator(".item")).to_have_count(1)
    assert "stop=length" in page.url and "reward_max" not in page.url
    page.get_by_label("How it stopped").select_option("")
    page.get_by_label("Text of prompt").fill("nowhere at all")
    expect(page.locator(".empty")).to_contain_text("None of 413 responses")


def test_a_long_list_has_few_elements(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(f"#/run/{ids['all']}/responses?from=2&to=2&sort=best")
    expect(page.locator(".item").first).to_contain_text("answer number 399")
    page.locator(".virtual").evaluate("e => e.scrollTo(0, e.scrollHeight)")
    expect(page.locator(".item").last).to_contain_text("answer number 0")
    assert page.locator(".item").count() < 60


def test_keys_walk_through_the_filtered_list(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(f"#/run/{ids['all']}/responses?from=2&to=2&sort=best")
    page.locator(".item a").first.click()
    title = page.locator("h1")
    expect(title).to_have_text("Step 2, row 399")
    page.keyboard.press("j")
    expect(title).to_have_text("Step 2, row 398")
    page.keyboard.press("k")
    expect(title).to_have_text("Step 2, row 399")
    page.keyboard.press("g")
    expect(title).to_have_text("Group 49 of step 2")
    page.keyboard.press("p")
    expect(title).to_have_text("One prompt over training")
    expect(page.locator(".answer-line")).to_have_count(400)
    page.keyboard.press("u")
    expect(page.locator(".virtual")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_group_shows_what_differs(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(f"#/run/{ids['all']}/group?step=1&group=0&order=best")
    cards = page.locator(".card")
    expect(cards).to_have_count(4)
    expect(cards.first.locator(".text")).to_have_text(PLAIN)
    expect(cards.first.locator(".dim")).to_have_text("so ")


# --------------------------------------------------------------------------------- tokens


def test_colours_and_numbers_of_tokens(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(response(ids, 1, 0))
    tokens = page.locator(".answer .tok")
    assert "".join(tokens.all_text_contents()) == PLAIN
    # advantages −1, 0, 2, 0.5 …: of five steps, the largest is the strongest
    shades = tokens.evaluate_all("all => all.map((t) => t.classList[1])")
    assert shades[:4] == ["m3", "z", "p5", "p2"]
    tokens.nth(2).hover()
    strip = page.locator(".strip")
    expect(strip).to_contain_text("advantage +2")
    expect(strip).to_contain_text("log-probability −0.5")
    expect(strip).to_contain_text("probability 0.6065")  # e^−0.5
    expect(strip).to_contain_text("entropy 0.25")
    page.keyboard.press("]")
    page.keyboard.press("]")
    page.keyboard.press("]")
    assert "colour=ratio" in page.url
    expect(tokens.first).to_have_class("tok p5")
    expect(tokens.nth(1)).to_have_class("tok z")
    page.keyboard.press("[")
    expect(page.get_by_label("entropy")).to_be_checked()
    page.locator(".tokens").focus()
    page.keyboard.press("ArrowRight")
    expect(strip).to_contain_text("token 0")
    page.keyboard.press("ArrowRight")
    expect(strip).to_contain_text("token 1")


def test_tool_turns_are_folded_and_not_coloured(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(response(ids, 3, 1, "mask"))
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".turn").first.locator(".tokens")).to_have_text("call it")
    expect(page.locator(".tool")).to_contain_text("<b>tool</b> says 4")
    expect(page.locator(".tool .tok")).to_have_count(0)
    expect(page.locator(".message .role")).to_have_text("user")


def test_a_character_of_several_tokens_is_one_piece(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(response(ids, 3, 4))
    tokens = page.locator(".answer .tok")
    assert tokens.all_text_contents() == ["a", "🦉", "b", "⟨U+2028⟩", "c"]
    tokens.nth(1).hover()
    owl = " ".join(map(str, TOKENIZER.encode("🦉").ids))
    expect(page.locator(".strip")).to_contain_text(f"id {owl}")
    expect(page.locator(".strip")).to_contain_text("advantage +0.4")


def test_what_a_model_wrote_is_never_markup(open_page: Open, ids: dict[str, str]) -> None:
    places = (
        response(ids, 3, 0),
        f"#/run/{ids['all']}/responses?from=3&to=3",
        f"#/run/{ids['all']}/group?step=3&group=0",
        f"#/run/{ids['all']}/prompt?step=3&row=0",
    )
    for place in places:
        page = open_page(place)
        text = page.locator("#main")
        expect(text).to_contain_text("␛[31mred␀ ⟨U+202E⟩gnp.exe")
        assert page.locator("#main script, #main img").count() == 0
        assert page.evaluate("window.hit") is None
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", text.inner_text())


def test_a_line_of_ten_megabytes_is_borne(open_page: Open, ids: dict[str, str]) -> None:
    start = time.monotonic()
    page = open_page(response(ids, 3, 3))
    expect(page.locator(".answer")).to_contain_text("xxxx")
    expect(page.locator(".answer .note")).to_contain_text("longer than what is shown")
    assert time.monotonic() - start < 6


def test_ten_thousand_tokens_scroll(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page(response(ids, 3, 2))
    expect(page.locator('.tok[data-i="0"]')).to_have_text("w")
    assert page.locator(".answer .tok").count() < 9000
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_timeout(300)
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    last = page.locator('.tok[data-i="11998"]')
    expect(last).to_have_text("d")
    last.hover()
    expect(page.locator(".strip")).to_contain_text("advantage +0.96")  # (98 − 50) / 50
    expect(page.locator('.tok[data-i="0"]')).to_have_count(0)


# --------------------------------------------------------------------------------- from files


def test_a_page_of_files_needs_no_server(
    open_page: Open, runs: Path, ids: dict[str, str], tmp_path: Path
) -> None:
    from logpi.viewer.static_page import write

    write(Folders([runs]), tmp_path / "page")
    address = (tmp_path / "page" / "index.html").as_uri()
    page = open_page("", url=address)
    page.evaluate(CHECKS)
    expect(page.locator("footer")).to_contain_text("first")
    page.get_by_role("link", name="rloo").click()
    reward = page.locator("figure[aria-label=reward]")
    expect(reward.locator(".legend b")).to_have_text("0.5")
    for place in places(ids):
        move(page, place)
        assert page.evaluate("checks.structure()") == [], place
    move(page, response(ids, 1, 0))
    expect(page.locator(".answer .tok").nth(2)).to_have_class("tok p5")
    move(page, f"#/run/{ids['all']}/responses?sort=best&from=3&text=owl")
    expect(page.locator(".item")).to_have_count(1)
    three = ",".join(ids[name] for name in ("seed-0", "seed-1", "rloo"))
    move(page, f"#/compare?ids={three}")
    expect(reward.locator(".legend b")).to_have_text(["0.7", "0.5"])
    ended = page.get_by_role("region", name="How they ended").locator("tbody tr")
    expect(ended.locator("td:nth-child(2)")).to_have_text(["2", "1"])


# --------------------------------------------------------------------------------- for everybody


def places(ids: dict[str, str]) -> list[str]:
    run = f"#/run/{ids['all']}"
    three = ",".join(ids[name] for name in ("seed-0", "seed-1", "rloo"))
    return [
        *(
            "#/",
            run,
            f"{run}/about",
            f"{run}/results",
            f"{run}/responses",
            f"#/compare?ids={three}",
        ),
        *(f"{run}/group?step=1&group=0", f"{run}/prompt?step=1&row=0"),
        *(response(ids, 1, 0), response(ids, 3, 1, "mask"), response(ids, 1, 0, "ratio")),
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_structure_and_contrast(open_page: Open, ids: dict[str, str], scheme: str) -> None:
    page = open_page("#/", color_scheme=scheme)
    page.evaluate(CHECKS)
    for place in places(ids):
        move(page, place)
        assert page.evaluate("checks.structure()") == [], place
        assert page.evaluate("checks.contrast()") == [], place


def test_a_phone_scrolls_in_one_direction(open_page: Open, ids: dict[str, str]) -> None:
    page = open_page("#/", viewport={"width": 390, "height": 844})
    page.evaluate(CHECKS)
    for place in places(ids):
        move(page, place)
        assert page.evaluate("checks.narrow()") == [], place


def move(page: Page, place: str) -> None:
    """To another place of the page that is open."""
    page.evaluate("document.querySelector('#main').replaceChildren()")
    page.evaluate("(place) => { location.hash = ''; location.hash = place; }", place)
    page.locator("#main h1").first.wait_for()


def test_the_theme_is_chosen_and_kept(open_page: Open) -> None:
    page = open_page("#/", color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_label("Theme").select_option("dark")
    assert page.evaluate(background) != light
    page.reload()
    expect(page.get_by_label("Theme")).to_have_value("dark")
    assert page.evaluate(background) != light
