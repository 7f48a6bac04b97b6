"""`logpi check-model PATH`: the laws of models (`logpi.testing.check_model`) as a table, and a
verdict.

Exit code 0 if all hold, 1 if one is broken, 2 if the model cannot be loaded. Left out: the laws
(`testing/`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.errors import as_user_errors
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option
from logpi.jobs.options.model import DEVICES

if TYPE_CHECKING:
    from logpi.policies.causal_lm import CausalLM
    from logpi.policies.reward_model import RewardModel


@dataclass(frozen=True, kw_only=True)
class CheckModel:
    """Arguments of `logpi check-model`."""

    model: str = option(
        help="directory, hub name or .gguf file of a language model, or of a reward model",
        positional=True,
    )
    dtype: str = option(
        "float32", help="of the weights", choices=("float32", "bfloat16", "float16")
    )
    device: str = option("cpu", help=DEVICES)
    template_options: Mapping[str, Any] = option(
        {}, help="variables of the chat template, e.g. enable_thinking=false", nargs="*"
    )
    end_token: str = option(
        "",
        help=(
            "the token that ends an answer (default: the one with which the chat template ends a"
            " turn)"
        ),
    )
    explain: bool = option(False, help="also what each law means, and details in full")


def main(argv: Sequence[str]) -> int:
    a = parse(
        CheckModel,
        argv,
        "logpi check-model",
        "What logpi relies on, held against a model and its tokenizer: a table and a verdict.",
    )
    from logpi.testing import check_model

    with as_user_errors():
        policy = _loaded(a)
    table = check_model(policy)
    print(table.explained() if a.explain else table)
    print(table.verdict())
    return 0 if table.passed else 1


def _loaded(a: CheckModel) -> CausalLM | RewardModel:
    """A reward model if that is what the directory holds, else a language model."""
    from logpi.policies.causal_lm import CausalLM
    from logpi.policies.reward_model import RewardModel

    config = Path(a.model) / "config.json"
    if config.is_file() and "ForSequenceClassification" in config.read_text(encoding="utf-8"):
        return RewardModel.load(a.model, dtype=a.dtype, device=a.device)
    ending = {"template_options": a.template_options, "end_token": a.end_token}
    return CausalLM.load(a.model, dtype=a.dtype, device=a.device, **ending)
