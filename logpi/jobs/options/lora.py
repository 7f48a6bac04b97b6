"""Whether all weights learn, or adapters: options of jobs on language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from logpi.jobs.options.fields import option


@dataclass(frozen=True, kw_only=True)
class LoraArguments:
    """Whether all weights learn, or adapters. From Python `lora` may be peft's `LoraConfig` too."""

    HEADING: ClassVar[str] = "adapters"

    lora: int | Any = option(
        0, objects=True, help="rank of LoRA adapters; 0: all weights learn", least=0, most=4096
    )
    lora_alpha: float = option(32.0, help="their scale: W + (alpha / rank) B A", above=0, most=1e6)
    load_in_4bit: bool = option(
        False, help="frozen weights in 4 bits, under LoRA (QLoRA); needs a GPU"
    )

    def bits(self) -> dict[str, Any]:
        """How the model that learns is loaded, for its `load`.

        Raises:
            ValueError: 4 bits without LoRA, or where they make no sense.
        """
        from logpi.policies.lora import refuse_4bit

        if not self.load_in_4bit:
            return {}
        if not self.lora:
            raise ValueError("weights of 4 bits are frozen: say what learns, with --lora 16")
        refuse_4bit()
        return {"four_bit": True}

    def adapt(self, policy: Any) -> Any:
        """Put adapters on, if asked for; returns what saves the policy (with adapters, merged)."""
        from logpi.policies.lora import Merging, add_lora

        if not self.lora:
            return policy
        if isinstance(self.lora, int):
            add_lora(policy, self.lora, self.lora_alpha)
        else:
            add_lora(policy, config=self.lora)
        return Merging(policy)
