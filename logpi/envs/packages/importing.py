"""Other people's modules by name, or by the path of their directory or file.

Left out: objects of a user's own file, `FILE.py:NAME` (`runs/user_code.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path


def importable(name: str) -> str:
    """The name under which a module can be imported. A directory or a `.py` file is made
    importable, beside its neighbours.

    Raises:
        ValueError: no such file.

    >>> importable("json.decoder")
    'json.decoder'
    """
    path = Path(name).expanduser()
    if not (path.suffix == ".py" or path.is_dir()):
        return name
    if not path.exists():
        raise ValueError(f"{name}: no such file")
    parent = str(path.resolve().parent)
    if parent not in sys.path:
        sys.path.append(parent)
    return path.resolve().stem
