"""A learned reward model as a reward: `model:PATH` as a word, or a loaded `RewardModel`.

The model reads the whole conversation in its own chat template, as published models expect. One
trained on plain text reads prompt, response and end token. The responses of a call go through it in
batches. `model:PATH#LABEL` chooses one of several labels. `preference:PATH` is for runs that mix
prompts with and without an `answer`: it scores only those without, by the text after the thoughts.
Left out: training (`logpi reward-model`), and the network (`policies/reward_model.py`), which loads
at its first use.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.rewards.text import Completion, last_tag, text_of

if TYPE_CHECKING:
    from logpi.policies.reward_model import RewardModel


@dataclass(frozen=True)
class ModelReward:
    """The score of a reward model, without clipping or whitening.

    Attributes:
        path: the directory or hub name of a model with a trained head.
        tokens: the tokens of one forward pass.
        dtype: the type of the weights.
        device: cpu, cuda, cuda:1, … or auto.
        unverified: as `preference:PATH`. DeepSeek-R1 judges helpfulness so, by the final summary
            alone (arXiv:2501.12948, §2.3.4): the text after </think>, or inside <answer>.
        label: the label that is the score, by name or number.
        shard: how its weights are laid out over the ranks, as of `RewardModel.load`.

    Raises:
        ValueError: in one line, at the first use or `load`: no reward model there.
    """

    path: str
    tokens: int = 16_384
    dtype: str = "float32"
    device: str = "cpu"
    unverified: bool = False
    label: str = ""
    shard: Any = None
    needs: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, place: str, **options: Any) -> ModelReward:
        """The reward of a word of the command line: PATH or PATH#LABEL."""
        path, mark, label = place.rpartition("#")
        split = mark and path and not Path(place).exists()
        return cls(path, label=label, **options) if split else cls(place, **options)

    @classmethod
    def loaded(cls, model: RewardModel, **options: Any) -> ModelReward:
        """The reward of a model in memory. Its name is that of its directory."""
        path = str(getattr(model.model.config, "_name_or_path", "") or "reward_model")
        reward = cls(path, device=str(model.device), **options)
        # `cached_property` finds it here
        reward.__dict__["model"] = model
        return reward

    @property
    def in_memory(self) -> bool:
        """Whether its model is there already."""
        return "model" in self.__dict__

    @property
    def name(self) -> str:
        """The name of the directory (of the run, if it is a run's `model`), and the label."""
        path = Path(self.path)
        name = path.parent.name if path.name == "model" and path.parent.name else path.name
        return f"{name}_{self.label}" if self.label else name

    @cached_property
    def model(self) -> RewardModel:
        from logpi.policies.reward_model import RewardModel

        path = Path(self.path) if Path(self.path).exists() else self.path
        loaded = RewardModel.load(
            path,
            dtype=self.dtype,
            device=self.device,
            trained=True,
            label=self.label,
            shard=self.shard,
        )
        loaded.requires_grad_(False)
        return loaded

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Load the model now, so that a missing one raises before any sampling."""
        self.model  # noqa: B018

    def ids(self, prompt: Any, completion: Any) -> list[int]:
        """The token ids of the whole conversation, or of prompt, response and end token."""
        chat, template = self.model.chat, self.model.template
        if isinstance(prompt, str) and not chat["wrap"]:
            ids = template.plain(chat["system"] + prompt) + template.continuation(
                text_of(completion)
            )
            return ids if template.eos_id is None else [*ids, template.eos_id]
        question = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        reply = (
            [{"role": "assistant", "content": completion}]
            if isinstance(completion, str)
            else completion
        )
        system = [{"role": "system", "content": chat["system"]}] if chat["system"] else []
        return template.ids([*system, *question, *reply], ask=False)

    def __call__(self, prompts, completions, completion_ids=None, **columns) -> list[float | None]:
        answers = columns.get("answer") or [None] * len(prompts)
        judged = [i for i, a in enumerate(answers) if a is None or not self.unverified]
        rows = [
            self.ids(prompts[i], summary(completions[i]) if self.unverified else completions[i])
            for i in judged
        ]
        scores: list[float | None] = [None] * len(prompts)
        for i, score in zip(
            judged, self.model.scores(rows, self.tokens).tolist() if rows else [], strict=True
        ):
            scores[i] = score
        return scores


def is_reward_model(value: Any) -> bool:
    """Whether a value is a loaded `RewardModel`.

    Raises:
        ValueError: another network, which has no score for a text.
    """
    # without torch in memory, no value is a network
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.nn.Module):
        return False
    from logpi.policies.reward_model import RewardModel

    if not isinstance(value, RewardModel):
        raise ValueError(
            f"{type(value).__name__} is a network and no reward: give a function that calls it, or"
            " RewardModel(model, tokenizer) of logpi.policies.reward_model"
        )
    return True


def summary(completion: Completion) -> str:
    """The response without its thoughts: the content of <answer>, else the text after </think>.

    It is "" if the response never ends its thoughts.

    >>> summary("<think>be kind</think><answer>hello</answer>"), summary("<think>a</think> b")
    ('hello', 'b')
    >>> summary("<think>a"), summary("c")
    ('', 'c')
    """
    text = text_of(completion)
    answer = last_tag(text, "answer")
    if answer is not None:
        return answer
    _head, closed, tail = text.rpartition("</think>")
    return tail.strip() if closed or "<think>" not in text else ""
