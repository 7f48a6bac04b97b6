"""Invariances of policy-gradient losses, as checks of your own objective.

    check_all(objective, batch, now, ref)      raises AssertionError with the name of the broken law

`objective` is anything with the three calls of `logpi.types.Objective`; `now` has the
log-probabilities (and values) of the current policy as plain tensors. The loss and its gradient
with respect to them must not change with a split into micro-batches or over ranks, padding, another
row order, garbage in masked-out slots, rows without an own action, or deletion of the observation
tokens.
These checks catch the normalisation and masking bugs that most libraries of the field have had.
Left out: whether the objective learns (`logpi.lab`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from logpi.types import Batch, Objective, PolicyOutput
from logpi.updates.micro_batches import micro_batches, own_share

__all__ = [
    "check_all",
    "check_dead_rows",
    "check_garbage",
    "check_micro_batches",
    "check_observation_deletion",
    "check_padding",
    "check_ranks",
    "check_row_order",
    "gradient",
    "group",
    "random_case",
    "row",
]

# In float32: of a gradient, relative to its largest number; of the loss, relative to Σ |gradient|,
# because its terms may cancel.
ATOL = 1e-5


def row(
    reward: Sequence[float], mask: Sequence[int] | None = None, terminated: bool = True
) -> Batch:
    """A batch of one row with these rewards, for examples and tests."""
    own = [1] * len(reward) if mask is None else list(mask)
    return _batch([list(reward)], [own], terminated)


def group(returns: Sequence[float], lengths: Sequence[int] | None = None) -> Batch:
    """A batch of one group with these returns, for examples and tests; `lengths` are the numbers of
    the rows' own actions, one each if None."""
    lengths = lengths or [1] * len(returns)
    slots = [[t < n for t in range(max(lengths))] for n in lengths]
    paid = [
        [r * (t == n - 1) for t in range(max(lengths))]
        for r, n in zip(returns, lengths, strict=True)
    ]
    return _batch(paid, [[int(x) for x in row] for row in slots], True)


def _batch(reward: list[list[float]], mask: list[list[int]], terminated: bool) -> Batch:
    """Rows of one group with these rewards and masks; everything else is 0."""
    rows, width = len(reward), len(reward[0])
    return Batch(
        obs=torch.zeros(rows, width + 1, dtype=torch.long),
        action=torch.zeros(rows, width, dtype=torch.long),
        mask=torch.tensor(mask, dtype=torch.bool),
        reward=torch.tensor(reward),
        terminated=torch.full((rows,), terminated),
        group=torch.zeros(rows, dtype=torch.long),
        logp=torch.zeros(rows, width),
    )


def random_case(
    seed: int = 0, prompts: int = 3, group_size: int = 4, width: int = 9, tools: bool = True
) -> tuple[Batch, PolicyOutput, PolicyOutput]:
    """A ragged batch with prompts, tool gaps and padding in its mask, and what a policy and a
    reference say of it."""
    g = torch.Generator().manual_seed(seed)
    rows = prompts * group_size
    mask = torch.zeros(rows, width, dtype=torch.bool)
    for i in range(rows):
        start = int(torch.randint(0, 3, (), generator=g))
        stop = int(torch.randint(start + 2, width + 1, (), generator=g))
        mask[i, start:stop] = True
        if tools and stop - start > 3:
            mask[i, start + 1 : start + 3] = False
    reward = torch.where(mask, torch.rand(mask.shape, generator=g).round(), 0.0)
    obs = torch.randint(0, 11, (rows, width + 1), generator=g)
    logp = -torch.rand(mask.shape, generator=g) - 0.1
    batch = Batch(
        obs=obs,
        action=obs[:, 1:],
        mask=mask,
        reward=reward,
        terminated=torch.rand(rows, generator=g) < 0.6,
        group=torch.arange(rows) // group_size,
        logp=torch.where(mask, logp, 0.0),
        baseline=torch.rand(rows, generator=g),
    )

    def output(spread: float) -> PolicyOutput:
        noise = spread * torch.randn(mask.shape, generator=g)
        return PolicyOutput(
            logp + noise,
            torch.rand(mask.shape, generator=g),
            torch.randn((rows, width + 1), generator=g),
            torch.randn((*mask.shape, 4), generator=g).log_softmax(-1)[..., :3],
        )

    return batch, output(0.0), output(0.2)


