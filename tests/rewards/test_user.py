"""The user's own function in its process: it may raise, hang, die, lie; the other samples keep
their rewards.

Run: python -m pytest -q tests/rewards/test_user.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from logpi.rewards import Failure, Weighted, failures, from_verl, reward, rewards, user_reward

SOURCE = """
import ctypes, os, subprocess, sys, time
import helper

def length(completions, **columns):
    print("a print of the user's must not break the reply")
    return [float(len(c)) for c in completions]

async def slow_length(prompts, completions, completion_ids, **columns):
    return [len(i) for i in completion_ids]

def by_level(completions, level):
    return [x * helper.TWO for x in level]

def trouble(completions, **columns):
    return [one(c) for c in completions]

def one(c):
    if c == "raise": raise KeyError("what\\nnow")
    if c == "hang": time.sleep(1000)
    if c == "hang in C": ctypes.CDLL(None).sleep(1000)
    if c == "spawn and hang":
        child = subprocess.Popen(["sleep", "1000"])
        open(os.environ["PID_FILE"], "w").write(str(child.pid))
        child.wait()
    if c == "die": os._exit(7)
    if c == "exit": sys.exit("enough")
    if c == "nan": return float("nan")
    if c == "text": return "1.0"
    if c == "none": return None
    return 1.0

def short(completions, **columns):
    return [1.0 for c in completions if c != "skip"]

def mean(completions, **columns):
    return [sum(map(len, completions)) / len(completions)]

def pid(completions, **columns):
    return [os.getpid() for _ in completions]

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str == ground_truth), "acc": 1}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    (folder / "helper.py").write_text("TWO = 2\n")
    (folder / "mine.py").write_text(SOURCE)
    return folder / "mine.py"


def judge(function, completions, **columns):
    try:
        return rewards([Weighted(function)]).score(
            ["?"] * len(completions), completions, None, columns
        )
    finally:
        function.close()


def gone(pid, seconds):
    """True once process `pid` has ended (or waits to be reaped)."""
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(int(seconds / 0.05)):
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_trl_signature_columns_prints_and_async(file):
    assert [s.total for s in judge(user_reward(f"{file}:length"), ["a", "bb"])] == [1.0, 2.0]
    assert [
        s.total for s in judge(user_reward(f"{file}:by_level"), "ab", level=[1, 5], unused=[0, 0])
    ] == [2.0, 10.0]
    slow = user_reward(f"{file}:slow_length")
    assert slow(["?"] * 2, "ab", completion_ids=[[1], [2, 3]]) == [1.0, 2.0]
    slow.close()


def test_verl_signature(file):
    scores = judge(
        user_reward(f"{file}:compute_score"), ["7", "8"], answer=["7", "7"], data_source=["x", "x"]
    )
    assert [s.total for s in scores] == [1.0, 0.0]
    adapted = from_verl(
        lambda data_source, solution_str, ground_truth, extra_info: len(solution_str)
    )
    assert adapted(["?"], [[{"role": "assistant", "content": "abc"}]], answer=["1"]) == [3]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("raise", "raised: KeyError: 'what\\\\nnow' (mine.py:"),
        ("hang", "hung: no answer in 0.6 s; the process was killed"),
        ("hang in C", "hung: no answer in 0.6 s"),
        ("die", "died: its process ended without an answer"),
        ("exit", "died: "),
        ("nan", "nan: returned nan"),
        ("text", "type: expected a number or None, got str"),
    ],
)
def test_only_the_guilty_sample_is_lost(file, bad, error):
    function = user_reward(f"{file}:trouble", timeout=0.6, batch_timeout=0.8)
    scores = judge(function, ["good", bad, "none", "good"])
    assert [s.total for s in scores] == [1.0, None, None, 1.0]
    assert scores[1].parts == {"trouble": None}
    assert scores[1].errors["trouble"].startswith(error.replace("\\\\", "\\"))
    assert failures(scores) == {f"trouble/{error.partition(':')[0]}": 1, "none": 1}


def test_wrong_length(file):
    """Whose the two rewards are cannot be told: none has a verdict, and one by one is not asked."""
    scores = judge(user_reward(f"{file}:short"), ["a", "skip", "b"])
    assert [s.total for s in scores] == [None, None, None]
    assert scores[0].errors["short"].startswith("length: returned 2 rewards for 3 completions")


