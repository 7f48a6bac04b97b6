"""`logpi serve --model M`: a model behind OpenAI's protocol, for other people's harnesses: lm-eval,
inspect-ai, verifiers, the `openai` client.

    logpi serve --model runs/rl-1/model
    logpi serve --follow runs/rl-1          # and takes up each new checkpoint

Left out: the protocol (`engine/openai_server/`), where weights are found (`serve_weights.py`).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.commands.listening import LOOPBACK, address_of, answering, listening
from logpi.commands.serve_weights import Weights, newest
from logpi.errors import one_line
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import changed, option
from logpi.jobs.options.model import ModelArguments

if TYPE_CHECKING:
    from logpi.engine.openai_server.service import Service

KEY = "LOGPI_API_KEY"
# at a time
CONNECTIONS = 512
# seconds between looks at a run that is followed
LOOK = 2.0


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Arguments of `logpi serve`."""

    FIRST = "model follow host port"

    model: str = option("", help="directory, hub name or .gguf file of a causal language model")
    follow: Path | None = option(
        None, help="a run: serve its newest checkpoint, and each later one as it comes"
    )
    served_model_name: str = option("", help="the name in requests (default: as --model is given)")
    host: str = option("127.0.0.1", help="address to listen on; others than loopback need a key")
    port: int = option(8000, help="of the server; 0: one that is free", least=0, most=65535)
    api_key: str = option("", help=f"what requests must carry (better: the environment's {KEY})")
    slots: int = option(16, help="samples decoded at a time", least=1, most=4096)
    max_length: int = option(
        4096, help="tokens of a prompt with its answer, at most", least=2, most=2**24
    )
    max_requests: int = option(
        256, help="samples that are made or wait, at most; others are told to come back", least=1
    )
    timeout: float = option(600, help="seconds for an answer", above=0, most=86400)
    dtype: str = changed(ModelArguments, "dtype", "float32")
    device: str = changed(ModelArguments, "device", "auto")
    template_options: Mapping[str, Any] = changed(ModelArguments, "template_options", {})
    end_token: str = changed(ModelArguments, "end_token", "")

    def __post_init__(self) -> None:
        if not self.model and self.follow is None:
            raise ValueError("nothing to serve: give --model, or --follow a run")
        if self.host not in LOOPBACK and not self.key:
            raise ValueError(
                f"--host {self.host} lets other machines in: give --api-key, or {KEY} in the"
                " environment"
            )

    @property
    def key(self) -> str:
        return self.api_key or os.environ.get(KEY, "")

    def weights(self) -> Weights:
        names = ("dtype", "device", "template_options", "end_token")
        loading = {name: getattr(self, name) for name in names}
        return Weights(self.model, self.follow, loading)


def main(argv: Sequence[str]) -> int:
    a = parse(Serve, argv, "logpi serve", "A model behind OpenAI's protocol (docs/serving.md).")
    with listening(a.host, a.port) as listener:
        service = service_of(a)
        from logpi.engine.openai_server.app import server_app

        ended = threading.Event()
        if a.follow is not None:
            threading.Thread(target=follow, args=(service, a.follow, ended), daemon=True).start()
        print(f"{address_of(a.host, listener)}/v1   model {service.name}", flush=True)
        try:
            answering(server_app(service, a.key), listener, idle=60, most=CONNECTIONS)
        finally:
            ended.set()
            service.close()
    return 0


def service_of(a: Serve) -> Service:
    """The service that the arguments describe. Raises UserError."""
    from logpi.engine.openai_server.service import Limits, Service

    weights = a.weights()
    policy, version = weights(None)
    name = a.served_model_name or a.model or str(a.follow)
    limits = Limits(slots=a.slots, requests=a.max_requests, longest=a.max_length, seconds=a.timeout)
    return Service(policy, name, version, limits, weights)


def follow(service: Service, run: Path, ended: threading.Event) -> None:
    """Take up each new checkpoint of the run until `ended`. A failure is said once, and tried
    again."""
    said, taken = "", service.scheduler.version
    while not ended.wait(LOOK):
        try:
            if newest(run).name == taken:
                continue
            taken = service.load({})["version"]
            line = f"weights: {taken}"
        except Exception as error:
            line = f"weights stay {service.scheduler.version}: {one_line(error)}"
        if line != said:
            print(f"logpi: {line}", file=sys.stderr, flush=True)
            said = line
