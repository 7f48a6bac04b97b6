"""How a job on a model learns: options for the optimiser, its learning rate and schedule, and
adapters.

Left out: the steps of an update (`epochs`, `minibatches`), which are the algorithm's settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from logpi.jobs.options.fields import changed, option
from logpi.jobs.options.model import ModelArguments
from logpi.jobs.options.model_size import said


@dataclass(frozen=True, kw_only=True)
class LearningArguments:
    """The optimiser, its learning rate and its schedule."""

    HEADING: ClassVar[str] = "learning"
    # The last learning rate of a linear or cosine schedule, as a share of the peak.
    END: ClassVar[float] = 0.0

    lr: float | None = option(
        None,
        help=f"peak learning rate (default: {said('rl', 'lr')})",
        least=0,
        most=10,
    )
    warmup: int | None = option(
        None,
        help=f"updates over which the learning rate climbs (default: {said('rl', 'warmup')})",
        least=0,
    )
    schedule: str = option(
        "constant", help="of the learning rate after that", choices=("constant", "linear", "cosine")
    )
    optimizer: str | Any | None = option(
        None, objects=True, hidden=True, help="a class or function of torch that takes parameters"
    )

    def rates(self) -> Any:
        """The optimiser for a `Learner`."""
        from logpi.updates.adamw import AdamW, Constant, Cosine, Linear

        if self.optimizer is not None:
            return self.optimizer
        if self.lr is None or self.warmup is None:
            raise TypeError("what the model's size decides was not settled (`model_size.py`)")
        schedules = {"constant": Constant(), "linear": Linear(self.END), "cosine": Cosine(self.END)}
        return AdamW(self.lr, warmup=self.warmup, schedule=schedules[self.schedule])


@dataclass(frozen=True, kw_only=True)
class LoraArguments:
    """Train all weights, or adapters. From Python `lora` may be peft's `LoraConfig` too."""

    HEADING: ClassVar[str] = "adapters"

    lora: int | Any = option(
        0, objects=True, help="rank of LoRA adapters; 0: all weights learn", least=0, most=4096
    )
    lora_alpha: float = option(32.0, help="their scale: W + (alpha / rank) B A", above=0, most=1e6)
    load_in_4bit: bool = option(
        False, help="frozen weights in 4 bits, under LoRA (QLoRA); needs a GPU"
    )

    def bits(self) -> dict[str, Any]:
        """Keyword arguments for the `load` of the model that learns.

        Raises:
            ValueError: 4 bits without LoRA, or on a device that has none.
        """
        from logpi.policies.lora import refuse_4bit

        if not self.load_in_4bit:
            return {}
        if not self.lora:
            raise ValueError("weights of 4 bits are frozen: say what learns, with --lora 16")
        refuse_4bit()
        return {"four_bit": True}

    def adapt(self, policy: Any) -> Any:
        """Put adapters on the policy if `lora` is set. Returns the object that saves the policy; it
        merges the adapters."""
        from logpi.policies.lora import Merging, add_lora

        if not self.lora:
            return policy
        if isinstance(self.lora, int):
            add_lora(policy, self.lora, self.lora_alpha)
        else:
            add_lora(policy, config=self.lora)
        return Merging(policy)


@dataclass(frozen=True, kw_only=True)
class FineTuningArguments(ModelArguments, LoraArguments, LearningArguments):
    """The model and how it learns, for jobs that learn from given rows."""

    END: ClassVar[float] = 0.1

    warmup: int | None = changed(
        LearningArguments, "warmup", 10, help="updates over which the learning rate climbs"
    )
    schedule: str = changed(LearningArguments, "schedule", "cosine")
