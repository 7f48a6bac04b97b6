"""`logpi launch`: two ranks here give the run of one process, through Ctrl-C and a killed rank; the
sbatch script is run with a stand-in for SLURM; Ray where it is installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logpi.cli import main
from logpi.commands.launch import read
from logpi.distributed.launch import Placement, free_port, run_here
from logpi.distributed.processes import LocalProcess, finished
from logpi.errors import UserError
from logpi.policies.causal_lm import CausalLM
from logpi.runs.metrics import read_metrics
from tests.tiny import tiny_model, tiny_tokenizer

STEPS = 12
# it takes its time, so that a signal comes before the end
REWARD = """\
import time

def even(completions, **_):
    time.sleep(0.3)
    return [sum(c in "aeiou02468" for c in text) / 4 for text in completions]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model, a task and a reward."""
    home = tmp_path_factory.mktemp("launch")
    CausalLM(tiny_model(), tiny_tokenizer()).save(home / "tiny")
    rows = [json.dumps({"prompt": f"{i}+{i}=", "answer": str(2 * i)}) for i in range(40)]
    (home / "rows.jsonl").write_text("\n".join(rows))
    (home / "even.py").write_text(REWARD)
    return home


def words(out: str) -> list[str]:
    small = "--prompts 2 --num-generations 4 --max-completion-length 8 --eval-items 2"
    return [
        *("rl", "--model", "tiny", "--task", "rows.jsonl", "--rewards", "even.py:even"),
        *("--algorithm", "dr_grpo", "--lr", "1e-3", "--steps", str(STEPS), "--save-every", "1"),
        *(*small.split(), "--out", out),
    ]


def started(home: Path, *line: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "logpi", *line]
    return subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and what it said."""
    try:
        said = process.communicate(timeout=240)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, said


def metrics(run: Path) -> list[dict[str, float]]:
    return [row for row in read_metrics(run) if "loss" in row]


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if (run / "metrics.jsonl").exists() and len(metrics(run)) >= step:
            return
        assert process.poll() is None, ended(process)
        time.sleep(0.05)
    raise TimeoutError(f"no step {step}")


