"""What the routes work with: one model under one name, its prompts, its scheduler, and how other
weights come in.

Left out: HTTP (`app.py`), and finding weights (`Source`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logpi.engine.openai_server.chat import chat, tools_of
from logpi.engine.openai_server.completions import completion
from logpi.engine.openai_server.errors import RequestError
from logpi.engine.openai_server.fields import DETOKENIZE, TOKENIZE, WEIGHTS, checked
from logpi.engine.openai_server.prompts import Prompts
from logpi.engine.openai_server.scheduler import Scheduler
from logpi.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from concurrent.futures import Future

    from logpi.engine.openai_server.answers import Answer
    from logpi.policies.causal_lm import CausalLM

Source = Callable[[str | None], tuple["CausalLM", str]]
"""`source(path)`: a policy from a directory, or the newest where the server's own came from; and
the name of its weights. Raises UserError or ValueError."""


@dataclass(frozen=True)
class Limits:
    """What the server bears.

    Attributes:
        slots: samples decoded together. requests: samples that are made or wait.
        longest: tokens of a sample with its prompt. body: bytes of a request.
        seconds: for an answer. upload: for a request's body to arrive.
    """

    slots: int = 16
    requests: int = 256
    longest: int = 4096
    body: int = 2**23
    seconds: float = 600.0
    upload: float = 30.0


class Service:
    """A served model.

    Args:
        policy: a `CausalLM` at temperature 1 that packs rows. name: in requests and answers.
        version: of its weights. source: of others, or None.

    Raises:
        UserError: a model that cannot decode rows beside others.
    """

    def __init__(
        self,
        policy: CausalLM,
        name: str,
        version: str = "0",
        limits: Limits | None = None,
        source: Source | None = None,
    ) -> None:
        limits = limits or Limits()
        if not policy.packed:
            kind = type(policy.model).__name__
            raise UserError(
                f"{kind} keeps its own attention, so its rows cannot be decoded beside others:"
                " serve it with transformers or vLLM"
            )
        if policy.temperature != 1.0:
            raise ValueError(f"a served policy has temperature 1, not {policy.temperature}")
        self.name, self.limits, self.source = name, limits, source
        self.created = int(time.time())
        self.words = Prompts(policy, limits.longest)
        self.scheduler = Scheduler(
            policy, version, slots=limits.slots, rows=limits.requests, longest=limits.longest
        )
        # one change of the weights at a time
        self._changing = threading.Lock()

    def close(self) -> None:
        self.scheduler.close()

    # --- questions ---

    def completion(self, body: Any) -> Answer:
        self._check_model(body)
        return completion(body, self.name, self.words)

    def chat(self, body: Any) -> Answer:
        self._check_model(body)
        return chat(body, self.name, self.words)

    def _check_model(self, body: Any) -> None:
        """Raises RequestError (404) if the request names another model."""
        name = body.get("model") if isinstance(body, dict) else None
        if isinstance(name, str) and name != self.name:
            hint = did_you_mean(name[:200], [self.name])
            raise RequestError(f"there is no model {name[:200]!r} here{hint} ({self.name})", 404)

    # --- what else is asked ---

    def models(self) -> dict[str, Any]:
        card = {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "logpi",
            "root": self.name,
            "parent": None,
            "max_model_len": self.words.longest,
            "version": self.scheduler.version,
        }
        return {"object": "list", "data": [card]}

    def health(self) -> dict[str, Any]:
        self.scheduler.check()
        return {"status": "ok", "version": self.scheduler.version, "busy": self.scheduler.busy}

    def tokenize(self, body: Any) -> dict[str, Any]:
        self._check_model(body)
        fields, words = checked(body, TOKENIZE), self.words
        if "prompt" in fields:
            ids = words.plain(fields["prompt"], fields.get("add_special_tokens", True))
        else:
            options = fields.get("chat_template_kwargs", {})
            ask = fields.get("add_generation_prompt", True)
            ids = words.chat(fields["messages"], tools_of(fields), options, ask)
        names = words.names(ids) if fields.get("return_token_strs") else None
        answer = {"count": len(ids), "max_model_len": words.longest, "tokens": ids}
        return {**answer, "token_strs": names}

    def detokenize(self, body: Any) -> dict[str, Any]:
        self._check_model(body)
        ids = checked(body, DETOKENIZE)["tokens"]
        if not isinstance(ids, list) or not all(type(i) is int for i in ids):
            raise RequestError("tokens must be a list of token ids")
        return {"prompt": self.words.detokenized(self.words.plain(ids))}

    def tokenizer(self) -> dict[str, Any]:
        t = self.words.tokenizer
        names = ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template")
        kind = {"tokenizer_class": type(t).__name__}
        return {**kind, **{name: getattr(t, name) for name in names}}

    # --- weights ---

    def load(self, body: Any) -> dict[str, Any]:
        """Other weights, from the directory that the body names or the newest of the server's own
        source; returns once requests begin under them."""
        path = checked(body, WEIGHTS).get("path")
        if self.source is None:
            raise RequestError("this server has no other weights: start it with logpi serve")
        if not self._changing.acquire(blocking=False):
            raise RequestError("other weights are just being loaded: try again soon", 409)
        try:
            policy, version = self.source(path)
            before = self.scheduler.version
            self.swap(policy, version).result()
        except (UserError, ValueError, OSError) as error:
            raise RequestError(str(error)) from None
        finally:
            self._changing.release()
        return {"version": version, "before": before}

    def swap(self, policy: CausalLM, version: str) -> Future[None]:
        """Requests that come from now on begin under these weights; those that are being sampled
        finish under the old ones.

        Raises:
            RequestError: the model has another tokenizer, or is of another kind.
        """
        if policy.tokenizer.get_vocab() != self.words.tokenizer.get_vocab():
            raise RequestError(
                "these weights go with another tokenizer: start another server for them", 409
            )
        if not policy.packed or policy.temperature != 1.0:
            raise RequestError("this model cannot be decoded beside others", 409)
        old, self.words = self.words, Prompts(policy, self.limits.longest)

        def ended(loading: Future[None]) -> None:
            if loading.exception() is not None:
                self.words = old

        loading = self.scheduler.replace(policy, version)
        loading.add_done_callback(ended)
        return loading
