"""Places the ranks of a job with Ray: placement groups for devices, an actor for each rank and each
vLLM server, which runs the same command with the same environment as torchrun would.

    --learners 8     eight bundles wherever there is room, on few machines if possible
    --learners 2x4   two bundles of four devices, on two machines

Ray forwards what the ranks print. Left out: a cluster (`ray start`), the code on its machines
(logpi must be installed there, and files be where the command says), and dead actors: all ranks
end, and the same command again resumes the run in its --out.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

from logpi.distributed.launch import START, Placement, answers, environment, free_port
from logpi.distributed.processes import LOOK, LocalProcess, finished, passed_on
from logpi.errors import UserError, install, one_line

__all__ = ["run_on_ray"]

# seconds until devices are free; after that somebody else has them
WAIT = 600.0


class Host:
    """The actor: a command on one of the cluster's machines."""

    def __init__(self) -> None:
        self.process: LocalProcess | None = None

    def place(self) -> tuple[str, int]:
        """This machine's address, and a free port."""
        import ray  # pyright: ignore[reportMissingImports]

        return ray.util.get_node_ip_address(), free_port()

    def run(self, words: Sequence[str], env: Mapping[str, str], cwd: str) -> tuple[int, str]:
        """Run a command to its end; its exit code and its own words."""
        self.process = LocalProcess(words, env, cwd if os.path.isdir(cwd) else None)
        while (code := self.process.poll()) is None:
            time.sleep(LOOK)
        reason = self.process.reason()
        self.process.close()
        return code, reason

    def send_signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def wait_for(self, url: str) -> bool:
        """Whether a server that runs here comes up."""
        deadline = time.monotonic() + START
        while time.monotonic() < deadline:
            if answers(url):
                return True
            if self.process is not None and self.process.poll() is not None:
                return False
            time.sleep(LOOK)
        return False


class RemoteProcess:
    """A command that an actor runs."""

    def __init__(self, ray: Any, actor: Any, words: Sequence[str], env: Mapping[str, str]) -> None:
        self.ray, self.actor, self.said = ray, actor, ""
        self.result = actor.run.remote(list(words), dict(env), os.getcwd())

    def poll(self) -> int | None:
        if not self.ray.wait([self.result], timeout=0)[0]:
            return None
        try:
            code, self.said = self.ray.get(self.result)
        except self.ray.exceptions.RayError as error:
            # the last of its lines says why
            code, self.said = 1, f"its actor died: {one_line(error)[-300:]}"
        return code

    def send_signal(self, number: int) -> None:
        if number == signal.SIGKILL:
            self.ray.kill(self.actor)
        else:
            self.actor.send_signal.remote(number)

    def reason(self) -> str:
        return self.said


