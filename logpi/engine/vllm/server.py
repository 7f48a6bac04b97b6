"""A vLLM server as the sampler sees it: live or down, with weights of some version, sampling some
rows; and whether it is the server that this learner needs.

    live ──no answer, no progress, foreign weights──▶ down ──healthy again, weights sent──▶ live

Left out: the routes (`client.py`), who asks and when (`sampler.py`).
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from logpi.engine.vllm.client import KEY, Client, Refused, ServerDown
from logpi.errors import UserError

if TYPE_CHECKING:
    from logpi.engine.vllm.launch import ServerProcess
    from logpi.policies.causal_lm import CausalLM

# seconds: between looks at a silent server; between tries at one that is down, at first and at
# most; until one of ours that is there and does not answer is started anew
LOOK, SOON, LATE, STUCK = 5.0, 0.5, 30.0, 60.0
# starts of a server's process that may fail in a row
STARTS = 3
STARTING = "it is starting"
# what tells two models apart
SHAPE = (
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "tie_word_embeddings"),
)


class Server:
    """One server.

    Args:
        client: its routes. process: of a server that is ours to start again, or None.

    Attributes:
        live: it can be given rows. reason: why not.
        label, labels: names of the weights that this run gave it since it was last down, the last
            and all of them.
        rows: how many it is sampling. context: tokens that a row may have there.
        exact: its weights are float32.
    """

    def __init__(self, client: Client, process: ServerProcess | None = None) -> None:
        self.client, self.process = client, process
        self.live, self.reason = False, "not asked yet"
        self.label, self.labels = "", set[str]()
        self.rows, self.context, self.stops_at_text, self.exact = 0, 2**62, True, True
        # when it last did something that was noticed, or was last looked at
        self.moved = self.looked = time.monotonic()
        self.counters, self.lost_at = "", 0.0
        self.retry_at, self.delay = 0.0, SOON

    def lost(self, reason: str) -> None:
        """It is down from now on."""
        self.live, self.reason, self.rows = False, reason, 0
        self.labels.clear()
        self.lost_at = time.monotonic()
        self.retry_at, self.delay = self.lost_at + SOON, SOON

    def found(self) -> None:
        """It is live from now on."""
        self.live, self.delay = True, SOON
        self.moved = time.monotonic()

    def is_hung(self, seconds: float) -> bool:
        """Whether it has rows to sample, and has neither read nor sampled a token for so long."""
        now = time.monotonic()
        if self.rows and now - max(self.moved, self.looked) > LOOK:
            with suppress(ServerDown):
                counters = self.client.progress()
                if counters != self.counters:
                    self.counters, self.moved = counters, now
            self.looked = time.monotonic()
        return self.rows > 0 and now - self.moved > seconds

    def is_back(self) -> bool:
        """Whether a server that is down answers again; one of ours is started anew. Not asked too
        often.

        Raises:
            UserError: one of ours dies each time that it is started.
        """
        if time.monotonic() < self.retry_at:
            return False
        self._restart()
        healthy = self.client.is_healthy()
        self.retry_at = time.monotonic() + self.delay
        self.delay = min(2 * self.delay, LATE)
        return healthy

    def _restart(self) -> None:
        process, stuck = self.process, time.monotonic() - self.lost_at > STUCK
        if process is None:
            return
        hung = "hung" in self.reason or (stuck and self.reason != STARTING)
        if process.is_running() and not hung:
            return
        if process.starts >= STARTS:
            raise UserError(f"vLLM died {process.starts} times: {process.reason()}")
        process.start()
        self.reason = STARTING

    def check(self, policy: CausalLM, backend: str) -> None:
        """Whether it is a server for this learner.

        Raises:
            UserError: one line that says why not. ServerDown: it does not answer.
        """
        client = self.client
        if not client.local and client.is_open():
            raise UserError(f"{client.url} answers without an API key: start it with --api-key")
        model = client.get("/v1/models")["data"][0]
        client.model, self.context = model["id"], int(model["max_model_len"])
        config = self._config()
        self.exact = config["dtype"] == "torch.float32"
        self.stops_at_text = not config.get("skip_tokenizer_init", False)
        if config["logprobs_mode"] != "processed_logprobs":
            raise UserError(
                f"{client.url} reports log-probabilities before temperature"
                f" ({config['logprobs_mode']}): start it with --logprobs-mode processed_logprobs"
            )
        if config["backend"] != backend:
            raise UserError(
                f"{client.url} takes weights by {config['backend']}, not by {backend}: start it"
                f' with --weight-transfer-config \'{{"backend": "{backend}"}}\''
            )
        _check_model(model.get("root") or model["id"], policy, client.url)
        self._check_vocabulary(policy)
        self._check_tokenizer(policy)

    def _config(self) -> dict[str, Any]:
        """The server's own settings, which also tell that it has the routes for weights."""
        try:
            self.client.get("/weight_info")
            config = self.client.get("/server_info?config_format=json")["vllm_config"]
        except Refused as error:
            if error.status != 404:
                raise
            raise UserError(
                f"{self.client.url} has no routes for weights: start it with"
                " VLLM_SERVER_DEV_MODE=1 (vLLM 0.32 or newer), where only you can reach it"
            ) from None
        backend = (config.get("weight_transfer_config") or {}).get("backend", "nothing")
        return {**config["model_config"], "backend": backend}

    def _check_vocabulary(self, policy: CausalLM) -> None:
        """Its model must know the last of the policy's tokens, and none after it."""
        known = [self._knows(policy.vocabulary - 1), self._knows(policy.vocabulary)]
        if known != [True, False]:
            size = f"fewer than {policy.vocabulary}" if not known[0] else "more"
            raise UserError(
                f"{self.client.url} serves another model: the policy has {policy.vocabulary}"
                f" tokens, the server {size}"
            )

    def _knows(self, token: int) -> bool:
        try:
            self.client.sample([token], {"max_tokens": 1, "logprobs": 0})
        except Refused as error:
            if "vocabulary" in str(error) or "out of" in str(error):
                return False
            raise
        return True

    def _check_tokenizer(self, policy: CausalLM) -> None:
        """Both must read a text alike that has tokens from all over the vocabulary."""
        size = len(policy.tokenizer)
        text = policy.tokenizer.decode(range(0, size, max(1, size // 200)))
        body = {"prompt": text, "add_special_tokens": False}
        try:
            ids = self.client.post("/tokenize", body, seconds=60)["tokens"]
        except Refused:
            # a server without a tokenizer
            return
        if ids != policy.tokenizer(text, add_special_tokens=False)["input_ids"]:
            raise UserError(
                f"{self.client.url} has another tokenizer than the policy: start it with the"
                " policy's model, or --tokenizer"
            )


def _check_model(root: str, policy: CausalLM, url: str) -> None:
    """The server's model must have the policy's shape, as far as its configuration can be had
    here. Raises UserError."""
    from transformers import AutoConfig

    try:
        theirs = AutoConfig.from_pretrained(root, local_files_only=True).get_text_config()
    except (OSError, ValueError):
        return
    mine = policy.model.config.get_text_config()
    for name in SHAPE:
        a, b = getattr(mine, name, None), getattr(theirs, name, None)
        if a != b:
            raise UserError(
                f"{url} serves another model ({root}): its {name} is {b}, the policy's {a}"
            )


def connect(url: str) -> Server:
    """A server that somebody else started.

    Raises:
        UserError: nobody answers there, or it is another machine without a key.
    """
    client = Client(url)
    if not client.is_healthy():
        raise UserError(
            f"no vLLM server answers at {client.url}: start it, or let --sampler vllm start one"
            + ("" if client.local else f" (key: {KEY})")
        )
    return Server(client)


def started(process: ServerProcess, patience: float) -> Server:
    """A server of our own, once it answers.

    Raises:
        UserError: it died, or did not come up in `patience` seconds.
    """
    server = Server(Client(process.url), process)
    process.start()
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if server.client.is_healthy():
            return server
        if not process.is_running():
            break
        time.sleep(SOON)
    reason = process.reason()
    process.stop()
    raise UserError(f"vLLM did not start: {reason}")
