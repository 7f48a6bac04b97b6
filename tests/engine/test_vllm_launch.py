"""A server of the run's own: started, started anew, and ended with all that it started, whatever
ends the run. In vLLM's place is a package of that name with our fake server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy
import pytest
import torch

from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling
from logpi.engine.vllm import launch, plugin
from logpi.engine.vllm.launch import ServerProcess, serve_arguments
from logpi.engine.vllm.sampler import VLLMSampler
from logpi.engine.vllm.server import started
from logpi.engine.vllm.weights import Files
from logpi.errors import SamplerLost, UserError
from logpi.policies.causal_lm import CausalLM
from logpi.policies.small import small_policy

ROOT = Path(__file__).parent.parent.parent
MAIN = """
import os, subprocess, sys, threading, time
assert os.environ["VLLM_SERVER_DEV_MODE"] == "1"
if os.environ.get("BROKEN"):
    raise ValueError("no such model on earth")
import torch
torch.set_num_threads(1)
from tests.engine.fake_vllm import FakeVLLM
from logpi.policies.causal_lm import CausalLM
from importlib.metadata import entry_points
assert [e.value for e in entry_points(group="vllm.general_plugins") if e.name == "logpi"][0]
subprocess.Popen(["sleep", "987"])
FakeVLLM(CausalLM.load(sys.argv[2]), port=int(sys.argv[sys.argv.index("--port") + 1]))
time.sleep(1000)
"""


@pytest.fixture
def policy() -> CausalLM:
    return small_policy("0123456789+= abcdef", width=32, layers=1, heads=2)


@pytest.fixture(autouse=True)
def vllm(tmp_path, monkeypatch) -> Iterator[Path]:
    """A package `vllm` whose command is the fake server."""
    cli = tmp_path / "vllm/entrypoints/cli"
    cli.mkdir(parents=True)
    for directory in (cli, cli.parent, cli.parent.parent):
        (directory / "__init__.py").write_text("")
    (cli / "main.py").write_text(MAIN)
    info = tmp_path / "vllm-0.32.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    yield tmp_path


def alive(pids: list[int]) -> list[int]:
    """Those that are there and no zombies."""
    out = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        out += [pid] * (state != "Z")
    return out


def descendants(pid: int) -> list[int]:
    rows = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True).stdout
    pairs = [tuple(map(int, row.split())) for row in rows.splitlines()[1:]]
    out, todo = [], [pid]
    while todo:
        parent = todo.pop()
        children = [c for c, p in pairs if p == parent]
        out += children
        todo += children
    return out


def gone(pids: list[int], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pids)


def test_a_server_is_started_anew_and_ends_with_its_children(policy) -> None:
    process = ServerProcess(sys.executable, policy.save, "files")
    server = started(process, 120)
    files = Files(policy.save)
    vllm, number = VLLMSampler(policy, [server], files, version=lambda: number), 0
    requests = [Request(policy.render(f"{a}="), 3) for a in range(3)]
    sampling = Sampling(max_tokens=8)

    def generate(who):
        groups = who.generate(requests, sampling, torch.Generator().manual_seed(1))
        return [c.tokens.tolist() for group in groups for c in group]

    assert generate(vllm) == generate(Engine(policy))
    with torch.no_grad():
        for p in policy.parameters():
            p.mul_(1.3)
    number = 1
    assert process.process is not None
    first = descendants(process.process.pid)
    assert len(first) == 2
    # the child of the killed server is ended by the supervisor
    os.kill(first[0], signal.SIGKILL)
    assert gone(first)
    assert generate(vllm) == generate(Engine(policy)) and process.starts == 2
    second = [process.process.pid, *descendants(process.process.pid)]
    vllm.close()
    assert gone(second) and not process.home.exists() and not files.directory.exists()


def test_it_ends_with_the_run_though_the_run_is_killed(policy, tmp_path) -> None:
    script = f"""
import time
from pathlib import Path
from logpi.policies.small import small_policy
from logpi.engine.vllm.launch import ServerProcess
save = small_policy("01", width=32, layers=1, heads=2).save
process = ServerProcess({sys.executable!r}, save, "files", remove=[Path({str(tmp_path / "w")!r})])
process.start()
print(process.home, flush=True)
time.sleep(1000)
"""
    (tmp_path / "w").mkdir()
    command = [sys.executable, "-c", script]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert run.stdout is not None
    home = Path(run.stdout.readline().strip())
    deadline = time.monotonic() + 120
    while len(pids := descendants(run.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(alive(pids)) == 3
    run.kill()
    run.wait()
    assert gone(pids) and not home.exists() and not (tmp_path / "w").exists()


def test_a_server_that_does_not_start_says_why(policy, monkeypatch) -> None:
    monkeypatch.setenv("BROKEN", "1")
    process = ServerProcess(sys.executable, policy.save, "files")
    with pytest.raises(UserError, match="did not start: ValueError: no such model on earth"):
        started(process, 120)


def test_a_server_that_dies_each_time_is_given_up(policy, monkeypatch) -> None:
    process = ServerProcess(sys.executable, policy.save, "files")
    vllm = VLLMSampler(policy, [started(process, 120)], Files(policy.save))
    monkeypatch.setenv("BROKEN", "1")
    assert process.process is not None
    for pid in descendants(process.process.pid):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(SamplerLost, match=r"died 3 times: ValueError: no such model on earth"):
        vllm.generate([Request(policy.render("1="), 2)], Sampling(max_tokens=4))
    vllm.close()


def test_what_vllm_is_started_with() -> None:
    given = {"tensor_parallel_size": 2, "enable-scale-out": False, "logprobs_mode": "raw_logits"}
    words = serve_arguments("dir", 8000, "nccl", given)
    assert words[0] == "dir" and "--enable-scale-out" not in words
    assert words[words.index("--tensor-parallel-size") + 1] == "2"
    assert words[words.index("--logprobs-mode") + 1] == "raw_logits"
    assert words[words.index("--weight-transfer-config") + 1] == '{"backend": "nccl"}'


def test_where_vllm_is(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(launch.PYTHON, "/a/python")
    assert launch.vllm_python("/b/python") == "/b/python"
    assert launch.vllm_python() == "/a/python"
    monkeypatch.delenv(launch.PYTHON)
    assert launch.vllm_python() == sys.executable


def test_a_row_that_is_not_read_yet_keeps_its_seed(monkeypatch) -> None:
    """On a CPU vLLM must not see the generators of such rows: it sets them back, and dies."""

    class GPUModelRunner:
        input_batch = SimpleNamespace(num_reqs=3, generators={0: "a", 2: "c", 3: "d"})
        discard_request_mask = SimpleNamespace(np=numpy.array([True, True, False, True]))

        def sample_tokens(self, grammar: str) -> tuple[str, dict[int, str]]:
            return grammar, dict(self.input_batch.generators)

    name = "vllm.v1.worker.gpu_model_runner"
    module = ModuleType(name)
    module.__dict__["GPUModelRunner"] = GPUModelRunner
    monkeypatch.setitem(sys.modules, name, module)
    for _ in range(2):
        plugin._keep_seeds()
    assert GPUModelRunner().sample_tokens("g") == ("g", {2: "c", 3: "d"})
    assert GPUModelRunner.input_batch.generators == {0: "a", 2: "c", 3: "d"}
