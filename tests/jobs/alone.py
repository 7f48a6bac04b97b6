"""A pool of processes that is this process, so that what runs in others can be watched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from logpi.jobs import processes


def watch(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Jobs run here from now on; they are put into the list that is returned."""
    jobs: list[Any] = []

    class Alone:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> Alone:
            return self

        def __exit__(self, *_: object) -> None: ...

        def imap(self, function: Any, some: Sequence[Any], chunksize: int) -> Iterator[Any]:
            for job in some:
                jobs.append(job)
                yield function(job)

    context = type("", (), {"Pool": Alone})
    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda _: context)
    return jobs
