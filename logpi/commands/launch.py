"""`logpi launch`: the ranks of a job here, on a Ray cluster or by SLURM; and vLLM servers beside
them.

    logpi launch --learners 8 -- rl --model M …
    logpi launch --ray auto --learners 2x8 --samplers 4x2 -- rl --model M …
    logpi launch --slurm --learners 4x8 --time 24:00:00 -- rl --model M --out runs/x …

It places processes and tells each who it is; what they do is the job's own command, after `--`.
Left out: how they are started and waited for (`distributed/launch*.py`).
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.errors import UserError, nearest
from logpi.jobs.options.command_line import CommandLine, parse
from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from logpi.distributed.launch import Placement
    from logpi.engine.vllm.launch import ServerProcess

SUMMARY = "Start a job on several ranks: logpi launch --learners 8 -- rl --model M …"
SIZE = re.compile(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?")
# whose options come from somewhere else too
ELSEWHERE = {"--resume", "--repeat", "--config"}


@dataclass(frozen=True)
class Launch:
    """Arguments of `logpi launch`."""

    HEADING: ClassVar[str] = "placement"

    learners: str = option(
        help="ranks: N on this machine (with --ray: wherever there is room), or MACHINESxRANKS"
    )
    samplers: str = option(
        "", help="vLLM servers on devices of their own: N, or NxTP with TP devices each"
    )
    ray: str = option("", help="a Ray cluster's address; auto: this machine's; local: a new one")
    slurm: bool = option(False, help="write an sbatch script beside --out, and show it")
    submit: bool = option(False, help="with --slurm: submit it too")
    patience: float = option(
        60.0, least=0, help="seconds that the other ranks have to end after one has failed"
    )
    vllm_python: str = option(
        "", help="with --samplers: the interpreter that has vLLM (default: $LOGPI_VLLM_PYTHON)"
    )
    vllm_options: Mapping[str, Any] = option(
        {}, nargs="*", help="with --samplers: options of `vllm serve`, e.g. max_model_len=8192"
    )
    time: str = option("", help="with --slurm: the limit, e.g. 24:00:00")
    partition: str = option("", help="with --slurm")
    account: str = option("", help="with --slurm")
    gpus_per_rank: int = option(1, least=0, most=64, help="with --slurm; 0: CPUs alone")
    notice: int = option(
        600, least=60, help="with --slurm: seconds before the end at which a run saves"
    )
    sbatch_options: Mapping[str, Any] = option(
        {}, nargs="*", help="with --slurm: further options, e.g. qos=long cpus-per-task=8"
    )
    setup: tuple[str, ...] = option(
        (), nargs="*", help='with --slurm: lines before the command, e.g. "module load cuda"'
    )

    def __post_init__(self) -> None:
        if self.ray and self.slurm:
            raise ValueError("--ray and --slurm are two places: choose one")
        if self.submit and not self.slurm:
            raise ValueError("--submit submits the script of --slurm")


def main(argv: Sequence[str]) -> int:
    a, command = read(argv)
    plan = _placement(a, command)
    if a.slurm:
        return _by_slurm(a, plan)
    if a.ray:
        from logpi.distributed.launch_ray import run_on_ray

        return run_on_ray(plan, a.ray)
    if plan.machines > 1:
        raise UserError(
            f"--learners {a.learners}: here is one machine; several need --ray or --slurm"
        )
    from logpi.distributed.launch import run_here

    return run_here(plan)


def read(argv: Sequence[str]) -> tuple[Launch, list[str]]:
    """The options, and the command after `--`, read as far as its words tell what is wrong.

    Raises:
        UserError: there is none, or it is none that shares its work out.
        SystemExit: an option of either is wrong.
    """
    from logpi.commands import COMMANDS, WITH_RANKS

    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    if end == len(words) and set(words) & set(COMMANDS):
        raise UserError("what to launch comes after --: logpi launch --learners 2 -- rl --model M")
    a = parse(Launch, words[:end], "logpi launch", SUMMARY)
    command = words[end + 1 :]
    if command[:1] == ["logpi"]:
        del command[0]
    if not command:
        raise UserError("what to launch comes after --: logpi launch --learners 2 -- rl --model M")
    if command[0] not in WITH_RANKS:
        raise UserError(
            f"logpi launch -- {command[0][:60]}: {nearest(command[0], WITH_RANKS)} (the others work"
            " in one process)"
        )
    # r1 has options of its stages
    if command[0] != "r1" and not ELSEWHERE & set(command):
        prog = f"logpi {command[0]}"
        CommandLine(COMMANDS[command[0]].declaration(), prog).options(command[1:])
    return a, command


def _placement(a: Launch, command: Sequence[str]) -> Placement:
    from logpi.distributed.launch import Placement

    machines, each = _size(a.learners, "--learners", "8, or 2x8 for two machines")
    samplers, parallel = 0, 1
    if a.samplers:
        samplers, parallel = _size(a.samplers, "--samplers", "4, or 4x2 for two devices each")
        parallel = parallel or 1
    ranks = machines * each if each else machines
    servers = _Servers(a, parallel, command) if samplers else None
    return Placement(
        command=tuple(command),
        ranks=ranks,
        machines=machines if each else 0,
        samplers=samplers,
        tensor_parallel=parallel,
        serve=servers and servers.words,
        server=servers and servers.here,
        patience=a.patience,
    )


def _size(text: str, name: str, example: str) -> tuple[int, int]:
    """The two numbers of NxM; the second is 0 for N."""
    found = SIZE.fullmatch(text.strip())
    if not found:
        raise UserError(f"{name} {text[:60]!r}: e.g. {name} {example}")
    return int(found[1]), int(found[2] or 0)


def _option(command: Sequence[str], *names: str) -> str:
    """What stands behind an option of the command; "" if it has none of them."""
    for word, after in zip(command, [*command[1:], ""]):
        name, equals, text = word.partition("=")
        if name in names:
            return text if equals else after
    return ""


class _Servers:
    """How vLLM servers for the command's learners are started."""

    def __init__(self, a: Launch, parallel: int, command: Sequence[str]) -> None:
        self.model = _option(command, "--model")
        if not self.model:
            raise UserError("--samplers start from the command's --model: give it one")
        from logpi.engine.vllm.launch import vllm_python

        self.python = vllm_python(a.vllm_python)
        dtype = _option(command, "--dtype") or "float32"
        self.options = {"tensor_parallel_size": parallel, "dtype": dtype, **a.vllm_options}

    def words(self, host: str, port: int) -> list[str]:
        """On another machine, which learners reach by its network."""
        from logpi.engine.vllm.launch import serve_arguments

        arguments = serve_arguments(self.model, port, "nccl", {"host": host, **self.options})
        return [self.python, "-m", "vllm.entrypoints.cli.main", "serve", *arguments]

    def here(self, devices: str) -> ServerProcess:
        from logpi.engine.vllm.launch import ServerProcess

        return ServerProcess(self.python, self._save, "files", self.options, devices)

    def _save(self, directory: Path) -> None:
        if Path(self.model).is_dir():
            for file in Path(self.model).resolve().iterdir():
                (directory / file.name).symlink_to(file)
            return
        from logpi.policies.causal_lm import CausalLM

        CausalLM.load(self.model, device="cpu").save(directory)


def _by_slurm(a: Launch, plan: Placement) -> int:
    """Write the script, show it, and perhaps submit it."""
    from logpi.distributed.launch_slurm import Allocation, script

    out = _option(plan.command, "--out", "--resume")
    if not out:
        raise UserError(
            "--slurm needs the command's --out RUN: a job that queues again goes on there"
        )
    named = {"time": a.time, "partition": a.partition, "account": a.account}
    more = {name.replace("_", "-"): str(text) for name, text in a.sbatch_options.items()}
    options = {k: v for k, v in named.items() if v} | {"output": f"{out}-%j.log"} | more
    text = script(plan, Allocation(options, a.setup, a.gpus_per_rank, a.notice))
    path = Path(f"{out}.sbatch")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(text, end="", flush=True)
    submit = shlex.join(["sbatch", str(path)])
    if not a.submit:
        print(f"# written to {path}; submit it with: {submit}")
        return 0
    if shutil.which("sbatch") is None:
        raise UserError(f"there is no sbatch here: {submit} on a login node of the cluster")
    return subprocess.run(["sbatch", str(path)]).returncode