def ranks_of(launcher: int) -> dict[str, int]:
    """The process of each rank that a launcher started."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = next((v[5:].decode() for v in variables if v.startswith(b"RANK=")), None)
        if int(parent) == launcher and rank is not None:
            found[rank] = int(folder.name)
    return found


def test_two_ranks_here_are_one_process_whatever_happens(home: Path) -> None:
    code, said = ended(started(home, *words("alone")))
    assert code == 0, said
    line = ("launch", "--learners", "2", "--", *words("two"))

    launcher = started(home, *line)
    wait_for_step(home / "two", 2, launcher)
    launcher.send_signal(signal.SIGINT)
    code, said = ended(launcher)
    assert code == 130 and said.count("stopped after step") == 1, said
    assert "logpi launch:" not in said, "a stop that all agreed on needs no second line"
    done = len(metrics(home / "two"))
    assert 2 <= done < STEPS and (home / "two" / "latest").exists()

    launcher = started(home, *line)
    wait_for_step(home / "two", done + 2, launcher)
    pids = ranks_of(launcher.pid)
    assert sorted(pids) == ["0", "1"]
    os.kill(pids["1"], signal.SIGKILL)
    code, said = ended(launcher)
    assert code == 128 + signal.SIGKILL
    assert "logpi launch: rank 1 was killed by SIGKILL" in said, said
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())

    code, said = ended(started(home, *line))
    assert code == 0, said
    one, two = metrics(home / "alone"), metrics(home / "two")
    assert [row["step"] for row in two] == list(range(1, STEPS + 1))
    for a, b in zip(one, two, strict=True):
        for name, value in a.items():
            if "time" not in name:
                assert b[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name
    assert samples(home / "alone") == samples(home / "two")


def samples(run: Path) -> list[list[int]]:
    files = sorted((run / "samples").glob("step*.jsonl"))
    return [json.loads(line)["ids"] for f in files for line in f.read_text().splitlines()]


# --- waiting ---


def python(code: str) -> LocalProcess:
    return LocalProcess([sys.executable, "-c", code], {})


def both(first: str, second: str, patience: float = 5.0) -> int:
    processes = [python(first), python(second)]
    try:
        return finished(processes, patience)
    finally:
        for process in processes:
            process.close()


def test_the_first_failure_ends_all(capsys: pytest.CaptureFixture[str]) -> None:
    report = (
        "import json, os, sys; json.dump({'message': {'message': 'the disk is full'}},"
        " open(os.environ['TORCHELASTIC_ERROR_FILE'], 'w')); sys.exit(7)"
    )
    start = time.monotonic()
    assert both("import time; time.sleep(600)", report, patience=0.5) == 7
    assert time.monotonic() - start < 30
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "logpi launch: rank 1 ended with exit code 7 (the disk is full), and so all ranks ended"
    ]


def test_a_rank_that_ends_early_and_well_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert both("pass", "import time; time.sleep(1)", patience=0) == 0
    assert capsys.readouterr().err == ""


def test_ranks_do_not_outlive_a_killed_launcher(tmp_path: Path) -> None:
    note = tmp_path / "rank"
    rank = f"open({str(note)!r}, 'w').write(str(__import__('os').getpid())); {'__import__'}"
    rank += "('time').sleep(600)"
    launcher = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys; from logpi.distributed.processes import *; finished([LocalProcess("
            f"[sys.executable, '-c', {rank!r}], {{}})], 5)",
        ]
    )
    wait(lambda: note.exists() and note.read_text() != "")
    launcher.kill()
    launcher.wait()
    wait(lambda: not running(int(note.read_text())))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# --- servers here ---

RANK_HERE = """\
#!/bin/bash
echo $RANK $CUDA_VISIBLE_DEVICES "$@" > rank$RANK
"""


class Server:
    """Answers as vLLM does to who asks whether it is up."""

    def __init__(self, devices: str, note: Path) -> None:
        self.devices, self.note = devices, note
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        Path("health").write_text("")
        words = [str(Path(sys.executable).with_name("up")), str(self.port)]
        self.process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        with self.note.open("a") as note:
            print(self.devices, file=note)

    def is_running(self) -> bool:
        return self.process.poll() is None

    def reason(self) -> str:
        return "ValueError: no such model"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def test_servers_have_devices_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    up = f"#!/bin/sh\nexec {sys.executable} -m http.server --bind 127.0.0.1 $1 > /dev/null\n"
    for name, text in {"up": up, "python": RANK_HERE}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,8,9")
    servers: list[Server] = []

    def server(devices: str) -> Server:
        servers.append(Server(devices, tmp_path / "devices"))
        return servers[-1]

    plan = Placement(("rl",), 2, samplers=2, tensor_parallel=2, server=server)
    assert run_here(plan) == 0
    assert (tmp_path / "devices").read_text() == "6,7\n8,9\n"
    urls = ",".join(s.url for s in servers)
    for rank in "01":
        said = (tmp_path / f"rank{rank}").read_text()
        assert said == f"{rank} 4,5 -m logpi rl --sampler vllm:{urls}\n"
    assert not any(s.is_running() for s in servers)
    (tmp_path / "up").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match="vLLM did not start: ValueError: no such model"):
        run_here(plan)


# --- mistakes ---


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("launch --learners 2", "comes after --"),
        ("launch --learners 2 -- gym --env CartPole-v1", "in one process"),
        ("launch --learners 2 -- rll", "did you mean rl?"),
        ("launch --learners two -- rl --model M", "--learners 8, or 2x8"),
        ("launch --learners 2x4 -- rl --model M", "several need --ray or --slurm"),
        ("launch --learners 2 -- rl --model M --algoritm grpo", "did you mean --algorithm"),
        ("launch --learners 2 --samplers 0 -- rl --model M", "--samplers 4, or 4x2"),
        ("launch --learners 2 --samplers 1 -- rl --task t", "give it one"),
        ("launch --learners 2 --slurm -- rl --model M", "needs the command's --out"),
        ("launch --learners 2 --slurm --ray auto -- rl --model M", "choose one"),
        ("launch --learners 2 --submit -- rl --model M", "--slurm"),
        ("launch --learners 2 --slurm --samplers 1x8 -- rl --model M --out x", "--samplers Nx2"),
        ("launch -- rl --model M", "--learners must be given"),
    ],
)
def test_mistakes_are_one_line(
    line: str, expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(line.split())
    except SystemExit as leave:
        code = leave.code
    said = capsys.readouterr().err.splitlines()
    assert code == 2 and len(said) == 1 and expected in said[0], said
    assert not list(tmp_path.iterdir())


def test_more_ranks_than_gpus(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert main("launch --learners 2 --samplers 1x2 -- rl --model M".split()) == 2
    assert "need 4 GPUs, and this machine shows 3" in capsys.readouterr().err


def test_ray_that_is_not_there(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main("launch --learners 2 --ray auto -- rl --model M".split()) == 2
    assert "[scale]'" in capsys.readouterr().err


def test_the_command_is_what_stands_behind_the_dashes() -> None:
    options, command = read("--learners 2 -- logpi sft --model M --task t.jsonl".split())
    assert options.learners == "2"
    assert command == ["sft", "--model", "M", "--task", "t.jsonl"]


# --- SLURM ---

# Each command of SLURM's as the script needs it: two nodes, and tasks as processes of this one.
STAND_IN = {
    "scontrol": """\
