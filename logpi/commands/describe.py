"""`logpi describe NAME`: the exact objective as mathematics, from the composition itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from logpi.errors import as_user_errors
from logpi.jobs.options.command_line import parse
from logpi.jobs.options.fields import option


@dataclass(frozen=True)
class Describe:
    """Arguments of `logpi describe`."""

    name: str = option(help="a row of `logpi algorithms`", positional=True)
    options: Mapping[str, Any] = option({}, help="settings, e.g. beta=0.04 high=0.3", nargs="*")


def main(argv: Sequence[str]) -> int:
    a = parse(
        Describe,
        argv,
        "logpi describe",
        "An algorithm as mathematics, with its sources and where it differs.",
    )
    from logpi.algorithms import describe, options

    with as_user_errors():
        print(describe(a.name, **a.options))
        print("\n  options   " + ", ".join(f"{k}={v}" for k, v in options(a.name).items()))
        print(
            "            and for every algorithm: entropy_coef, value_coef, value_clip, whiten,"
            " kl_target, kl_estimator,"
        )
        print("            kl_place, dual_clip, epochs, minibatches, micro_tokens, max_grad_norm")
    return 0
