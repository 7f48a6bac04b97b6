"""The pairs of responses that a job learns from: options of `logpi prefer` and `logpi
reward-model`.

Left out: what the jobs learn from them (`jobs/prefer.py`, `jobs/reward_model.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from logpi.jobs.options.fields import option

if TYPE_CHECKING:
    from logpi.policies.chat_template import Reader
    from logpi.rollouts.preference_pairs import Preferences


@dataclass(frozen=True, kw_only=True)
class PairArguments:
    """Pairs of responses."""

    HEADING: ClassVar[str] = "pairs"

    data: str | Any = option(
        objects=True,
        aliases=("train_dataset",),
        help=(
            "a file, directory or hub name: rows with chosen and rejected (and margin); KTO:"
            " completion and label"
        ),
    )
    steps: int = option(200, help="updates", least=1, most=10**7, changeable=True)
    pairs: int = option(
        16, help="pairs (or labelled responses) for each update", least=1, most=2**20
    )
    max_length: int = option(
        1024,
        help="tokens of prompt and response together; longer ones are cut",
        least=2,
        most=2**24,
    )
    skip_empty: bool = option(
        False, help="leave rows with an empty response out, instead of refusing them"
    )
    eval_every: int = option(
        50,
        help="steps between evaluations on held-out pairs; 0: only before and after",
        least=0,
        changeable=True,
    )
    eval_items: int = option(200, help="held-out pairs", least=1)

    def split(
        self, reader: Reader, read: Callable[..., Any], need: tuple[str, ...], seed: int
    ) -> tuple[Preferences, Preferences, str]:
        """Pairs for training, held-out pairs, and a line on both. `read` makes pairs of rows,
        which `reader` turns into tokens."""
        from logpi.envs.data import RowsTask
        from logpi.rollouts.preference_pairs import Preferences, without_empty
        from logpi.rollouts.unread import tell_unread

        task = RowsTask(self.data, need=need)
        keep = without_empty if self.skip_empty else list
        rows = keep(task.rows("train"))
        tell_unread(reader, rows, "rows", "chosen", "rejected", "completion")
        known = read(reader, rows)
        held_out = read(reader, keep(task.rows("test"))[: self.eval_items])
        note = f"{len(known.groups)} rows to learn from, {len(held_out.groups)} held out"
        if known.dropped:
            note += f"; {known.dropped} dropped: both responses are the same after the cut to"
            note += f" {self.max_length} tokens"
        pairs = Preferences(known.groups, size=self.pairs, seed=seed)
        return pairs, Preferences(held_out.groups, size=self.pairs), note