def test_a_function_of_the_wrong_kind_is_told_before_training(file):
    function = user_reward(f"{file}:mean")
    with pytest.raises(
        ValueError,
        match="reward 'mean' judges none of 4 trial completions: length: returned 1 rewards for 4",
    ):
        rewards([Weighted(function)]).check(["prompt", "answer"], [{"prompt": "?", "answer": "7"}])
    function.close()


def test_what_the_function_started_is_killed_too(file, tmp_path, monkeypatch):
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    scores = judge(
        user_reward(f"{file}:trouble", timeout=0.5, batch_timeout=0.6), ["spawn and hang"]
    )
    assert scores[0].errors["trouble"].startswith("hung")
    assert gone(int((tmp_path / "pid").read_text()), seconds=3)


def test_the_process_ends_with_a_parent_that_is_killed(file, tmp_path):
    code = f"""
from logpi.rewards import user_reward
r = user_reward({str(file)!r} + ":trouble")
r.start()
open({str(tmp_path / "worker")!r}, "w").write(str(r._process.process.pid))
r(["?"], ["hang"])
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    note = tmp_path / "worker"
    for _ in range(200):
        if note.exists() and note.read_text():
            break
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert gone(int(note.read_text()), seconds=6)


def test_patience_bounds_the_time_of_a_batch_that_only_hangs(file):
    function = user_reward(f"{file}:trouble", timeout=0.3, batch_timeout=0.3, patience=2)
    start = time.monotonic()
    scores = judge(function, ["hang"] * 50)
    assert time.monotonic() - start < 10
    assert failures(scores) == {"trouble/hung": 2, "trouble/given_up": 48}


def test_the_process_is_kept_between_calls_and_works_off_the_main_thread(file):
    function, seen = user_reward(f"{file}:pid"), []
    threads = [
        threading.Thread(target=lambda: seen.extend(function(["?"], ["a"]))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 4 and len(set(seen)) == 1 and seen[0] != os.getpid()
    function.close()
    assert function(["?"], ["a"])[0] not in seen  # a fresh one after the old one ended
    function.close()


def test_columns_that_the_function_needs_are_checked_before_work(file):
    function = user_reward(f"{file}:by_level")
    with pytest.raises(
        ValueError, match="reward 'by_level' needs the column 'level'; the rows have: answer"
    ):
        rewards([Weighted(function)]).check(["answer"])
    function.close()
    verl = user_reward(f"{file}:compute_score")
    assert verl.start() == ("answer",)
    verl.close()


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (
            "import no_such_module\ndef f(completions): pass",
            "cannot be loaded: ModuleNotFoundError: No module named",
        ),
        ("def f(completions): pass\nraise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
        (
            "def f(completions): pass\nimport os; os._exit(1)",
            "cannot be loaded: its process ended without an answer",
        ),
    ],
)
def test_a_file_that_does_not_load_is_one_clear_line(tmp_path, source, line):
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(ValueError, match=line) as error:
        user_reward(f"{tmp_path}/bad.py:f").start()
    assert "\n" not in str(error.value)


def test_a_file_that_breaks_during_the_run_costs_verdicts_and_not_the_run(tmp_path):
    path = tmp_path / "changing.py"
    path.write_text("def f(completions): return [1.0] * len(completions)\n")
    function = user_reward(f"{path}:f")
    assert function(["?"], ["a"]) == [1.0]
    function.close()
    path.write_text("import no_such_module\n")
    scores = judge(function, ["a", "b"])
    assert [s.total for s in scores] == [None, None]
    assert "cannot be loaded: ModuleNotFoundError" in scores[0].errors["f"]


def test_the_file_is_read_when_it_is_named(file, tmp_path):
    with pytest.raises(ValueError, match="has no function 'lenght'; did you mean length?"):
        reward(f"{file}:lenght")
    with pytest.raises(
        ValueError, match=r"needs a function name: .*mine.py:NAME; it has: length, slow_length"
    ):
        reward(f"{file}")
    (tmp_path / "broken.py").write_text("def f(:\n")
    with pytest.raises(ValueError, match="is not valid Python"):
        reward(f"{tmp_path}/broken.py:f")
    odd = tmp_path / "a folder:with" / "my file.py"
    odd.parent.mkdir()
    odd.write_text("def f(completions): return [0.5] * len(completions)\n")
    named = reward(f"{odd}:f:0.25")
    assert (named.name, named.weight) == ("f", 0.25) and named.function.path == str(odd)
    assert named.function(["?"], ["a"]) == [0.5]
    named.function.close()


def test_a_failure_prints_as_kind_and_message():
    assert str(Failure("hung", "late")) == "hung: late"
