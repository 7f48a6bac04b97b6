"""What /proc and the control groups say, by made-up files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from logpi.distributed.processors import Processors, allowed, busy, has_bfloat16, processors, quota


def machine(home: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """A /proc with these lines; `@` in them stands for the directory that holds it."""
    own = home / "proc" / "self"
    own.mkdir(parents=True)
    (own / "cgroup").write_text(groups)
    (own / "mountinfo").write_text(mounts.replace("@", str(home)))
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    return home / "proc"


TWO = "30 23 0:26 / @/cg rw,nosuid - cgroup2 cgroup2 rw\n"
ONE = "31 23 0:27 / @/cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
OTHER = "32 23 0:28 / @/cg/memory rw - cgroup cgroup rw,memory\n"
QUOTAS = {
    # groups, mounts, files, cores' worth
    "v2": ("0::/a/b\n", TWO, {"cg/a/b/cpu.max": "150000 100000\n"}, 1.5),
    "v2, the parent's": (
        "0::/a/b\n",
        TWO,
        {"cg/a/b/cpu.max": "max 100000\n", "cg/a/cpu.max": "50000 100000\n"},
        0.5,
    ),
    "v2, none": ("0::/a\n", TWO, {"cg/a/cpu.max": "max 100000\n"}, math.inf),
    "v2, the mount is the group": (
        "0::/kubepods/x\n",
        TWO.replace(" / @", " /kubepods/x @"),
        {"cg/cpu.max": "300000 100000\n"},
        3.0,
    ),
    # the host's path, which the container does not have
    "v1, a container": (
        "4:cpu,cpuacct:/docker/x\n5:memory:/docker/x\n0::/\n",
        OTHER + ONE,
        {"cg/cpu/cpu.cfs_quota_us": "200000\n", "cg/cpu/cpu.cfs_period_us": "100000\n"},
        2.0,
    ),
    "v1, none": (
        "1:cpu:/\n",
        ONE,
        {"cg/cpu/cpu.cfs_quota_us": "-1\n", "cg/cpu/cpu.cfs_period_us": "100000\n"},
        math.inf,
    ),
    "no controller of time": ("5:memory:/\n", OTHER, {}, math.inf),
    "broken": ("nonsense\n", "more of it\n", {}, math.inf),
    "broken numbers": ("0::/\n", TWO, {"cg/cpu.max": "many 0\n"}, math.inf),
}


@pytest.mark.parametrize("name", QUOTAS)
def test_quota(name: str, tmp_path: Path) -> None:
    groups, mounts, files, expected = QUOTAS[name]
    assert quota(machine(tmp_path, groups, mounts, files)) == expected


def test_busy_counts_work_of_the_own_cores_alone(tmp_path: Path) -> None:
    """Core 0 works 12 of 15 ticks, core 1 none of 15, core 2 (not ours) all."""
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu 9 9 9 9\ncpu0 100 0 20 900 10 0 0 0 5 5\ncpu1 5 0 0 10 0 0 0 0\ncpu2 0 0 0 9\n"
    )
    after = "cpu0 110 0 22 903 10 0 0 0 9 9\ncpu1 5 0 0 20 5 0 0 0\ncpu2 15 0 0 9\nintr 7\n"
    assert busy({0, 1}, tmp_path, lambda _: stat.write_text(after)) == pytest.approx(0.8)


def test_stolen_time_is_work_of_others(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu0 0 0 0 0 0 0 0 0\n")
    after = "cpu0 0 0 0 5 0 0 0 15\n"
    assert busy({0}, tmp_path, lambda _: stat.write_text(after)) == 0.75


def test_a_system_that_says_nothing_has_cores_alone(tmp_path: Path) -> None:
    assert processors(tmp_path, lambda _: None) == Processors(len(allowed()), math.inf, 0.0)


def test_the_limit_is_whole_cores() -> None:
    limits = [Processors(8, q).limit for q in (math.inf, 2.5, 0.3, 9.0)]
    assert limits == [8, 2, 1, 8]


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("flags\t\t: fpu avx2 avx512f amx_bf16 amx_tile", True),
        ("flags : avx512_bf16", True),
        ("Features : asimd bf16", True),
        ("flags : fpu avx2 avx512f", False),
        ("model name : bf16", False),
        ("", False),
    ],
)
def test_instructions_for_bfloat16(text: str, has: bool, tmp_path: Path) -> None:
    assert not has_bfloat16(tmp_path)
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{text}\n")
    assert has_bfloat16(tmp_path) == has
