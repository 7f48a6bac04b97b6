"""Texts from an OpenAI-compatible server (vLLM, llama.cpp, a paid service): a teacher that runs
elsewhere, of which nothing but its answers is known.

    server = ChatServer("http://127.0.0.1:8000/v1")
    answers = server([[{"role": "user", "content": "1+1="}]], n=4)

A failure that waiting may mend (429, 5xx, a lost connection) is tried again; any other answer is a
line, and so is a server that cannot be reached in the first place. The API key comes from the
environment variable OPENAI_API_KEY and is shown nowhere. Left out: token ids and log-probabilities,
which training needs (`vllm/`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from logpi.errors import UserError, did_you_mean, one_line

if TYPE_CHECKING:
    import httpx

KEY = "OPENAI_API_KEY"
# requests at the same time; tries of each; seconds before the second try, doubled for each further
TOGETHER, TRIES, PAUSE = 32, 5, 1.0
# seconds for one answer
LONGEST = 600.0


@dataclass(frozen=True)
class ServedText:
    """One answer.

    Attributes:
        text: of it. tokens: as the server counts them, of all answers of its request in equal
            parts. stop: "stop" or "length".
    """

    text: str
    tokens: int
    stop: str


@dataclass(frozen=True)
class ChatServer:
    """The chat route of the server at `url`, which ends in /v1.

    Attributes:
        url: its address. model: by the server's name; "": the only one that it serves.
        transport: of httpx, for tests.
    Raises:
        UserError: not an address, no such model, or the server refuses.
    """

    url: str
    model: str = ""
    transport: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"a server is an address like http://127.0.0.1:8000/v1, not {self.url}")

    def __call__(
        self, conversations: Sequence[Sequence[Mapping[str, Any]]], n: int, **settings: Any
    ) -> list[list[ServedText]]:
        """`n` answers to each conversation, in order.

        Args:
            settings: of the request, by OpenAI's names: temperature, top_p, max_tokens, stop, seed.
        """
        with self._client() as http:
            model = self.served(http)
            ask = partial(self._ask, http, {"model": model, "n": n, **settings})
            with ThreadPoolExecutor(TOGETHER) as pool:
                return list(pool.map(ask, conversations))

    def served(self, http: httpx.Client | None = None) -> str:
        """The model's name. Raises UserError if the server does not have it."""
        if http is None:
            with self._client() as own:
                self._reach(own)
                return self.served(own)
        listed = self._json(http, "GET", "models", None)
        names = [str(x["id"]) for x in listed.get("data", []) if "id" in x]
        if not self.model and len(names) == 1:
            return names[0]
        if self.model not in names:
            hint = did_you_mean(self.model, names) if self.model else ""
            shown = ", ".join(names[:5]) or "none"
            raise UserError(f"{self.url} has no model {self.model!r}{hint} (it serves: {shown})")
        return self.model

    def _reach(self, http: httpx.Client) -> None:
        """Raises UserError at once if nobody listens at the address: waiting seldom mends that."""
        import httpx

        try:
            http.get("models")
        except httpx.ConnectError as error:
            why = one_line(error)
            raise UserError(
                f"{self.url} cannot be reached ({why}): start the server, or correct --server"
            ) from None
        except (httpx.HTTPError, OSError):
            # it is there, and is asked again
            return

    def _client(self) -> httpx.Client:
        import httpx

        key = os.environ.get(KEY, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(
            base_url=self.url.rstrip("/") + "/",
            headers=headers,
            timeout=httpx.Timeout(LONGEST, connect=10.0),
            transport=self.transport,
        )

    def _ask(
        self,
        http: httpx.Client,
        settings: Mapping[str, Any],
        conversation: Sequence[Mapping[str, Any]],
    ) -> list[ServedText]:
        body = {**settings, "messages": list(conversation)}
        answer = self._json(http, "POST", "chat/completions", body)
        choices = answer.get("choices") or []
        if len(choices) != settings["n"]:
            raise UserError(
                f"{self.url} gave {len(choices)} answers where {settings['n']} were asked for: a"
                " server that cannot sample several needs --samples 1"
            )
        counted = int((answer.get("usage") or {}).get("completion_tokens") or 0)
        return [
            ServedText(
                str((c.get("message") or {}).get("content") or ""),
                counted // len(choices),
                "length" if c.get("finish_reason") == "length" else "stop",
            )
            for c in choices
        ]

    def _json(self, http: httpx.Client, method: str, path: str, body: Any) -> dict[str, Any]:
        """The server's answer, after a few tries. Raises UserError with its reason."""
        import httpx

        why = ""
        for number in range(TRIES):
            if number:
                time.sleep(PAUSE * 2 ** (number - 1))
            try:
                response = http.request(method, path, json=body)
            except (httpx.HTTPError, OSError) as error:
                why = one_line(error) or type(error).__name__
                continue
            if response.status_code == 429 or response.status_code >= 500:
                why = f"{response.status_code} {_reason(response)}"
                continue
            return self._read(response, path)
        raise UserError(f"{self.url} does not answer after {TRIES} tries: {why}")

    def _read(self, response: httpx.Response, path: str) -> dict[str, Any]:
        if response.status_code in (401, 403):
            raise UserError(f"{self.url} wants an API key: give it in the environment, {KEY}=…")
        try:
            answer = response.json() if response.is_success else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise UserError(
                f"{self.url.rstrip('/')}/{path} answered {response.status_code}:"
                f" {_reason(response)}{self._remedy(response)}"
            )
        return answer

    def _remedy(self, response: httpx.Response) -> str:
        """What to do about an answer that an address without /v1 may have caused, or ""."""
        if response.status_code not in (404, 405) or urlsplit(self.url).path.strip("/"):
            return ""
        return f"; most servers answer below /v1: {self.url.rstrip('/')}/v1"


def _reason(response: httpx.Response) -> str:
    """The message of an answer that is an error, without the JSON around it.

    OpenAI's is {"error": {"message": …}}, older servers' {"message": …}, FastAPI's {"detail": …}.
    """
    try:
        found = response.json()
    except ValueError:
        found = None
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return " ".join((found if isinstance(found, str) else response.text).split())[:200]
