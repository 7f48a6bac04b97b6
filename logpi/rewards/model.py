"""A learned reward model as a reward: `model:PATH` as a word, or a loaded `RewardModel`.

The whole conversation is read as the reward model's own chat template renders it, which is how
published ones are used; one that was trained on plain text reads prompt, response and end token.
All responses of a call are read in batches. `model:PATH#LABEL` chooses among several labels.
`preference:PATH` is for runs in which some prompts can be checked and others cannot: it scores only
rows without an `answer`, and of them only what follows the thoughts. Left out: training it (`logpi
reward-model`), and its network (`policies/reward_model.py`), which is loaded when it is first used.
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
    """The score of a reward model, as it is: no clipping, no whitening.

    Attributes:
        path: directory or hub name of a model with a trained head.
        tokens: of one forward. dtype: of the weights. device: cpu, cuda, cuda:1, … or auto.
        unverified: as `preference:PATH`. DeepSeek-R1 judges helpfulness so, by the final summary
            alone (arXiv:2501.12948, §2.3.4): what follows </think>, or is inside <answer>.
        label: which of several labels is the score, by name or number.

    Raises:
        ValueError: at the first use or `load`, in one line: no reward model there.
    """

    path: str
    tokens: int = 16_384
    dtype: str = "float32"
    device: str = "cpu"
    unverified: bool = False
    label: str = ""
    needs: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, place: str, **options: Any) -> ModelReward:
        """As it is written on a command line, PATH or PATH#LABEL."""
        path, mark, label = place.rpartition("#")
        split = mark and path and not Path(place).exists()
        return cls(path, label=label, **options) if split else cls(place, **options)

    @classmethod
    def loaded(cls, model: RewardModel, **options: Any) -> ModelReward:
        """A reward model that is in memory already; its name is its directory's."""
        path = str(getattr(model.model.config, "_name_or_path", "") or "reward_model")
        reward = cls(path, device=str(model.device), **options)
        # where `cached_property` looks
        reward.__dict__["model"] = model
        return reward

    @property
    def name(self) -> str:
        """The directory's name; for a run's `model` directory, the run's. With the label, if one is
        chosen."""
        path = Path(self.path)
        name = path.parent.name if path.name == "model" and path.parent.name else path.name
        return f"{name}_{self.label}" if self.label else name

    @cached_property
    def model(self) -> RewardModel:
        from logpi.policies.reward_model import RewardModel

        path = Path(self.path) if Path(self.path).exists() else self.path
        loaded = RewardModel.load(
            path, dtype=self.dtype, device=self.device, trained=True, label=self.label
        )
        loaded.requires_grad_(False)
        return loaded

    def try_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Load the model now: where there is none, this is said before anything is sampled."""
        self.model  # noqa: B018

    def ids(self, prompt: Any, completion: Any) -> list[int]:
        """Token ids of the whole: the conversation as the template renders it, or prompt, response
        and end token."""
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
    """Whether it is a loaded `RewardModel`.

    Raises:
        ValueError: another network, which says no score of a text by itself.
    """
    # nothing that the user holds is a network as long as torch is not loaded
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
    """What a response says when it has done thinking: the content of its <answer>, else what
    follows </think>.

    A response that never stops thinking has said nothing.

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
