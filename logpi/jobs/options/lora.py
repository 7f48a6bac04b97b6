"""What recipes of preferences share: LoRA's arguments, and the table of models in memory with what
each costs.

Left out: activations and caches, which depend on the lengths of what is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class LoraArguments:
    """Whether all weights learn, or adapters. From Python `lora` may be peft's `LoraConfig` too."""

    HEADING: ClassVar[str] = "adapters"

    lora: int = option(0, help="rank of LoRA adapters; 0: all weights learn", least=0, most=4096)
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


@dataclass(frozen=True)
class Role:
    """A model's part in a job: who it is, its weights (None: nobody's own), and a word on that."""

    name: str
    module: nn.Module | None
    note: str = ""


def memory(roles: Sequence[Role]) -> str:
    """Weights of each role, and what learning adds to them (gradients, Adam's moments, masters), in
    MB; activations come on top."""
    from logpi.updates.masters import learning_bytes

    rows = [("role", "parameters", "weights MB", "learning MB", "")]
    total = 0.0
    for role in roles:
        every = [] if role.module is None else list(role.module.parameters())
        weights = sum(p.numel() * p.element_size() for p in every) / 2**20
        learning = sum(p.numel() * learning_bytes(p) for p in every if p.requires_grad) / 2**20
        total += weights + learning
        count = f"{sum(p.numel() for p in every):,}"
        rows.append((role.name, count, f"{weights:.1f}", f"{learning:.1f}", role.note))
    rows.append(("total", "", f"{total:.1f}", "", ""))
    widths = [max(len(r[i]) for r in rows) for i in range(4)]
    right = list(zip(range(1, 4), widths[1:], strict=True))
    lines = [(r[0].ljust(widths[0]), *(r[i].rjust(w) for i, w in right), r[4]) for r in rows]
    return "\n".join("  ".join(line).rstrip() for line in lines)
