"""A server on a free port of this machine, a tiny model in it, and a model that has learned a few
answers by heart."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import uvicorn

from logpi.engine.openai_server.app import server_app
from logpi.engine.openai_server.service import Limits, Service
from logpi.policies.causal_lm import CausalLM
from tests.tiny import TEMPLATE, tiny_model, tiny_tokenizer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a", "b"],
            },
        },
    }
]
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
SAID = f"Let me see.\n{CALL}"
ANSWER = "It is 3, I think."
QUESTION = [{"role": "user", "content": "1+2?"}]
CONTEXT = 512


def tiny_policy(**config) -> CausalLM:
    return CausalLM(tiny_model(max_position_embeddings=CONTEXT, **config), tiny_tokenizer())


def endless_policy() -> CausalLM:
    """Its answers end at their limit alone."""
    policy = tiny_policy(eos_token_id=None)
    policy.model.generation_config.eos_token_id = None
    policy.tokenizer.eos_token = None
    assert not policy.eos_ids
    return policy


def parrot() -> CausalLM:
    """It answers QUESTION with ANSWER, and with SAID where it may call `add`."""
    template = "{% if tools %}tools: {{ tools | tojson }}\n{% endif %}" + TEMPLATE
    model = tiny_model(std=0.05, max_position_embeddings=CONTEXT)
    policy = CausalLM(model, tiny_tokenizer(template))
    rows = []
    for tools, answer in (((), ANSWER), (TOOLS, SAID)):
        prompt = policy.template.ids(QUESTION, tools)
        ids = [*policy.template.continuation(answer), 2]
        rows.append((torch.tensor([[*prompt, *ids]]), len(ids)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(120):
        losses = []
        for ids, own in rows:
            logits = model(ids).logits[0, -own - 1 : -1]
            losses.append(torch.nn.functional.cross_entropy(logits, ids[0, -own:]))
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    return policy


@contextmanager
def served(policy: CausalLM, *, key: str = "", source=None, **limits) -> Iterator[tuple]:
    """(the service, the server's address)."""
    service = Service(policy, "tiny", "v1", Limits(**limits), source)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(server_app(service, key), log_level="error", lifespan="off")
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield service, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        service.close()
        listener.close()
