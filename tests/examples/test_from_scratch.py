"""The flat teaching file computes what the library computes: each of its losses, and their
gradients, on the same batches."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from logpi import Batch, PolicyOutput, algorithm
from logpi.ops.kl import KL, k3

FILE = Path(__file__).parents[2] / "examples" / "from_scratch.py"
pytestmark = pytest.mark.usefixtures("double")


@pytest.fixture(scope="module")
def scratch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("from_scratch", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["from_scratch"] = module
    spec.loader.exec_module(module)
    return module


def episodes(
    seed: int, rows: int = 12, steps: int = 6, group: int = 4
) -> tuple[Batch, Tensor, Tensor, Tensor]:
    """A ragged batch with rewards at every step; log-probabilities now (moved), of the reference,
    and values [B, T]."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.arange(steps) < torch.randint(1, steps + 1, (rows, 1), generator=g)
    reward = torch.randn(rows, steps, generator=g) * mask
    old = -torch.rand(rows, steps, generator=g) * mask
    batch = Batch(
        obs=torch.zeros(rows, steps + 1, dtype=torch.long),
        action=torch.zeros(rows, steps, dtype=torch.long),
        mask=mask,
        reward=reward,
        terminated=torch.ones(rows, dtype=torch.bool),
        group=torch.arange(rows) // group,
        logp=old,
    )
    now = old + 0.3 * torch.randn(rows, steps, generator=g)
    return (
        batch,
        now,
        old + 0.3 * torch.randn(rows, steps, generator=g),
        torch.randn(rows, steps, generator=g),
    )


def library(
    name: str,
    batch: Batch,
    logp: Tensor,
    ref: Tensor | None,
    value: Tensor | None,
    **options: object,
) -> Tensor:
    objective = algorithm(name, **options).objective
    full = None if value is None else torch.cat([value, torch.zeros(len(batch), 1)], 1)
    old = PolicyOutput(batch.logp, batch.logp, None if full is None else full.detach())
    targets = objective.prepare(batch, old, None if ref is None else PolicyOutput(ref, ref))
    weight = objective.weight(batch.mask, batch.group)
    return objective.loss(batch, targets, weight, PolicyOutput(logp, torch.zeros_like(logp), full))[
        0
    ]


def equal(a: Tensor, b: Tensor, *leaves: Tensor) -> None:
    assert_close(a, b)
    for x, y in zip(torch.autograd.grad(a, leaves), torch.autograd.grad(b, leaves), strict=True):
        assert_close(x, y)
        assert x.any()


@pytest.mark.parametrize("seed", range(3))
def test_reinforce(scratch: ModuleType, seed: int) -> None:
    batch, now, _, _ = episodes(seed)
    now.requires_grad_()
    equal(
        scratch.reinforce_loss(now, batch.reward, batch.mask),
        library("reinforce", batch, now, None, None),
        now,
    )


@pytest.mark.parametrize("seed", range(3))
def test_baseline(scratch: ModuleType, seed: int) -> None:
    batch, now, _, value = episodes(seed)
    now.requires_grad_(), value.requires_grad_()
    mine = scratch.baseline_loss(now, value, batch.reward, batch.mask)
    equal(mine, library("reinforce_baseline", batch, now, None, value), now, value)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("clip", [0.2, 0.05])
@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_grpo(scratch: ModuleType, seed: int, clip: float, beta: float) -> None:
    batch, now, ref, _ = episodes(seed)
    now.requires_grad_()
    mine = scratch.grpo_loss(
        now,
        batch.logp,
        batch.reward.sum(1),
        batch.mask,
        4,
        clip=clip,
        logp_ref=ref if beta else None,
        beta=beta,
    )
    equal(mine, library("grpo", batch, now, ref if beta else None, None, low=clip, beta=beta), now)
    if beta:
        assert algorithm("grpo", beta=beta).objective.kl == KL(beta, k3, "loss")  # type: ignore[attr-defined]


def test_the_worked_numbers(scratch: ModuleType) -> None:
    reward = torch.tensor([[-1.0, -1, -1, 5]])
    assert scratch.returns_to_go(reward)[0].tolist() == [2, 3, 4, 5]
    logp = torch.tensor([[0.4, 0.3, 0.5, 0.7]]).log()
    assert float(scratch.reinforce_loss(logp, reward, torch.ones(1, 4))) == pytest.approx(
        10.0005, abs=5e-5
    )


def test_the_grid_is_the_one_of_the_notes(scratch: ModuleType) -> None:
    """Right, up, right, right: −1 −1 −1 +5."""
    logits = torch.full((16, 4), -50.0)
    for (x, y), move in {(0, 0): 0, (1, 0): 1, (1, 1): 0, (2, 1): 0}.items():
        logits[x * 4 + y, move] = 50.0
    logp, _, reward, mask = scratch.walk(logits, 3)
    assert mask.sum(1).tolist() == [4.0] * 3 and reward[:, :4].tolist() == [[-1, -1, -1, 5]] * 3
    assert not reward[:, 4:].any() and float((logp * mask).sum().detach()) == pytest.approx(
        0, abs=1e-9
    )


def test_it_stands_alone_and_is_short() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert "import logpi" not in text and "from logpi" not in text and len(text.splitlines()) <= 250
    tops = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
    assert tops - sys.stdlib_module_names == {"torch"}


def test_chapter_one_learns(scratch: ModuleType) -> None:
    torch.set_default_dtype(torch.float32)
    curve, logits, value = scratch.grid(with_baseline=True, updates=60)
    assert sum(curve[:5]) / 5 < -5 and sum(curve[-10:]) / 10 > 0.8
    assert scratch.spread(logits, value, 40) < scratch.spread(logits, None, 40)


def test_chapter_two_learns(scratch: ModuleType) -> None:
    torch.set_default_dtype(torch.float32)
    assert scratch.sort_digits("grpo", 30, prompts=16, group=8, passes=3)[-1] > 0.2


@pytest.mark.slow
def test_the_whole_story(scratch: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    scratch.main()
    torch.set_num_threads(threads)
    rows = {
        line[:36].strip(): [float(x) for x in line[36:].split()]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("  ") and "spread" not in line
    }
    assert rows["GRPO"][-1] > 0.8 and rows["GRPO"][-1] > rows["REINFORCE"][-1]
