"""`logpi view` as a process: it prints an address with a token, serves, and ends quietly."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from logpi.cli import main
from tests.viewer.runs import log, make_run, row, samples


def test_it_serves_until_ctrl_c(tmp_path: Path) -> None:
    log(make_run(tmp_path / "rl-1"), [{"step": 1, "reward": 0.5}])
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    words = [sys.executable, "-m", "logpi", "view", str(tmp_path)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout
    address = server.stdout.readline().strip()
    home, _, token = address.partition("?token=")
    request = urllib.request.Request(f"{home}api/runs", headers={"X-Token": token})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert b'"rl-1"' in answer.read()
    server.send_signal(signal.SIGINT)
    _, errors = server.communicate(timeout=20)
    assert "Traceback" not in errors and server.returncode in (0, 130, -signal.SIGINT)
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before


def test_the_folder_of_runs_may_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from starlette.testclient import TestClient

    from logpi.commands import view
    from logpi.viewer.server import viewer_app

    given = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(view, "serve", lambda folders, *rest: given.append(folders))
    assert main(["view"]) == 0 and "no runs in runs yet" in capsys.readouterr().err
    client = TestClient(viewer_app(given[0], "t"), base_url="http://127.0.0.1:8000")
    assert client.get("/api/runs?token=t").json()["runs"] == []
    log(make_run(tmp_path / "runs" / "rl-1"), [{"step": 1, "reward": 0.5}])
    monkeypatch.setattr("logpi.viewer.runs_index.KEPT", 0.0)
    assert [r["path"] for r in client.get("/api/runs?token=t").json()["runs"]] == ["rl-1"]
    assert main(["view", "nosuch"]) == 2 and len(given) == 1


def test_a_port_in_use_is_one_line(tmp_path: Path, capsys) -> None:
    make_run(tmp_path / "rl-1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["view", str(tmp_path), "--port", port]) == 2
    assert f"port {port} is in use" in capsys.readouterr().err


def test_the_page_as_files(tmp_path: Path, capsys) -> None:
    pytest.importorskip("logpi.viewer.bundle")
    run = make_run(tmp_path / "runs" / "rl-1", algorithm=None)
    for step in (1, 2, 3, 4):
        log(run, [{"step": step, "reward": 1.0 if step == 2 else 0.1}])
        samples(run, step, [row(f"<b>{step}</b>")] * 100)
    out = tmp_path / "page"
    assert main(["view", str(run.parent), "--static", str(out)]) == 0
    assert capsys.readouterr().out.endswith("index.html   1 run\n")
    [home] = [p for p in (out / "data").iterdir() if p.is_dir()]
    text = (home / "samples.js").read_text()
    # the first, the best and the last step, 64 rows of each
    assert text.count('"preview"') == 3 * 64 and "<b>2</b>" in text and "<b>3</b>" not in text
    assert (out / "index.html").is_file() and (out / "page" / "logpi.js").is_file()
    # what it wrote itself it may write again
    assert main(["view", str(run.parent), "--static", str(out)]) == 0
