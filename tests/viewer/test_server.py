"""The viewer's HTTP over runs that are finished, running, hostile, damaged, deleted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from logpi.errors import UserError
from logpi.runs import disk
from logpi.viewer.files import Folders
from logpi.viewer.server import viewer_app
from tests.viewer.runs import byte_tokenizer, keep_tokenizer, log, make_run, row, samples

TOKEN = "a-token"
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202eevil\u0000 end"


class Viewer:
    """A server over a folder; `get` is the JSON of a route."""

    def __init__(self, *folders: Path) -> None:
        app = viewer_app(Folders(folders), TOKEN)
        self.client = TestClient(app, base_url="http://127.0.0.1:8000")

    def answer(self, path: str, **query: Any) -> Any:
        return self.client.get(path, params=query, headers={"X-Token": TOKEN})

    def get(self, path: str, status: int = 200, **query: Any) -> Any:
        answer = self.answer(f"/api/{path}", **query)
        assert answer.status_code == status, answer.text
        return answer.json()

    def whole(self, path: str, **query: Any) -> Any:
        """The answer of a route that reads further with each request, when it is complete."""
        while not (answer := self.get(path, **query))["complete"]:
            assert answer["scanned"] >= 0
        return answer

    def id(self, shown: str) -> str:
        return next(r["id"] for r in self.get("runs")["runs"] if r["path"] == shown)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three steps of two groups of two, with a tokenizer and an evaluation."""
    run = make_run(tmp_path / "runs" / "rl-1")
    for step in (1, 2, 3):
        log(run, [{"step": step, "reward": step / 10, "entropy": "nan", "step_time": 2.0}])
        rows = [row(f"{step}{i}", reward=i / 4, group=i // 2) for i in range(4)]
        rows[3] |= {"prompt": "5+5=", "stop": "length", "reward": None, "rewards": {"exact": None}}
        samples(run, step, rows)
    log(run, [{"step": 3, "eval/pass@1": 0.5, "eval/pass@1_low": 0.4, "eval/pass@1_high": 0.6}])
    item = {"kind": "sampled", "item": 7, "prompt": "1+1=", "completions": ["2", "3"]}
    item |= {"totals": [1.0, 0.0], "right": [True, False], "stop": ["eos", "eos"], "tokens": [1, 1]}
    samples(run, 3, [item], "eval")
    keep_tokenizer(run)
    return run


@pytest.fixture
def viewer(run: Path) -> Viewer:
    return Viewer(run.parent)


# --- safety ---


def test_the_api_wants_the_token_and_files_do_not(viewer: Viewer) -> None:
    client = viewer.client
    assert client.get("/api/runs").status_code == 403
    assert client.get("/api/runs", headers={"X-Token": "wrong"}).status_code == 403
    assert client.get("/api/runs", headers={"X-Token": "é".encode()}).status_code == 403
    assert client.get("/api/runs", params={"token": TOKEN}).status_code == 200
    assert client.get("/").status_code == client.get("/page/style.css").status_code == 200


def test_another_host_is_refused_so_that_no_page_elsewhere_can_ask(viewer: Viewer) -> None:
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
        answer = viewer.client.get("/api/runs", headers={"X-Token": TOKEN, "Host": host})
        assert answer.status_code == 403, host
    for host in ("127.0.0.1:1", "localhost", "[::1]:80"):
        answer = viewer.client.get("/api/runs", headers={"X-Token": TOKEN, "Host": host})
        assert answer.status_code == 200, host


def test_it_only_reads_and_every_answer_has_the_headers(viewer: Viewer) -> None:
    post = viewer.client.post("/api/runs", headers={"X-Token": TOKEN})
    assert post.status_code == 405
    for answer in (post, viewer.answer("/api/runs"), viewer.answer("/"), viewer.answer("/nosuch")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "name", ["../arguments.json", "..%2f..%2fx", "/etc/passwd", "arguments.json"]
)
def test_only_pictures_of_the_run_itself_are_files(viewer: Viewer, run: Path, name: str) -> None:
    (run / "curves.png").write_bytes(b"\x89PNG")
    id = viewer.id("rl-1")
    assert viewer.answer(f"/api/run/{id}/file", name="curves.png").content == b"\x89PNG"
    viewer.get(f"run/{id}/file", status=404, name=name)
    assert viewer.answer("/page/../server.py").status_code == 404
    assert viewer.answer("/page/%2e%2e/server.py").status_code == 404


def test_links_that_lead_outside_are_refused(tmp_path: Path, viewer: Viewer, run: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_text("secret")
    (run / "stolen.png").symlink_to(secret)
    os.unlink(run / "metrics.jsonl")
    (run / "metrics.jsonl").symlink_to(secret)
    (run / "samples" / "step-000009.jsonl").symlink_to(secret)
    os.mkfifo(run / "samples" / "step-000010.jsonl")
    outside = make_run(tmp_path / "elsewhere")
    (run.parent / "linked").symlink_to(outside)
    id = viewer.id("rl-1")
    shown = viewer.get(f"run/{id}")
    assert "stolen.png" not in shown["pictures"]
    viewer.get(f"run/{id}/file", status=404, name="stolen.png")
    viewer.get(f"run/{id}/metrics", status=403, names="reward")
    answer = viewer.get(f"run/{id}/samples")
    assert "secret" not in json.dumps(answer) and len(answer["rows"]) == 12
    assert [r["path"] for r in viewer.get("runs")["runs"]] == ["rl-1"]


def test_hostile_text_stays_text(viewer: Viewer, run: Path) -> None:
    text = HOSTILE + "\ud83d"
    samples(run, 4, [row("x") | {"completion": text, "prompt": text, "stop": text}])
    samples(run, 4, [b'{"completion": "deep", "extras": ' + b"[" * 200_000 + b"\n"])
    samples(run, 4, [b'{"completion": "n", "reward": NaN, "rewards": {"exact": Infinity}}\n'])
    id = viewer.id("rl-1")
    answer = viewer.answer(f"/api/run/{id}/samples")
    assert answer.headers["content-type"] == "application/json"
    rows = answer.json()["rows"]
    assert rows[0]["preview"] == text and rows[0]["stop"] == text
    assert rows[1]["reward"] is None and rows[1]["rewards"] == {"exact": None}
    shown = viewer.get(f"run/{id}/sample", step=4, row=0)
    assert shown["text"] == text and shown["row"]["prompt"] == text


def test_a_line_of_ten_megabytes_and_one_that_is_too_long(viewer: Viewer, run: Path) -> None:
    samples(run, 4, [row("y" * 10_000_000, ids=[]), row("z" * 17_000_000, ids=[]), row("last")])
    id = viewer.id("rl-1")
    rows = viewer.whole(f"run/{id}/samples", limit=3)["rows"]
    assert [r["too_long"] for r in rows] == [False, True, False]
    assert rows[0]["preview"] == "y" * 200 and "16 MB" in rows[1]["preview"]
    first, second = (viewer.get(f"run/{id}/sample", step=4, row=i) for i in (0, 1))
    assert first["cut"] and len(first["text"]) == 200_000 and "16 MB" in second["text"]
    assert viewer.get(f"run/{id}/sample", step=4, row=2)["text"] == "last"


# --- the list ---


def test_the_list_says_what_each_run_is(viewer: Viewer, run: Path) -> None:
    make_run(run.parent / "rl-2", seed=1)
    (run.parent / "half").mkdir()
    (run.parent / "half" / "versions.json").write_text("{}")
    make_run(run.parent / "bad")
    (run.parent / "bad" / "arguments.json").write_text("{")
    (run / "model").mkdir()
    listed = {r["path"]: r for r in viewer.get("runs")["runs"]}
    assert list(listed) == ["bad", "half", "rl-1", "rl-2"]
    assert listed["half"]["state"] == listed["bad"]["state"] == "unreadable"
    assert "arguments.json" in listed["half"]["why"] and "damaged" in listed["bad"]["why"]
    one = listed["rl-1"]
    assert (one["command"], one["algorithm"], one["state"]) == ("rl", "grpo", "done")
    assert (one["step"], one["steps"], one["reward"], one["metric"]) == (3, 3, 0.3, "reward")
    assert one["spark"] == [0.1, 0.2, 0.3] and one["samples"] and one["eta_s"] is None
    assert listed["rl-2"]["state"] == "stopped" and listed["rl-2"]["seed"] == 1


def test_a_run_that_is_written_is_running(viewer: Viewer, run: Path) -> None:
    code = (
        "import sys, pathlib\nfrom logpi.runs import disk\n"
        "held = disk.lock(pathlib.Path(sys.argv[1]) / '.lock')\nprint('held', flush=True)\n"
        "sys.stdin.read()"
    )
    arguments = json.loads((run / "arguments.json").read_text())
    arguments["arguments"]["steps"] = 10
    (run / "arguments.json").write_text(json.dumps(arguments))
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdin and writer.stdout
    assert writer.stdout.readline() == "held\n"
    [one] = viewer.get("runs")["runs"]
    assert one["state"] == "running" and one["live"] and one["eta_s"] == pytest.approx(7 * 2.0)
    writer.stdin.close()
    writer.wait()
    [one] = viewer.get("runs")["runs"]
    assert one["state"] == "stopped" and one["eta_s"] is None
    # asking takes no lock: the run can be resumed
    disk.lock(run / ".lock").release()


def test_a_collapse_is_seen(viewer: Viewer, run: Path) -> None:
    log(run, [{"step": s, "reward": 0.9} for s in range(4, 10)])
    log(run, [{"step": s, "reward": 0.0} for s in range(10, 20)])
    [one] = viewer.get("runs")["runs"]
    assert one["state"] == "collapsed" and "collapsing" in one["why"]


def test_a_deleted_run_is_a_line(viewer: Viewer, run: Path) -> None:
    id = viewer.id("rl-1")
    shutil.rmtree(run)
    for route in ("", "/metrics", "/samples", "/sample", "/group", "/prompt", "/objective"):
        assert "deleted" in viewer.get(f"run/{id}{route}", status=404)["error"]
    assert viewer.get("runs")["runs"] == []
    assert "no such run" in viewer.get("run/nosuch", status=404)["error"]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        Folders([tmp_path / "nosuch"])


# --- metrics ---


def test_metrics_come_bit_by_bit(viewer: Viewer, run: Path) -> None:
    id = viewer.id("rl-1")
    first = viewer.get(f"run/{id}/metrics", names="reward,entropy")
    assert first["step"] == [1, 2, 3] and first["columns"]["reward"] == [0.1, 0.2, 0.3]
    assert first["columns"]["entropy"] == [None] * 3 and not first["rewound"]
    log(run, [{"step": 4, "reward": "inf"}])
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "rew')
    more = viewer.get(f"run/{id}/metrics", names="reward", after=first["end"])
    assert more["step"] == [4] and more["columns"]["reward"] == [None]
    with open(run / "metrics.jsonl", "a") as file:
        file.write('ard": 0.5}\n')
    last = viewer.get(f"run/{id}/metrics", names="reward", after=more["end"])
    assert last["step"] == [5] and not last["rewound"]
    assert viewer.get(f"run/{id}/metrics", names="reward", after=last["end"])["step"] == []


def test_metrics_of_a_run_that_went_back_begin_again(viewer: Viewer, run: Path) -> None:
    id = viewer.id("rl-1")
    end = viewer.get(f"run/{id}/metrics", names="reward")["end"]
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    # a resumed run replaces the file; then it is as long as before, or longer
    disk.write(run / "metrics.jsonl", lines[0])
    log(run, [{"step": s, "reward": 0.7, "entropy": 0.0} for s in range(2, 9)])
    again = viewer.get(f"run/{id}/metrics", names="reward", after=end)
    assert again["rewound"] and again["step"] == list(range(1, 9))
    assert viewer.get("runs")["runs"][0]["step"] == 8


def test_panels_say_what_metrics_mean(viewer: Viewer) -> None:
    panels = {p["title"]: p for p in viewer.get(f"run/{viewer.id('rl-1')}")["panels"]}
    assert panels["evaluation"]["metrics"] == ["eval/pass@1"]
    assert panels["evaluation"]["band"] == ["eval/pass@1_low", "eval/pass@1_high"]
    assert panels["reward"]["meaning"] and panels["reward"]["worry"]


# --- responses ---


def test_responses_by_filters_and_orders(viewer: Viewer) -> None:
    id = viewer.id("rl-1")

    def some(**query: Any) -> list[tuple[int, int]]:
        answer = viewer.whole(f"run/{id}/samples", **query)
        assert answer["scanned"] == answer["of"]
        return [(r["step"], r["row"]) for r in answer["rows"]]

    assert some()[:5] == [(3, 0), (3, 1), (3, 2), (3, 3), (2, 0)]
    assert some(sort="best", limit=2) == [(3, 2), (2, 2)]
    assert some(sort="worst", limit=2) == [(3, 0), (2, 0)]
    assert some(reward_min=0.5) == [(3, 2), (2, 2), (1, 2)]
    assert some(**{"from": 2, "to": 2, "reward_max": 0.25}) == [(2, 0), (2, 1)]
    assert some(stop="length") == [(3, 3), (2, 3), (1, 3)] and some(stop="nosuch") == []
    assert some(part="exact", part_min=1, limit=1) == [(3, 0)]
    assert some(part="exact", part_min=2) == [] and some(length_min=3) == []
    assert some(text="5+5=", offset=1) == [(2, 3), (1, 3)]
    # by text: "21" is a completion of step 2; "ids" and "reward" are in every line, but no text
    assert some(text="21") == [(2, 1)] and some(text="ids") == some(text="reward") == []
    viewer.get(f"run/{id}/samples", status=400, sort="nosuch")
    viewer.get(f"run/{id}/samples", status=400, reward_min="x")
    viewer.get(f"run/{id}/samples", status=400, kind="nosuch")


def test_an_evaluations_items_are_responses(viewer: Viewer) -> None:
    id = viewer.id("rl-1")
    rows = viewer.get(f"run/{id}/samples", kind="eval")["rows"]
    assert [(r["preview"], r["reward"], r["right"], r["group"]) for r in rows] == [
        ("2", 1.0, True, 7),
        ("3", 0.0, False, 7),
    ]
    assert viewer.get(f"run/{id}")["sample_kinds"] == {"step": [1, 2, 3], "eval": [3]}


def test_a_samples_file_that_grows_or_is_replaced(viewer: Viewer, run: Path) -> None:
    id = viewer.id("rl-1")
    assert viewer.get(f"run/{id}/samples", text="new")["rows"] == []
    path = samples(run, 3, [row("new"), b'{"completion": "half'])
    answer = viewer.get(f"run/{id}/samples", text="new")
    assert [(r["step"], r["row"]) for r in answer["rows"]] == [(3, 4)] and answer["complete"]
    samples(run, 3, [b'"}\n'])
    assert viewer.get(f"run/{id}/samples", limit=9)["rows"][5]["preview"] == "half"
    # the run goes back to step 2 and takes step 3 again
    path.unlink()
    assert viewer.get(f"run/{id}/samples")["matched"] == 8
    samples(run, 3, [row("again")])
    assert viewer.get(f"run/{id}/samples")["rows"][0]["preview"] == "again"


def test_one_response_token_by_token(viewer: Viewer, run: Path) -> None:
    samples(run, 5, [row("né", advantage=[0.1, "nan", 0.3], logp=[-1.0, -2.0, -3.0], entropy=None)])
    id = viewer.id("rl-1")
    shown = viewer.get(f"run/{id}/sample", step=5, row=0)
    tokens = shown["tokens"]
    assert tokens["pieces"] == ["n", "", "é"] and tokens["ids"] == [110, 0xC3, 0xA9]
    assert tokens["advantage"] == [0.1, None, 0.3] and tokens["logp"] == [-1.0, -2.0, -3.0]
    assert tokens["entropy"] is None and tokens["mask"] == [1, 1, 1] and tokens["of"] == 3
    assert shown["previous"] == {"step": 3, "row": 3} and shown["next"] is None
    part = viewer.get(f"run/{id}/sample", **{"step": 5, "row": 0, "from": 2, "count": 1})["tokens"]
    assert (part["from"], part["pieces"], part["logp"]) == (2, ["é"], [-3.0])
    first = viewer.get(f"run/{id}/sample", step=1, row=3)
    assert first["next"] == {"step": 2, "row": 0} and first["tokens"]["mask"] == [0, 0]
    viewer.get(f"run/{id}/sample", status=404, step=1, row=4)
    viewer.get(f"run/{id}/sample", status=404, step=9, row=0)


def test_special_tokens_that_a_text_hides_are_named(viewer: Viewer, run: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(["<pad>", "<eos>"])
    pad, eos = (tokenizer.token_to_id(name) for name in ("<pad>", "<eos>"))
    (run / "tokenizer" / "tokenizer.json").write_text(tokenizer.to_str())
    rows = [
        row("77", ids=[pad, 55, 55], stop="length"),
        row("7", ids=[55, eos]),
        row("7", ids=[55, eos, pad, eos]),
        row("<pad>7", ids=[pad, 55], stop="length"),
        {k: v for k, v in row("7").items() if k != "ids"},
    ]
    samples(run, 5, rows)
    id, wanted = viewer.id("rl-1"), [["<pad>"], [], ["<eos>", "<pad>"], [], []]
    group = viewer.get(f"run/{id}/group", step=5, group=0)
    assert [r["special"] for r in group["rows"]] == wanted
    listed = viewer.get(f"run/{id}/samples", **{"from": 5})["rows"]
    assert [r["special"] for r in sorted(listed, key=lambda r: r["row"])] == wanted
    assert viewer.get(f"run/{id}/sample", step=5, row=2)["row"]["special"] == wanted[2]
    shutil.rmtree(run / "tokenizer")
    bare = Viewer(run.parent).get(f"run/{id}/group", step=5, group=0)["rows"]
    assert "special" not in bare[0]


def test_rows_of_older_versions_and_without_a_tokenizer(viewer: Viewer, run: Path) -> None:
    samples(run, 5, [{"prompt": "p", "completion": "c", "reward": 1.0}, row("x", logp=[1.0, 2.0])])
    shutil.rmtree(run / "tokenizer")
    id = viewer.id("rl-1")
    old = viewer.get(f"run/{id}/sample", step=5, row=0)
    assert old["text"] == "c" and old["tokens"]["pieces"] is None and old["tokens"]["why"]
    new = viewer.get(f"run/{id}/sample", step=5, row=1)["tokens"]
    assert "no tokenizer" in new["why"] and new["ids"] == [120] and new["advantage"] == [0.5]
    # two numbers for one token are another version's
    assert new["logp"] is None


def test_turns_a_group_and_a_prompts_history(viewer: Viewer, run: Path) -> None:
    talk = [
        {"tokens": 1, "text": "a", "shown": "tool says", "reward": 0.0, "observed": 3},
        {"tokens": 1, "text": "b", "shown": "", "reward": 0.5, "observed": 0},
    ]
    samples(run, 5, [row("ab", turns=talk, counts={"calls": 1}), row("abc", group=0)])
    id = viewer.id("rl-1")
    shown = viewer.get(f"run/{id}/sample", step=5, row=0)
    assert [t["shown"] for t in shown["turns"]] == ["tool says", ""] and shown["row"]["turns"] == 2
    group = viewer.get(f"run/{id}/group", step=5, group=0)
    assert [r["text"] for r in group["rows"]] == ["ab", "abc"] and group["common_prefix"] == 2
    viewer.get(f"run/{id}/group", status=404, step=5, group=9)
    history = viewer.get(f"run/{id}/prompt", step=2, row=3)
    assert history["prompt"] == "5+5=" and history["complete"]
    assert [(s["step"], [r["row"] for r in s["rows"]]) for s in history["steps"]] == [
        (1, [3]),
        (2, [3]),
        (3, [3]),
    ]
    assert viewer.get(f"run/{id}/samples", text="tool says")["matched"] == 1


def test_ten_thousand_responses_are_quick(viewer: Viewer, run: Path) -> None:
    for step in range(100, 200):
        samples(run, step, [row(f"{step} {i}", group=i) for i in range(100)])
    id = viewer.id("rl-1")
    begin = time.process_time()
    first = viewer.get(f"run/{id}/samples")
    assert first["rows"][0]["step"] == 199 and time.process_time() - begin < 2
    while not (answer := viewer.get(f"run/{id}/samples", sort="best"))["complete"]:
        assert answer["scanned"] < answer["of"] * 1.1
    assert answer["matched"] == 10_012 == answer["of"]
    begin = time.process_time()
    viewer.get(f"run/{id}/samples", sort="worst", reward_min=0.1, offset=5000)
    assert time.process_time() - begin < 1


# --- other runs ---


def test_several_seeds_and_a_sweep(tmp_path: Path) -> None:
    home = make_run(tmp_path / "seeds", "gym", seed=4, seeds=2, env="CartPole-v1")
    for seed in (4, 5):
        child = make_run(
            home / f"seed-{seed}", "gym", seed=seed, env="CartPole-v1", task=None, steps=100
        )
        log(child, [{"step": 2, "reward_100": seed - 1.0, "num_tokens_seen": 50.0}])
        (home / f"seed-{seed}.log").write_text("a line\nanother\n")
    measures = {"reward": {"values": [3.0, 4.0], "mean": 3.5, "interval95": 6.35}}
    record = {"final": [3.0, 4.0], "measures": measures}
    (home / "seeds.json").write_text(json.dumps(record))
    cell = {"settings": {"lr": "1e-4"}, "runs": {"a": {"numbers": {"x": 1.0}, "failure": ""}}}
    (home / "sweep.json").write_text(json.dumps({"measure": "x", "cells": {"a": cell}}))
    (home / "held_out.json").write_text("[damaged")
    samples(home / "seed-5", 2, [{"seed": 7, "return": 8.0}], "eval")
    viewer = Viewer(tmp_path)
    shown = viewer.get(f"run/{viewer.id('seeds')}")
    assert shown["state"] == "done" and len(shown["seeds"]) == 2
    tables = {t["title"]: t for t in shown["tables"]}
    assert tables["seeds"]["rows"] == [["reward", 3.5, 6.35, 3.0, 4.0]]
    assert tables["seeds"]["columns"][3:] == ["seed 4", "seed 5"]
    assert tables["sweep"]["rows"] == [["a", "1e-4", 1.0, ""]]
    assert [r[0] for r in tables["runs inside"]["rows"]] == ["seeds/seed-4", "seeds/seed-5"]
    child = viewer.get(f"run/{viewer.id('seeds/seed-5')}")
    # an episode's return is no response
    assert not child["samples"] and child["sample_kinds"] == {"step": [], "eval": []}
    assert child["log"] == ["a line", "another"] and child["metric"] == "reward_100"
    # 25 environment steps each update
    assert child["steps"] == 4 and child["task"] == "CartPole-v1"
    answer = viewer.get("compare", ids=",".join(shown["seeds"]))
    assert answer["differing"] == [["seed", [4, 5]]] and len(answer["groups"]) == 1
    assert answer["table"]["rows"][0][:4] == ["gym grpo", 2, 3.5, pytest.approx(6.355)]
    viewer.get("compare", status=400, ids="")
    viewer.get("compare", status=404, ids="nosuch")


def test_the_objective_as_mathematics(viewer: Viewer, run: Path) -> None:
    make_run(run.parent / "own", algorithm="mine.py:method")
    make_run(run.parent / "play", "eval", algorithm=None)
    answer = viewer.get(f"run/{viewer.id('rl-1')}/objective")
    assert answer["title"] == "grpo" and answer["mathml"].startswith("<math xmlns=")
    assert "&" not in answer["mathml"] and ["KL", "–"] in answer["parts"]
    assert "not run" in viewer.get(f"run/{viewer.id('own')}/objective")["why"]
    assert "no objective" in viewer.get(f"run/{viewer.id('play')}/objective")["why"]