if [ "$1" = show ]; then printf 'node1\\nnode2\\n'; else echo "$@" >> requeued; fi""",
    "scancel": """echo "$@" >> cancelled; kill -TERM $(cat pids)""",
    "srun": """\
while [ "$1" != bash ]; do case $1 in --ntasks=*) n=${1#*=};; esac; shift; done
export SLURM_NTASKS=$n
for ((i = 0; i < n; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$((i % 2)) "$@" & echo $! >> pids; last=$!
done
code=0; for pid in $(cat pids); do wait $pid || code=$?; done; exit $code""",
}
# A rank that writes down who it is; with STAY it waits for SIGTERM, and says that it saved.
RANK = """\
#!/bin/bash
echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT "$@" > rank$RANK
trap 'echo saved >> rank$RANK; exit 143' TERM
while [ -n "$STAY" ]; do sleep 0.1; done"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in which a script of SLURM's runs."""
    for name, text in STAND_IN.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    python = tmp_path / "python"
    python.write_text(RANK)
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


LINE = "launch --slurm --learners 2x2 --time 24:00:00 --partition gpu".split()


def test_the_script_starts_every_rank(slurm: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup = ["--setup", "export A=1", "--sbatch-options", "qos=long"]
    assert main([*LINE, *setup, "--", "rl", "--model", "M", "--system", "it's", "--out", "r"]) == 0
    shown, text = capsys.readouterr().out, (slurm / "r.sbatch").read_text()
    assert shown == text + "# written to r.sbatch; submit it with: sbatch r.sbatch\n"
    golden = Path(__file__).with_name("launch.sbatch").read_text()
    assert text.replace(sys.executable, "PYTHON") == golden
    assert subprocess.run(["bash", "r.sbatch"], timeout=60).returncode == 0
    for rank in range(4):
        told = (slurm / f"rank{rank}").read_text().split()
        assert told[:6] == [str(rank), "4", str(rank % 2), "2", "node1", "20077"]
        assert told[6:] == "-m logpi rl --model M --system it's --out r".split()
    assert not (slurm / "requeued").exists()


def test_before_the_time_is_over_ranks_save_and_the_job_queues_again(
    slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*LINE, "--", "rl", "--model", "M", "--out", "r"]) == 0
    monkeypatch.setenv("STAY", "1")
    job = subprocess.Popen(["bash", "r.sbatch"])
    wait(lambda: len(list(slurm.glob("rank?"))) == 4)
    time.sleep(0.5)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(60) == 143
    assert all("saved" in (slurm / f"rank{rank}").read_text() for rank in range(4))
    assert (slurm / "cancelled").read_text() == "--signal=TERM 77.0\n"
    assert (slurm / "requeued").read_text() == "requeue 77\n"


def test_servers_have_nodes_of_their_own(slurm: Path) -> None:
    servers = "--samplers 3x2 --gpus-per-rank 4".split()
    assert main([*LINE, *servers, "--", "rl", "--model", "M", "--out", "r"]) == 0
    text = (slurm / "r.sbatch").read_text()
    assert subprocess.run(["bash", "-n", "r.sbatch"]).returncode == 0
    assert "--nodes=3\n" in text and "--gpus-per-node=8\n" in text
    assert "--relative=2 --nodes=1 --ntasks=3 --ntasks-per-node=3" in text
    urls = ",".join(f"http://${{hosts[2]}}:{port}" for port in (8000, 8001, 8002))
    assert f'--sampler "vllm:{urls}"' in text and '"$SLURM_JOB_ID.1"' in text
    assert "--host 0.0.0.0" in text and "VLLM_API_KEY" in text
    assert '{"backend": "nccl"}' in text and "--tensor-parallel-size 2" in text


# --- Ray ---


def test_ray_places_two_ranks(home: Path) -> None:
    pytest.importorskip("ray")
    code, said = ended(
        started(home, "launch", "--ray", "local", "--learners", "2", "--", *words("r"))
    )
    assert code == 0, said
    if not (home / "alone").exists():
        assert ended(started(home, *words("alone")))[0] == 0
    assert samples(home / "alone") == samples(home / "r")


def test_ray_tells_of_a_dead_rank(home: Path) -> None:
    pytest.importorskip("ray")
    line = ["launch", "--ray", "local", "--learners", "2", "--", *words("dead")]
    launcher = started(home, *line)
    wait_for_step(home / "dead", 1, launcher)
    ranks = [f for f in Path("/proc").glob("[0-9]*") if told(f, b"RANK=1", b"LOGPI_LAUNCH=1")]
    os.kill(int(ranks[0].name), signal.SIGKILL)
    code, said = ended(launcher)
    assert code == 128 + signal.SIGKILL and "rank 1 was killed by SIGKILL" in said, said


def told(folder: Path, *variables: bytes) -> bool:
    try:
        return set(variables) <= set((folder / "environ").read_bytes().split(b"\0"))
    except OSError:
        return False