def gradient(
    objective: Objective,
    batch: Batch,
    now: PolicyOutput,
    ref: PolicyOutput | None,
    *,
    moved: float = 0.1,
    pieces: Sequence[Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its gradient with respect to logp, entropy, value and others, after the policy
    changed by up to `moved` nats on every action.

    Args:
        pieces: micro-batches, as index tensors [n] over the rows; None for a single one.
    """
    targets = objective.prepare(batch, now, ref)
    weight = objective.weight(batch.mask, batch.group)
    leaves = {
        k: getattr(now, k).detach().clone().requires_grad_()
        for k in ("logp", "entropy", "value", "others")
        if getattr(now, k) is not None
    }
    shift = moved * torch.sin(torch.arange(len(batch), dtype=now.logp.dtype))[:, None]
    total = torch.zeros((), dtype=now.logp.dtype)
    for piece in pieces if pieces is not None else [torch.arange(len(batch))]:
        part = batch.map(lambda x, p=piece: x[p])
        rows = {k: v[piece] for k, v in leaves.items()}
        rows["logp"] = rows["logp"] + shift[piece]
        loss, _ = objective.loss(
            part, targets.rows(piece, batch.mask.shape[1]), weight[piece], PolicyOutput(**rows)
        )
        total = total + loss
    grads = torch.autograd.grad(
        total, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    return total.detach(), dict(zip(leaves, grads, strict=True))


def _same(
    name: str, a: tuple[Tensor, dict[str, Tensor]], b: tuple[Tensor, dict[str, Tensor]]
) -> None:
    whole = sum(float(g.abs().sum()) for g in a[1].values())
    torch.testing.assert_close(
        a[0], b[0], atol=ATOL * whole, rtol=1e-4, msg=lambda m: f"{name}: the loss changed. {m}"
    )
    for key, grad in a[1].items():
        torch.testing.assert_close(
            grad,
            b[1][key],
            atol=ATOL * float(grad.abs().amax()),
            rtol=1e-4,
            msg=lambda m, k=key: f"{name}: gradient of {k} changed. {m}",
        )


Map = Callable[[Tensor], Tensor]


def _map(output: PolicyOutput, f: Map, value: Map) -> PolicyOutput:
    values = None if output.value is None else value(output.value)
    others = None if output.others is None else f(output.others)
    return PolicyOutput(f(output.logp), f(output.entropy), values, others)


def _like(x: Tensor, y: Tensor) -> Tensor:
    """[B, T] with further axes of length 1, as many as y [B, T, *] has."""
    return x.view(*x.shape, *[1] * (y.ndim - 2))


def _map_ref(ref: PolicyOutput | None, f: Map, value: Map) -> PolicyOutput | None:
    return None if ref is None else _map(ref, f, value)


def check_micro_batches(
    objective: Objective,
    batch: Batch,
    now: PolicyOutput,
    ref: PolicyOutput | None,
    whole_groups: bool = False,
) -> None:
    """Any split of the rows (or of the groups) into micro-batches gives the same loss and
    gradient."""
    whole = gradient(objective, batch, now, ref)
    unit = batch.group if whole_groups else torch.arange(len(batch))
    for size in (1, 2, 5):
        parts = torch.unique(unit).split(size)
        pieces = [torch.isin(unit, part).nonzero().flatten() for part in parts]
        split = gradient(objective, batch, now, ref, pieces=pieces)
        _same(f"micro-batches of {size}", whole, split)


def check_ranks(
    objective: Objective,
    batch: Batch,
    now: PolicyOutput,
    ref: PolicyOutput | None,
    whole_groups: bool = False,
) -> None:
    """Dealt out to any number of ranks, the pieces' gradients add up to that of one process."""
    whole = gradient(objective, batch, now, ref)
    for ranks in (2, 3, 8):
        pieces = list(micro_batches(batch.mask, None, batch.group, whole_groups, ranks))
        shares = [own_share(pieces, batch.mask, rank, ranks) for rank in range(ranks)]
        assert len({len(share) for share in shares}) == 1, "a rank has more pieces than another"
        dealt = [piece for share in shares for piece, counts in share if counts]
        _same(f"{ranks} ranks", whole, gradient(objective, batch, now, ref, pieces=dealt))


def check_padding(
    objective: Objective, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None, extra: int = 3
) -> None:
    """Padding on the right changes nothing, and padded slots get no gradient."""

    def wide(x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros((x.shape[0], extra, *x.shape[2:]))], 1)

    padded = replace(
        batch, **{k: wide(getattr(batch, k)) for k in ("obs", "action", "mask", "reward", "logp")}
    )
    loss, grads = gradient(objective, padded, _map(now, wide, wide), _map_ref(ref, wide, wide))
    for name, grad in grads.items():
        assert not grad[:, batch.mask.shape[1] + (name == "value") :].any(), (
            f"padding: {name} got a gradient there"
        )
    cut = {k: v[:, : batch.mask.shape[1] + (k == "value")] for k, v in grads.items()}
    _same("padding", gradient(objective, batch, now, ref), (loss, cut))


def check_row_order(
    objective: Objective, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None
) -> None:
    """Rows in another order, and groups with other numbers, give the same loss and the same
    gradient for each row."""
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(1))
    back = torch.argsort(order)
    shuffled = torch.randperm(
        int(batch.group.max()) + 1, generator=torch.Generator().manual_seed(2)
    )
    numbers = shuffled * 7 + 3

    def mix(x: Tensor) -> Tensor:
        return x[order]

    mixed = replace(batch.map(mix), group=numbers[batch.group[order]])
    whole = gradient(objective, batch, now, ref, moved=0.0)
    loss, grads = gradient(
        objective, mixed, _map(now, mix, mix), _map_ref(ref, mix, mix), moved=0.0
    )
    _same("row order", whole, (loss, {k: v[back] for k, v in grads.items()}))


