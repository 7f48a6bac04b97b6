"""A learned reward model as a reward: `model:PATH` where a reward is named.

The text of a response is read by the reward model's own tokenizer, behind the prompt as it was rendered in its
training, with an end token, all responses of a call in batches. `preference:PATH` is for runs in which some prompts can be checked
and others cannot: it scores only rows without an `answer`, and of them only what follows the thoughts. Left out: training it (`logpi reward-model`), and its
network (`policies/reward_model.py`), which is loaded when it is first needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.rewards.text import Completion, last_tag, text_of

if TYPE_CHECKING:
    from logpi.policies.reward_model import RewardModel

__all__ = ["ModelReward", "summary"]


@dataclass(frozen=True)
class ModelReward:
    """The score of a reward model, as it is: no clipping, no whitening.

    Attributes:
        path: directory or hub name of a sequence classifier with one label. tokens: of a forward.
        dtype: of the weights. device: where it runs; cpu, cuda, cuda:1, … or auto.
        unverified: as `preference:PATH`. DeepSeek-R1 judges helpfulness so, by the final summary alone (arXiv:2501.12948,
            §2.3.4): what follows </think>, or is inside <answer>.

    Raises:
        ValueError: at the first use or `load`, in one line: no reward model there.
    """

    path: str
    tokens: int = 16_384
    dtype: str = "float32"
    device: str = "cpu"
    unverified: bool = False
    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        """The directory's name; for a run's `model` directory, the run's."""
        path = Path(self.path)
        return path.parent.name if path.name == "model" and path.parent.name else path.name

    @cached_property
    def model(self) -> RewardModel:
        from logpi.policies.reward_model import RewardModel

        path = Path(self.path) if Path(self.path).exists() else self.path
        loaded = RewardModel.load(path, dtype=self.dtype, device=self.device)
        loaded.requires_grad_(False)
        return loaded

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Load the model now: where there is none, this is said before anything is sampled."""
        self.model  # noqa: B018

    def ids(self, prompt: Any, completion: Any) -> list[int]:
        """Token ids of the whole: prompt, response, end token."""
        chat, model = self.model.chat, self.model
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) and chat["wrap"] else prompt
        if isinstance(messages, str):
            start = model.render(chat["system"] + messages)
        else:
            system = [{"role": "system", "content": chat["system"]}] if chat["system"] else []
            start = model.render([*system, *messages])
        response = model.tokenizer(text_of(completion), add_special_tokens=False)["input_ids"]
        return [*start, *response, model.eos_ids[-1]]

    def __call__(self, prompts, completions, completion_ids=None, **columns) -> list[float | None]:
        answers = columns.get("answer") or [None] * len(prompts)
        judged = [i for i, a in enumerate(answers) if a is None or not self.unverified]
        rows = [self.ids(prompts[i], summary(completions[i]) if self.unverified else completions[i]) for i in judged]
        scores: list[float | None] = [None] * len(prompts)
        for i, score in zip(judged, self.model.scores(rows, self.tokens).tolist() if rows else [], strict=True):
            scores[i] = score
        return scores


def summary(completion: Completion) -> str:
    """What a response says when it has done thinking: the content of its <answer>, else what follows </think>.

    A response that never stops thinking has said nothing.

    >>> summary("<think>be kind</think><answer>hello</answer>"), summary("<think>a</think> b"), summary("<think>a"), summary("c")
    ('hello', 'b', '', 'c')
    """
    text = text_of(completion)
    answer = last_tag(text, "answer")
    if answer is not None:
        return answer
    head, closed, tail = text.rpartition("</think>")
    return tail.strip() if closed or "<think>" not in text else ""
