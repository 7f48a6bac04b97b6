"""`logpi view --static DIR`: the same page as files that open without a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from logpi.errors import UserError

if TYPE_CHECKING:
    from logpi.viewer.files import Folders


def write(folders: Folders, directory: Path) -> str:
    """Write the page. Raises UserError."""
    raise UserError("--static is not there yet")