def run_on_ray(plan: Placement, address: str) -> int:
    """Run it on the cluster at `address` ("auto": the one of this machine; "local": a new one); the
    exit code of the first rank that failed, or 0.

    Raises:
        UserError: ray is missing, there is no such cluster, or it has too few devices.
    """
    ray = _connected(address)
    try:
        kind = "GPU" if ray.cluster_resources().get("GPU") else "CPU"
        each = plan.ranks // plan.machines if plan.machines else 1
        machines = [node["Resources"].get(kind, 0) for node in ray.nodes() if node["Alive"]]
        _check_room(machines, kind, plan, each)
        apart = "STRICT_SPREAD" if plan.machines > 1 else "PACK"
        learners = _group(ray, kind, [each] * (plan.ranks // each), apart)
        bundles = [plan.tensor_parallel] * plan.samplers
        samplers = _group(ray, kind, bundles, "PACK") if bundles else None
        actors = [_actor(ray, kind, learners, r // each, 1) for r in range(plan.ranks)]
        servers = [
            _actor(ray, kind, samplers, i, plan.tensor_parallel) for i in range(plan.samplers)
        ]
        # servers that answer on a network need a key
        key = {"VLLM_API_KEY": os.environ.get("VLLM_API_KEY") or secrets.token_hex(16)}
        urls = _served(ray, plan, servers, key)
        processes = _ranks(ray, plan, actors, urls, key if urls else {})
        with passed_on(processes):
            code = finished(processes, plan.patience)
        # Ray's forwarding of the last lines
        time.sleep(2.0)
        return code
    finally:
        ray.shutdown()


def _connected(address: str) -> Any:
    """Ray, joined to the cluster."""
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise UserError(f"ray is not installed: {install('scale')}") from None
    try:
        ray.init(None if address == "local" else address, log_to_driver=True, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no Ray cluster at {address}: {one_line(error)[:200]} (start one: ray start --head)"
        ) from None
    return ray


def _check_room(machines: Sequence[float], kind: str, plan: Placement, each: int) -> None:
    """Raises UserError if the cluster's machines, with so many devices, can never hold the plan."""
    if plan.devices > sum(machines):
        raise UserError(
            f"{plan.ranks} learners and {plan.samplers} samplers need {plan.devices} {kind}s, and"
            f" the Ray cluster has {sum(machines):.0f}"
        )
    for count, size in ((plan.machines, each), (min(1, plan.samplers), plan.tensor_parallel)):
        if count > (fitting := sum(devices >= size for devices in machines)):
            raise UserError(
                f"{count} machines with {size} {kind}s are needed, and the Ray cluster has"
                f" {fitting}"
            )


def _group(ray: Any, kind: str, sizes: Sequence[int], strategy: str) -> Any:
    """A placement group with a bundle of so many devices each."""
    bundles = [{"CPU": size} if kind == "CPU" else {"CPU": size, kind: size} for size in sizes]
    group = ray.util.placement_group(bundles, strategy=strategy)
    if not ray.wait([group.ready()], timeout=WAIT)[0]:
        raise UserError(
            f"the Ray cluster has no room for {len(sizes)} x {sizes[0]} {kind}s within"
            f" {WAIT / 60:.0f} minutes: others use them, or no machine has so many"
        )
    return group


def _actor(ray: Any, kind: str, group: Any, bundle: int, size: int) -> Any:
    where = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
        group, placement_group_bundle_index=bundle
    )
    gpus = size if kind == "GPU" else 0
    # it can be asked while its command runs
    options = {"num_cpus": size, "num_gpus": gpus, "max_concurrency": 4}
    return ray.remote(Host).options(scheduling_strategy=where, **options).remote()


def _served(ray: Any, plan: Placement, actors: Sequence[Any], key: Mapping[str, str]) -> list[str]:
    """Start a server in each actor; their addresses, once all answer."""
    serve = plan.serve
    if serve is None or not actors:
        return []
    places = ray.get([actor.place.remote() for actor in actors])
    env = {"VLLM_SERVER_DEV_MODE": "1", **key}
    for actor, (host, port) in zip(actors, places):
        RemoteProcess(ray, actor, serve(host, port), env)
    urls = [f"http://{host}:{port}" for host, port in places]
    up = ray.get([actor.wait_for.remote(url) for actor, url in zip(actors, urls)])
    if not all(up):
        i = up.index(False)
        raise UserError(f"vLLM did not start at {urls[i]}: its log above says why")
    return urls


def _ranks(
    ray: Any, plan: Placement, actors: Sequence[Any], urls: Sequence[str], key: Mapping[str, str]
) -> list[RemoteProcess]:
    """Start the ranks, numbered within each machine."""
    places = ray.get([actor.place.remote() for actor in actors])
    hosts = [host for host, _ in places]
    processes = []
    for rank, (actor, host) in enumerate(zip(actors, hosts)):
        local = (hosts[:rank].count(host), hosts.count(host))
        env = {**environment(rank, plan.ranks, local, places[0]), **key}
        processes.append(RemoteProcess(ray, actor, plan.words(urls), env))
    return processes
