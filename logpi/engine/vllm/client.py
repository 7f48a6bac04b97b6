"""One vLLM server over HTTP: its routes as methods, and two kinds of failure.

    ServerDown     it does not answer, or its engine is dead: waiting, or another server, may help
    UserError      it refuses what it is asked: waiting does not help

Sampling goes through `/inference/v1/generate`, which says the version of the weights of every
token, or where a server lacks it through `/v1/completions`. The API key comes from the environment
and is shown nowhere. vLLM guards with it what samples, and *not* the routes that change weights: a
server belongs on loopback, behind an SSH tunnel or in a private network. Left out: when to ask what
(`server.py`, `sampler.py`).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from logpi.errors import UserError, one_line

if TYPE_CHECKING:
    import httpx

KEY = "VLLM_API_KEY"
"""The environment variable with the API key, which vLLM's server reads too."""

# seconds: to connect; for a short question; for weights, or a row (hangs are noticed otherwise)
CONNECT, SHORT, LONG = 5.0, 10.0, 7200.0


class ServerDown(Exception):
    """The server does not answer, or says that its engine is dead."""


@dataclass(frozen=True)
class Answer:
    """What the server sampled for a row.

    Attributes:
        tokens: ids, the end token among them. logp: of these, nats.
        finish: vLLM's reason, "stop" or "length".
        versions: of the weights of each token, as the server names them; None if it does not say.
    """

    tokens: Sequence[int]
    logp: Sequence[float]
    finish: str
    versions: Sequence[str] | None


class Client:
    """The routes of the server at `url`.

    Raises:
        UserError: not an http address; not on this machine, and no API key in the environment.
    """

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        import httpx

        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"a vLLM server is an address like http://127.0.0.1:8000, not {url!r}")
        self.local, key = _is_loopback(parts.hostname), os.environ.get(KEY, "")
        if not self.local and not key:
            raise UserError(
                f"{self.url} is another machine: start its server with an API key, and give it here"
                f" in the environment variable {KEY}"
            )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(LONG, connect=CONNECT)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
        self.http = httpx.Client(
            headers=headers,
            timeout=timeout,
            limits=limits,
            transport=transport,
            trust_env=False,
            verify=parts.scheme == "https",
        )
        # the name of its model, and whether it has the route that tells versions
        self.model, self.has_generate = "", True

    def get(self, path: str) -> Any:
        """The JSON of a short question. Raises as `post`."""
        return self._json(self._send("GET", path, None, SHORT), path)

    def post(self, path: str, body: Any = None, seconds: float = LONG) -> Any:
        """The JSON answer.

        Raises:
            ServerDown: no answer in time, or HTTP 5xx.
            UserError: refused (HTTP 4xx); the error's `status` is the code.
        """
        return self._json(self._send("POST", path, body, seconds), path)

    def is_healthy(self) -> bool:
        """Whether it answers within `SHORT` seconds that its engine lives."""
        try:
            return self._send("GET", "/health", None, SHORT).status_code == 200
        except ServerDown:
            return False

    def progress(self) -> str:
        """What it has read and sampled since it started; the same text twice: nothing happened."""
        text = self._send("GET", "/metrics", None, SHORT).text
        counters = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")
        return "\n".join(line for line in text.splitlines() if line.startswith(counters))

    def is_open(self) -> bool:
        """Whether it also answers those who have no key."""
        response = self._send("GET", "/v1/models", None, SHORT, {"Authorization": ""})
        return response.status_code == 200

    def sample(self, prompt: Sequence[int], settings: Mapping[str, Any]) -> Answer:
        """A row: tokens that go on from `prompt`, by vLLM's sampling parameters."""
        if self.has_generate:
            body = {"model": self.model, "token_ids": list(prompt), "sampling_params": settings}
            try:
                return _generated(self.post("/inference/v1/generate", body)["choices"][0])
            except Refused as error:
                if error.status not in (404, 405):
                    raise
                self.has_generate = False
        body = {"model": self.model, "prompt": list(prompt), "return_token_ids": True, **settings}
        return _completed(self.post("/v1/completions", body)["choices"][0])

    def _send(
        self, method: str, path: str, body: Any, seconds: float, headers: Any = None
    ) -> httpx.Response:
        import httpx

        timeout = httpx.Timeout(seconds, connect=CONNECT)
        try:
            return self.http.request(
                method, self.url + path, json=body, timeout=timeout, headers=headers
            )
        except (httpx.HTTPError, httpx.StreamError, RuntimeError, OSError) as error:
            text = f"{self.url}{path.partition('?')[0]}: {type(error).__name__}"
            raise ServerDown(f"{text} {one_line(error)}".strip()) from None

    def _json(self, response: httpx.Response, path: str) -> Any:
        code = response.status_code
        if code >= 500:
            raise ServerDown(f"{self.url}{path}: HTTP {code} {_reason(response)}")
        if code in (401, 403):
            raise Refused(f"{self.url} wants an API key: set {KEY} to its key", code)
        if code >= 400:
            raise Refused(f"{self.url}{path}: HTTP {code} {_reason(response)}", code)
        try:
            return response.json() if response.content else None
        except ValueError:
            raise Refused(f"{self.url}{path} does not answer as vLLM does", code) from None


class Refused(UserError):
    """The server refuses a request.

    Attributes:
        status: HTTP's.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def _generated(choice: Any) -> Answer:
    """Of `/inference/v1/generate`.

    Versions of 3 tokens, [{"version": "7", "start": 0, "end": 2}, {"version": "8", "start": 2,
    "end": 3}], are 7 7 8.
    """
    logp = [token["logprob"] for token in choice["logprobs"]["content"]]
    spans = choice.get("weight_versions")
    versions = None
    if spans is not None:
        versions = [s["version"] for s in spans for _ in range(s["start"], s["end"])]
    return Answer(choice["token_ids"], logp, choice["finish_reason"], versions)


def _completed(choice: Any) -> Answer:
    """Of `/v1/completions`, which says no versions."""
    logp = choice["logprobs"]["token_logprobs"]
    return Answer(choice["token_ids"], logp, choice["finish_reason"], None)


def _reason(response: httpx.Response) -> str:
    """What an error response says."""
    try:
        body = response.json()
    except ValueError:
        return one_line(response.text[:300])
    error = body.get("error", body) if isinstance(body, Mapping) else body
    return one_line(error.get("message", error) if isinstance(error, Mapping) else error)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