def _last(mask: Tensor) -> Tensor:
    """[B] the column of each row's last own action; -1 if it has none."""
    return torch.where(mask, torch.arange(mask.shape[1]), -1).amax(1)


def _read_values(batch: Batch) -> Tensor:
    """[B, T+1] bool, where `PolicyOutput.value` is read: at own actions, and in the state after the
    last one of a row that was cut off."""
    last = _last(batch.mask)
    read = torch.cat([batch.mask, torch.zeros(len(batch), 1, dtype=torch.bool)], 1)
    cut = (~batch.terminated & (last >= 0)).nonzero().flatten()
    read[cut, last[cut] + 1] = True
    return read


def check_garbage(
    objective: Objective, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None
) -> None:
    """NaN, infinities and huge numbers where `mask` is False change nothing, and no gradient flows
    there."""
    whole = gradient(objective, batch, now, ref)
    read = _read_values(batch)
    for junk in (float("nan"), float("inf"), 1e6):

        def spoil(x: Tensor, junk: float = junk) -> Tensor:
            return x.masked_fill(~_like(batch.mask, x), junk)

        def spoil_value(x: Tensor, junk: float = junk) -> Tensor:
            return x.masked_fill(~read, junk)

        dirty = replace(batch, reward=spoil(batch.reward), logp=spoil(batch.logp))
        spoiled = gradient(
            objective, dirty, _map(now, spoil, spoil_value), _map_ref(ref, spoil, spoil_value)
        )
        _same(f"garbage {junk} in masked-out slots", whole, spoiled)


def check_dead_rows(
    objective: Objective, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None
) -> None:
    """One more row without an own action in each group (masked out, no verdict) changes nothing,
    whatever its reward."""
    ids = torch.unique(batch.group)
    first = torch.stack([(batch.group == i).nonzero()[0, 0] for i in ids])

    def more(x: Tensor, junk: float = 1e3) -> Tensor:
        rows = torch.full_like(x[first], junk) if x.is_floating_point() else x[first]
        return torch.cat([x, rows])

    longer = replace(
        batch.map(more), mask=torch.cat([batch.mask, torch.zeros_like(batch.mask[first])])
    )
    loss, grads = gradient(objective, longer, _map(now, more, more), _map_ref(ref, more, more))
    cut = {k: v[: len(batch)] for k, v in grads.items()}
    _same("rows without an own action", gradient(objective, batch, now, ref), (loss, cut))


def check_observation_deletion(
    objective: Objective, batch: Batch, now: PolicyOutput, ref: PolicyOutput | None
) -> None:
    """Deleting what the policy did not choose (prompt, tool output) leaves loss and gradient of its
    own actions unchanged."""
    # own actions first, in order
    keep = torch.argsort((~batch.mask).to(torch.int8), dim=1, stable=True)
    last, count, rows = _last(batch.mask), batch.mask.sum(1), torch.arange(len(batch))

    def pull(x: Tensor) -> Tensor:
        return x.gather(1, _like(keep, x).expand_as(x))

    def pull_value(x: Tensor) -> Tensor:
        pulled = torch.cat([pull(x[:, :-1]), x.new_zeros(len(x), 1)], 1)
        pulled[rows, count] = x[rows, last + 1]
        return pulled

    short = replace(batch, mask=pull(batch.mask), reward=pull(batch.reward), logp=pull(batch.logp))
    loss, grads = gradient(objective, batch, now, ref)
    pulled = {k: pull_value(v) if k == "value" else pull(v) for k, v in grads.items()}
    deleted = gradient(
        objective, short, _map(now, pull, pull_value), _map_ref(ref, pull, pull_value)
    )
    _same("observation deletion", (loss, pulled), deleted)


def check_all(
    objective: Objective,
    batch: Batch | None = None,
    now: PolicyOutput | None = None,
    ref: PolicyOutput | None = None,
    *,
    whole_groups: bool = False,
) -> None:
    """Check every invariance above, on a random ragged batch unless one is given.

    Args:
        whole_groups: micro-batches have whole groups, for objectives that score a group together.
    Raises:
        AssertionError: with the name of the first law that does not hold.
    """
    if batch is None or now is None:
        batch, now, ref = random_case()
    check_micro_batches(objective, batch, now, ref, whole_groups)
    check_ranks(objective, batch, now, ref, whole_groups)
    laws = (
        check_padding,
        check_row_order,
        check_garbage,
        check_dead_rows,
        check_observation_deletion,
    )
    for law in laws:
        law(objective, batch, now, ref)
