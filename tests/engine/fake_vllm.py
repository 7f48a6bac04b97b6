"""A server that answers like vLLM and holds our own decoder: tokens and log-probabilities are real.

It can be killed, hung, started anew, and can be wrong in every way that the sampler must notice.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors.torch import load_file

from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling
from logpi.policies.causal_lm import CausalLM


class Unknown(Exception):
    """HTTP 404 or another refusal."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Wrong:
    """What is wrong with a server; nothing, as it stands."""

    logprobs_mode: str = "processed_logprobs"
    backend: str = "files"
    dtype: str = "torch.float32"
    has_weights_routes: bool = True
    has_generate: bool = True
    key: str = ""
    # weights that are named and not read: so many times
    ignores_weights: int = 0
    # it dies after so many more rows (−1: never)
    dies_after: int = -1
    root: str = ""
    tokenizer: Any = None


@dataclass
class FakeVLLM:
    """`policy` as a server at `url`; changed weights come by files alone."""

    policy: CausalLM
    wrong: Wrong = field(default_factory=Wrong)
    context: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self.first = copy.deepcopy(self.policy)
        self.lock, self.awake = threading.Lock(), threading.Event()
        self.calls, self.rows = [], []
        self.start()

    # --- life ---

    def start(self) -> None:
        """A fresh server on the same port, with the weights of the beginning."""
        self.policy = copy.deepcopy(self.first)
        self.engine, self.label, self.paused = Engine(self.policy), "default", False
        self.tokens = 0
        self.awake.set()
        self.http = self.listen()
        self.http.fake, self.http.dead = self, False
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def listen(self) -> _HTTP:
        """The port may still be that of the server that was killed."""
        for _ in range(200):
            try:
                return _HTTP(("127.0.0.1", self.port), _Handler)
            except OSError:
                time.sleep(0.05)
        raise OSError(f"port {self.port} stays in use")

    def kill(self) -> None:
        """Nobody gets an answer any more, those that wait for one neither."""
        self.http.dead = True
        self.awake.set()
        # not by a thread that is serving
        threading.Thread(target=self.http.shutdown, daemon=True).start()
        self.http.server_close()

    def hang(self) -> None:
        self.awake.clear()

    def wake(self) -> None:
        self.awake.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- routes ---

    def answer(self, path: str, query: str, body: Any, key: str) -> Any:
        self.calls.append(path)
        if self.wrong.key and path.startswith(("/v1", "/inference")) and key != self.wrong.key:
            raise Unknown(401, "Unauthorized")
        routes = {
            "/health": lambda: None,
            "/metrics": lambda: f"vllm:generation_tokens_total{{}} {self.tokens}\n",
            "/v1/models": self.models,
            "/v1/completions": lambda: self.completions(body),
            "/tokenize": lambda: self.tokenize(body),
        }
        if self.wrong.has_generate:
            routes["/inference/v1/generate"] = lambda: self.generate(body)
        if self.wrong.has_weights_routes:
            routes |= {
                "/server_info": self.info,
                "/weight_info": lambda: {"weight_version": self.label},
                "/is_paused": lambda: {"is_paused": self.paused},
                "/pause": lambda: self.pause(True),
                "/resume": lambda: self.pause(False),
                "/init_weight_transfer_engine": lambda: {},
                "/start_weight_update": self.check_paused,
                "/update_weights": lambda: self.load(Path(body["update_info"]["path"])),
                "/finish_weight_update": lambda: self.name(body["weight_version"]),
                "/reset_prefix_cache": self.check_paused,
                "/abort_requests": lambda: {},
            }
        if path not in routes:
            raise Unknown(404, "Not Found")
        return routes[path]()

    def models(self) -> Any:
        length = self.context or self.policy.context
        return {"data": [{"id": "m", "root": self.wrong.root or "m", "max_model_len": length}]}

    def info(self) -> Any:
        model = {"logprobs_mode": self.wrong.logprobs_mode, "skip_tokenizer_init": False}
        model["dtype"] = self.wrong.dtype
        transfer = {"backend": self.wrong.backend}
        return {"vllm_config": {"model_config": model, "weight_transfer_config": transfer}}

    def tokenize(self, body: Any) -> Any:
        tokenizer = self.wrong.tokenizer or self.policy.tokenizer
        return {"tokens": tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]}

    def pause(self, paused: bool) -> Any:
        self.paused = paused
        return {}

    def check_paused(self) -> Any:
        assert self.paused, "weights and caches change within /pause and /resume only"
        return {}

    def load(self, path: Path) -> Any:
        self.check_paused()
        if self.wrong.ignores_weights:
            self.wrong.ignores_weights -= 1
            return {}
        state = {k: v for f in path.glob("model*.safetensors") for k, v in load_file(f).items()}
        with self.lock:
            self.policy.model.load_state_dict(state, strict=False)
            self.policy.model.tie_weights()
        return {}

    def name(self, version: str) -> Any:
        self.label = version
        return {}

    def generate(self, body: Any) -> Any:
        choice = self.sample(body["token_ids"], body["sampling_params"])
        logp = choice.pop("logp")
        spans = [{"version": self.label, "start": 0, "end": len(logp)}]
        content = {"content": [{"logprob": x} for x in logp]}
        return {"choices": [{**choice, "logprobs": content, "weight_versions": spans}]}

    def completions(self, body: Any) -> Any:
        choice = self.sample(body["prompt"], body)
        return {"choices": [{**choice, "logprobs": {"token_logprobs": choice.pop("logp")}}]}

    def sample(self, prompt: list[int], given: Any) -> dict[str, Any]:
        if max(prompt) >= self.policy.vocabulary:
            raise Unknown(400, f"Token id {max(prompt)} is out of vocabulary")
        if self.wrong.dies_after == 0 and given.get("ignore_eos"):
            self.kill()
            raise ConnectionError
        self.wrong.dies_after -= bool(given.get("ignore_eos"))
        greedy = given.get("temperature", 1.0) == 0.0
        temperature = 1.0 if greedy else given.get("temperature", 1.0)
        raw = self.wrong.logprobs_mode == "says processed, is raw"
        sampling = Sampling(temperature, stop=tuple(given.get("stop", ())))
        request = Request(
            prompt, greedy=greedy, max_tokens=given["max_tokens"], seeds=(given.get("seed", 0),)
        )
        self.rows.append((tuple(prompt), given.get("seed")))
        with self.lock:
            time.sleep(0.002)
            [[row]] = self.engine.generate([request], sampling)
            logp = row.logp if not raw else self.untempered(prompt, row.tokens)
        self.tokens += len(row.tokens)
        finish = "length" if row.stop == "length" else "stop"
        return {
            "token_ids": row.tokens.tolist(),
            "logp": logp.tolist(),
            "finish_reason": finish,
        }

    def untempered(self, prompt: list[int], tokens: torch.Tensor) -> torch.Tensor:
        ids = torch.tensor([[*prompt, *tokens.tolist()]])
        with torch.no_grad(), self.policy.plain_attention():
            logits = self.policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]


class _HTTP(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    fake: FakeVLLM
    dead: bool

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that have gone are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _HTTP

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        fake, parts = self.server.fake, urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        key = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        fake.awake.wait()
        status = 200
        try:
            if self.server.dead:
                raise ConnectionError
            value = fake.answer(parts.path, parts.query, body, key)
        except Unknown as error:
            status, value = error.status, {"error": {"message": str(error)}}
        except (AssertionError, KeyError) as error:
            status, value = 500, {"error": {"message": str(error)}}
        fake.awake.wait()
        if self.server.dead:
            raise ConnectionError
        data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""
