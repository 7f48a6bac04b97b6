"""Other people's modules by name, or by the path of their directory or file.

Left out: objects of a user's own file, `FILE.py:NAME` (`runs/user_code.py`).
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def importable(name: str) -> str:
    """The name under which a module can be imported. A directory or a `.py` file is made
    importable, beside its neighbours.

    Raises:
        ValueError: no such file, or another module has its name.

    >>> importable("json.decoder")
    'json.decoder'
    """
    path = Path(name).expanduser()
    if not (path.suffix == ".py" or path.is_dir()):
        return name
    if not path.exists():
        raise ValueError(f"{name}: no such file")
    path = path.resolve()
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = find_spec(path.stem)
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    if not any(place and path in (p := Path(place).resolve(), p.parent) for place in places):
        found = f"a module of this name is {places[0]}" if places else "its name is no module's"
        raise ValueError(f"{name} cannot be imported as {path.stem!r}: {found}; rename it")
    return path.stem
