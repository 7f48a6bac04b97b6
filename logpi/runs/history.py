"""The checkpoints of a run: which are there, which one to resume from, which to keep.

    checkpoints/step-000010/ …
    latest, best                   names, for people; they also say that there was a checkpoint once

Kept are the last `keep` and the last best. With keep = 2 and the best ones marked *:

    there         10   20*  30*  40   50
    after pruning           30*  40   50
    60* is next                  50   60*      30* goes: 60* is the best now, and of the last two

What cannot be read (an I/O error, lost permission, a disk that is not mounted) may be whole: then
nothing is chosen and nothing is deleted. What was read and is damaged is passed over and put aside
under another name, never deleted.
Left out: a checkpoint's own files (`checkpoint.py`), and metrics and samples (`directory.py`).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.distributed.world import current
from logpi.errors import RunError
from logpi.runs import checkpoint, disk

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

notices = logging.getLogger("logpi")


class History:
    """The checkpoints of the run at `run`. Lists are oldest first."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.place = run / "checkpoints"

    def directory(self, step: int) -> Path:
        return self.place / f"step-{step:06d}"

    def named(self) -> list[Path]:
        """Every directory that is called a checkpoint. Raises RunError if nobody can say."""
        with disk.reported(
            f"list {self.place}", "nothing was changed; mend the disk and go on with --resume"
        ):
            try:
                entries = list(os.scandir(self.place))
            except FileNotFoundError:
                return []
        directories = [
            e
            for e in entries
            if re.fullmatch("step-[0-9]+", e.name) and e.is_dir(follow_symlinks=False)
        ]
        return sorted((self.place / e.name for e in directories), key=_step)

    def whole(self) -> list[Path]:
        """Those that say of themselves that they are of the step that they are called after."""
        return [path for path in self.named() if checkpoint.about(path).get("step") == _step(path)]

    def newest(self, mesh: DeviceMesh | None = None) -> tuple[int, Any] | None:
        """The newest sound one as (step, state); None if there was never one. Of several ranks
        every one calls it.

        Damaged ones that are newer are put aside with a notice.

        Args:
            mesh: where tensors in shards go; without it they come whole.

        Raises:
            RunError: one cannot be read, or all are lost or damaged. Nothing was changed.
        """
        damaged: list[tuple[Path, str]] = []
        world = current()
        for path in reversed(world.by_first(self.named)):
            try:
                state = checkpoint.load(path, _step(path), mesh)
            except checkpoint.Damaged as error:
                damaged.append((path, str(error)))
                continue
            for bad, why in damaged:
                aside = world.by_first(partial(_put_aside, bad)).name
                notices.warning(
                    "%s; it is kept as %s, and the run goes back to the one before", why, aside
                )
            return _step(path), state
        lost = world.by_first(lambda: any((self.run / x).exists() for x in ("latest", "best")))
        if damaged or lost:
            why = damaged[0][1] if damaged else f"{self.place} holds no checkpoint any more"
            raise RunError(
                f"{why}, and there is no other to go on from; nothing was changed. Bring it back"
                f" (is a disk not mounted?), or begin anew elsewhere: logpi repeat {self.run} --out"
                " ANOTHER"
            )
        return None

    def best(self, mesh: DeviceMesh | None = None) -> tuple[int, Any] | None:
        """The newest that is marked best and can be read, as (step, state). Of several ranks every
        one calls it."""
        for path in current().by_first(lambda: [*filter(_is_best, reversed(self.whole()))]):
            try:
                return _step(path), checkpoint.load(path, _step(path), mesh)
            except RunError as error:
                notices.warning("%s; going back to the one before", error)
        return None

    def prune(self, keep: int) -> None:
        """Delete all but the last `keep` and the last best. What is not known for whole stays."""
        everything = self.whole()
        kept = {*everything[-max(keep, 1) :], *[x for x in everything if _is_best(x)][-1:]}
        self._remove(x for x in everything if x not in kept)

    def drop_after(self, step: int) -> None:
        self._remove(x for x in self.whole() if _step(x) > step)

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            disk.remove(path)
        self._point("latest", self.whole())
        self._point("best", [x for x in self.whole() if _is_best(x)])

    def _point(self, name: str, to: list[Path]) -> None:
        """They only repeat what the checkpoints say of themselves: they never disagree for long."""
        if to:
            disk.write(self.run / name, f"checkpoints/{to[-1].name}\n".encode())
        else:
            (self.run / name).unlink(missing_ok=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _is_best(directory: Path) -> bool:
    return bool(checkpoint.about(directory).get("best"))


def _put_aside(bad: Path) -> Path:
    """Give a damaged checkpoint a name that is none."""
    with disk.reported(f"put {bad} aside"):
        return bad.rename(disk.damaged_name(bad))
