"""Says which rows a model cannot read: its vocabulary lacks their characters, so it would see its
unknown token for them, or nothing.

Byte-level vocabularies lack none (`TextTokens.reads_all`), and their rows are not looked at. Left
out: what is too long (`prompt_filter.py`), rewards' columns, which no model reads.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from logpi.calls.messages import texts
from logpi.errors import UserError, row_place

if TYPE_CHECKING:
    from logpi.envs.task import Row
    from logpi.policies.chat_template import Reader

# generated rows that are looked at
FIRST = 8


def tell_unread(reader: Reader, rows: Sequence[Row], what: str, *responses: str) -> None:
    """Prints how many rows of a file have characters that the vocabulary lacks, and the first one's
    place. Of generated rows it looks at a few.

    Args:
        what: the rows are, in messages. responses: the columns that the model reads besides the
            prompt.

    Raises:
        UserError: every row has some.
    """
    if reader.template.reads_all or not len(rows):
        return
    tried = rows if isinstance(rows, list) else [rows[i] for i in range(min(FIRST, len(rows)))]
    read = [[row.get(column) for column in ("prompt", *responses)] for row in tried]
    lacks = ((i, reader.template.lack("".join(texts(words)))) for i, words in enumerate(read))
    lost = [(i, lack) for i, lack in lacks if lack]
    if not lost:
        return
    first, lack = lost[0]
    named = f"{row_place(tried[first], f'row {first}')}: {lack}"
    if len(lost) == len(tried):
        raise UserError(
            f"{named}; so it is with all {len(tried)} {what} that were looked at: choose another"
            " model, or rows in its characters"
        )
    print(f"{len(lost)} of {len(tried)} {what} are not read whole: {named}", file=sys.stderr)
