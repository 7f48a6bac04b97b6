"""Options of a job that can be run with several seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from logpi.jobs.options.fields import option


@dataclass(frozen=True, kw_only=True)
class SeedArguments:
    """How many runs of a job."""

    HEADING: ClassVar[str] = "several seeds"

    seeds: int = option(
        1, help="runs with consecutive seeds, and a table of them all", least=1, most=1000
    )
    at_once: int = option(
        1, help="of these at the same time; 0: as many as cores", least=0, changeable=True
    )
