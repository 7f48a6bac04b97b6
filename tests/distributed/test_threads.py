"""How many threads are chosen, and that what the user set wins."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch

from logpi.distributed import threads
from logpi.distributed.processors import Processors
from logpi.distributed.threads import OURS, choose, own_number, prepare

BUSY, IDLE = Processors(2, busy=1.0), Processors(2)


@pytest.mark.parametrize(
    ("here", "share", "number", "sleeps"),
    [
        (IDLE, 1, 2, False),
        (BUSY, 1, 1, True),
        # background noise
        (Processors(2, busy=0.3), 1, 2, False),
        # nobody leaves anything: still one
        (Processors(2, busy=2.0), 1, 1, True),
        (Processors(8, quota=2.5), 1, 2, True),
        (Processors(8, quota=0.5), 1, 1, True),
        # neighbours are elsewhere: the quota cuts first
        (Processors(64, quota=4.0, busy=30.0), 1, 4, True),
        (Processors(64, quota=4.0, busy=61.8), 1, 2, True),
        (Processors(8, busy=0.3), 2, 4, False),
        (Processors(8), 3, 2, False),
        (IDLE, 5, 1, False),
    ],
)
def test_the_number_that_can_run_at_once(
    here: Processors, share: int, number: int, sleeps: bool
) -> None:
    choice = choose(here, share)
    assert (choice.threads, choice.passive) == (number, sleeps)


def test_why_is_said() -> None:
    assert (
        choose(Processors(8, 2.5, 1.04)).reason == "8 cores, a quota of 2.5, others keep 1.0 busy"
    )
    assert choose(Processors(1, math.inf)).reason == "one core"


@pytest.mark.parametrize(
    ("words", "given", "here", "expected"),
    [
        ([], {}, BUSY, {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}),
        # an idle machine keeps OpenMP's own way of waiting
        ([], {}, IDLE, {"OMP_NUM_THREADS": "2"}),
        ([], {"OMP_NUM_THREADS": "2"}, BUSY, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ([], {"MKL_NUM_THREADS": "2"}, BUSY, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ([], {"OMP_WAIT_POLICY": "ACTIVE"}, BUSY, {"OMP_NUM_THREADS": "1"}),
        ([], {"GOMP_SPINCOUNT": "0"}, BUSY, {"OMP_NUM_THREADS": "1"}),
        ([], {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "4"}, BUSY, {}),
        (["--threads", "2"], {}, BUSY, {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}),
        (["--seed=1", "--threads=3"], {}, IDLE, {"OMP_NUM_THREADS": "3"}),
        # the option's own check says what is wrong with it
        (["--threads", "many"], {}, IDLE, {"OMP_NUM_THREADS": "2"}),
        (["--threads"], {}, IDLE, {"OMP_NUM_THREADS": "2"}),
        ([], {"LOCAL_WORLD_SIZE": "2"}, Processors(8), {"OMP_NUM_THREADS": "4"}),
    ],
)
def test_what_the_user_set_wins(
    words: list[str], given: dict[str, str], here: Processors, expected: dict[str, str]
) -> None:
    env = dict(given)
    prepare(words, env, here)
    env.pop(OURS, None)
    assert env == given | expected


def test_a_child_process_knows_who_chose() -> None:
    env: dict[str, str] = {}
    prepare([], env, BUSY)
    chosen = dict(env)
    assert not own_number(env)
    prepare([], env, IDLE)
    assert env == chosen
    policy_alone = {"OMP_NUM_THREADS": "2"}
    prepare([], policy_alone, BUSY)
    assert own_number(policy_alone)


def test_processes_of_one_machine_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "processors", lambda: Processors(8, busy=2.0))
    for name in (*threads.NUMBER, *threads.POLICY, OURS):
        monkeypatch.delenv(name, raising=False)
    assert threads.shared(1) == {}
    assert threads.shared(3) == {
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "PASSIVE",
        OURS: "OMP_NUM_THREADS OMP_WAIT_POLICY|8 cores, others keep 2.0 busy, 3 processes",
    }
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert "OMP_WAIT_POLICY" not in threads.shared(3)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert threads.shared(3) == {}


def test_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OURS, "OMP_NUM_THREADS|2 cores")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    line = "2 threads, which sleep while they wait (2 cores;"
    assert threads.chosen().startswith(line)
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert threads.chosen().startswith(line.replace("sleep", "spin"))
    monkeypatch.delenv(OURS)
    assert threads.chosen() == ""


def test_the_command_line_chooses_before_torch_is_loaded() -> None:
    """In a process of its own: the variables are there when OpenMP reads them."""
    code = (
        "import os, sys; from logpi import cli; from logpi.distributed import threads\n"
        "from logpi.distributed.processors import Processors\n"
        "threads.processors = lambda: Processors(3, busy=0.9)\n"
        "assert cli.LIGHT < set(cli.COMMANDS) and 'torch' not in sys.modules\n"
        "assert cli.main(['lab', 'nosuch']) == 2\n"
        "import torch\n"
        "print(torch.get_num_threads(), os.environ['OMP_WAIT_POLICY'], file=sys.stderr)"
    )
    clean = {k: v for k, v in os.environ.items() if k not in (*threads.NUMBER, *threads.POLICY)}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "2 PASSIVE", done.stderr
