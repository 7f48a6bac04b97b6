"""A language model that one can talk to from Python: a policy, and the engine that samples from it.

    model = LanguageModel.load("dir")
    model.generate(["1 + 1 =", "2 + 2 ="], max_tokens=4)
    model.chat("What is 1 + 1?")

Prompts and answers are texts here. Token ids, log-probabilities and turns with tools are the
engine's (`engine.py`); how a job writes its prompts is `rollouts/chat.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from logpi.engine.engine import Engine
from logpi.engine.sampling import Completion, Request, Sampling
from logpi.policies.causal_lm import CausalLM

Messages = Sequence[Mapping[str, Any]]


class LanguageModel(CausalLM):
    """A `CausalLM` that also samples. It learns, loads and saves as one."""

    def generate(
        self,
        prompts: str | Messages | Sequence[str | Messages],
        *,
        max_tokens: int = 256,
        temperature: float | None = None,
        n: int = 1,
        stop: Sequence[str] = (),
        greedy: bool = False,
        seed: int | None = None,
        slots: int = 64,
    ) -> list[str] | list[list[str]]:
        """Texts that go on from prompts, in order.

        Args:
            prompts: a text, which is read as it is (with BOS, if the tokenizer begins texts so), or
                messages, which the chat template writes; or several of either.
            max_tokens: of an answer. temperature: > 0; None for the policy's own.
            n: answers to each prompt. greedy: take the likeliest token each time.
            stop: an answer ends before the first of these texts.
            seed: of the random numbers; None: torch's global generator.
            slots: answers that are sampled at a time.
        Returns:
            One text for each prompt; with n > 1 a list of n texts for each. Tokens that end an
            answer, and padding, are left out; other special tokens are spelled.
        Raises:
            ValueError: an empty prompt, one longer than the context, messages without a chat
                template, a value out of range.

        >>> from logpi.policies.small import small_policy
        >>> model = LanguageModel.load(small_policy("0123456789+="))
        >>> len(model.generate(["1+1=", "2+2="], max_tokens=3, seed=0))
        2
        """
        if isinstance(stop, str):
            stop = (stop,)
        sampling = Sampling(temperature=temperature, max_tokens=max_tokens, stop=tuple(stop))
        requests = [Request(self.render(p), n=n, greedy=greedy) for p in _several(prompts)]
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        completions = Engine(self, slots=slots).generate(requests, sampling, generator)
        texts = [[self._text(c, sampling.stop) for c in answers] for answers in completions]
        return texts if n > 1 else [answers[0] for answers in texts]

    def chat(
        self,
        messages: str | Messages,
        *,
        system: str = "",
        max_tokens: int = 512,
        temperature: float | None = None,
        stop: Sequence[str] = (),
        greedy: bool = False,
        seed: int | None = None,
    ) -> str:
        """The model's answer to a user's text, or to a conversation, through its chat template.

        Args:
            system: a system message before the conversation; "" for none. Others: as `generate`.
        Raises:
            ValueError: the tokenizer has no chat template, or it refuses these messages.

        To go on, give the whole conversation with the answer as an assistant's message:

            history = [{"role": "user", "content": "1 + 1?"}]
            history += [{"role": "assistant", "content": model.chat(history)}]
        """
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        opening = [{"role": "system", "content": system}] if system else []
        (answer,) = self.generate(
            [[*opening, *turns]],
            max_tokens=max_tokens,
            temperature=temperature,
            stop=stop,
            greedy=greedy,
            seed=seed,
        )
        return str(answer)

    def _text(self, completion: Completion, stop: Sequence[str]) -> str:
        text = self.template.decode(completion.tokens)
        ends = [text.find(s) for s in stop if s in text]
        return text[: min(ends)] if ends and completion.stop == "stop" else text


def _several(prompts: str | Messages | Sequence[str | Messages]) -> list[Any]:
    """A list of prompts, each a text or messages.

    >>> _several("a"), _several([{"role": "user", "content": "a"}])
    (['a'], [[{'role': 'user', 'content': 'a'}]])
    """
    if isinstance(prompts, str):
        return [prompts]
    if len(prompts) and isinstance(prompts[0], Mapping):
        return [list(prompts)]
    return [p if isinstance(p, str) else list(p) for p in prompts]
