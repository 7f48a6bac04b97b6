"""Which model a job works with, and where: the group of options that every job on text shares.

Left out: adapters and 4-bit weights (`lora.py`), and a second model, such as a critic's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.errors import UserError, as_user_errors
from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from logpi.engine.language_model import LanguageModel
    from logpi.policies.causal_lm import CausalLM
    from logpi.rollouts.chat import Chat

DEVICES = "where models run: cpu, cuda, cuda:1, …; auto: a CUDA GPU if there is one"


@dataclass(frozen=True, kw_only=True)
class ModelArguments:
    """The model, and how prompts for it are made."""

    HEADING: ClassVar[str] = "model"

    model: str | Any = option(
        objects=True,
        help="directory, hub name or .gguf file of a causal language model, or FILE.py:NAME",
    )
    tokenizer: str | Any | None = option(
        None, objects=True, hidden=True, help="of a model that is an object"
    )
    dtype: str = option(
        "float32",
        help=(
            "of the weights; what learns in bfloat16 keeps float32 masters, and float16 is for"
            " inference"
        ),
        choices=("float32", "bfloat16", "float16"),
    )
    device: str = option("auto", help=DEVICES, changeable=True)
    gradient_checkpointing: bool = option(
        False, help="less memory, a third more time", changeable=True
    )
    shard: str = option(
        "auto",
        changeable=True,
        help=(
            "with several ranks, weights in shards: none, N, or NxM (N shards, M replicas); auto:"
            " where the whole does not fit (docs/scale.md)"
        ),
    )
    offload: bool = option(
        False, changeable=True, help="with shards: they rest in the CPU's memory"
    )
    chat: bool | None = option(
        None,
        help=(
            "put plain prompts through the chat template as a user's message (default: if the model"
            " has one)"
        ),
    )
    system: str = option("", help="system message in front of each prompt")
    prompt_template: str = option(
        "",
        help=(
            "for base models: text around plain prompts, with {prompt}; r1-zero: the published one"
        ),
    )

    template_options: Mapping[str, Any] = option(
        {},
        help=(
            "variables of the chat template, e.g. enable_thinking=false (a row's"
            " chat_template_kwargs win)"
        ),
        nargs="*",
    )
    end_token: str = option(
        "",
        help=(
            "the token that ends an answer (default: the one with which the chat template ends a"
            " turn)"
        ),
    )

    def load(self, **options: Any) -> LanguageModel:
        from logpi.engine.language_model import LanguageModel

        ending = {"template_options": self.template_options, "end_token": self.end_token}
        given = {**self.loading(), **ending, **options}
        with as_user_errors():
            policy = LanguageModel.load(self.model, tokenizer=self.tokenizer, **given)
            # an --end-token that is no token raises now
            _ = policy.template
        return policy

    def loading(self) -> dict[str, Any]:
        """Keyword arguments for loading any model of the job."""
        from logpi.distributed.sharding import Shard

        return {
            "dtype": self.dtype,
            "device": self.device,
            "gradient_checkpointing": self.gradient_checkpointing,
            "shard": Shard.parse(self.shard, offload=self.offload),
        }

    def template(self, policy: CausalLM) -> Chat:
        from logpi.rollouts.chat import Chat
        from logpi.rollouts.prompt_templates import named

        has = policy.tokenizer.chat_template is not None
        if self.chat and not has:
            raise UserError(
                f"{self.model} has no chat template: leave --chat out, or choose an instruct model"
            )
        if not self.prompt_template:
            return Chat(wrap=has if self.chat is None else self.chat, system=self.system)
        if self.chat:
            raise UserError(
                "--prompt-template is for models without a chat template: leave it or --chat out"
            )
        return Chat(system=self.system, around=named(self.prompt_template))


def placed(device: str) -> str:
    """The device itself. Raises UserError if it is not there."""
    from logpi.policies.loading import place

    with as_user_errors():
        place(device)
    return device
