"""Writes the sbatch script of a job: its ranks by srun, vLLM servers on nodes of their own, a
signal before the time is over, and the job in the queue again until it is done.

SLURM says who a rank is (SLURM_PROCID, SLURM_LOCALID); the script only gives these the names that
torch knows. Left out: submitting it (`commands/launch.py`), and what a cluster needs besides:
modules, containers, network settings come in `setup`, further `#SBATCH` lines in `options`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from logpi.errors import UserError

if TYPE_CHECKING:
    from logpi.distributed.launch import Placement

__all__ = ["Allocation", "script"]

# of the first server of a node
PORT = 8000


@dataclass(frozen=True)
class Allocation:
    """What is asked of SLURM.

    Attributes:
        options: of sbatch, by their long names. setup: lines of shell before anything runs.
        gpus: of a rank. notice: seconds before the end at which the ranks are told to save.
    """

    options: Mapping[str, str]
    setup: Sequence[str] = ()
    gpus: int = 1
    notice: int = 600


def script(plan: Placement, asked: Allocation) -> str:
    """The text of the script.

    Raises:
        UserError: a server does not fit onto a node.
    """
    machines = max(1, plan.machines)
    each = plan.ranks // machines
    servers = _Servers(plan, machines, each * max(1, asked.gpus))
    gpus = {"gpus-per-node": str(each * asked.gpus)} if asked.gpus else {}
    options = {
        "job-name": f"logpi-{plan.command[0]}",
        "nodes": str(machines + servers.nodes),
        **gpus,
        "requeue": "",
        "open-mode": "append",
        "signal": f"B:USR1@{asked.notice}",
        **asked.options,
    }
    lines = [
        f"#SBATCH --{name}" + (f"={shlex.quote(text)}" if text else "")
        for name, text in options.items()
    ]
    words = shlex.join(plan.words()) + servers.sampler
    return TEXT.format(
        options="\n".join(lines),
        setup="".join(f"\n{line}" for line in asked.setup),
        machines=machines,
        each=each,
        ranks=plan.ranks,
        servers=servers.text,
        step=1 if servers.nodes else 0,
        words=words,
    )


TEXT = """\
#!/bin/bash
# Written by `logpi launch --slurm`.
{options}{setup}

# srun itself no longer asks for what sbatch was given
[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
hosts=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
export MASTER_ADDR=${{hosts[0]}} MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export LOCAL_WORLD_SIZE={each} LOGPI_LAUNCH=1
{servers}
# USR1 comes before the time is over: the ranks (step {step}) save, and the job queues again.
late=
trap 'late=yes; scancel --signal=TERM "$SLURM_JOB_ID.{step}"' USR1

srun --relative=0 --nodes={machines} --ntasks={ranks} --ntasks-per-node={each} \\
    --kill-on-bad-exit=1 bash -c \\
    'export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID; exec "$@"' _ \\
    {words} &
ranks=$!
wait "$ranks"; code=$?
# a signal ends `wait`, not the ranks
[ -z "$late" ] || {{ wait "$ranks"; code=$?; }}
[ -z "$late" ] || [ "$code" = 0 ] || scontrol requeue "$SLURM_JOB_ID"
exit "$code"
"""

SERVERS = """\

# vLLM servers. The key guards sampling, not the routes that change weights: keep them inside.
export VLLM_API_KEY=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n') VLLM_SERVER_DEV_MODE=1
srun --relative={first} --nodes={nodes} --ntasks={count} --ntasks-per-node={each} bash -c \\
    'first=$((SLURM_LOCALID * {size}))
    export CUDA_VISIBLE_DEVICES=$(seq -s, $first $((first + {last})))
    exec "$@" --port $(({port} + SLURM_LOCALID))' _ \\
    {words} &
for url in {urls}; do
    until curl --silent --fail --output /dev/null "$url/health"; do
        kill -0 $! || exit 1
        sleep 5
    done
done
"""


class _Servers:
    """The part of the script that starts servers, on the nodes after the learners'."""

    def __init__(self, plan: Placement, first: int, gpus: int) -> None:
        self.nodes, self.text, self.sampler = 0, "", ""
        if not plan.samplers or plan.serve is None:
            return
        size = plan.tensor_parallel
        each = gpus // size
        if not each:
            raise UserError(
                f"a sampler of {size} GPUs does not fit onto a node of {gpus}: --samplers Nx{gpus}"
            )
        each = min(each, plan.samplers)
        self.nodes = -(-plan.samplers // each)
        places = [(first + i // each, PORT + i % each) for i in range(plan.samplers)]
        urls = [f"http://${{hosts[{host}]}}:{port}" for host, port in places]
        # the port comes last, and wins
        words = shlex.join(plan.serve("0.0.0.0", PORT))
        self.sampler = f' --sampler "vllm:{",".join(urls)}"'
        self.text = SERVERS.format(
            first=first,
            nodes=self.nodes,
            count=plan.samplers,
            each=each,
            size=size,
            last=size - 1,
            port=PORT,
            words=words,
            urls=" ".join(f'"{url}"' for url in urls),
        )
