"""Worlds that are small enough to list every trajectory: language tasks as trees of tokens, and the
grid world with a horizon.

A `World` holds the process, a policy's logits, and *all* trajectories once, recorded as a rollout
records them. So every batch of a rollout is a choice of rows. Left out: the probability of each
batch, and gradients (`expectation.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from logpi.envs.control.grid_model import GridModel
from logpi.lab.mdp import MDP
from logpi.policies.tabular import Index, Prefixes, States, TabularPolicy
from logpi.rollouts.collate import collate
from logpi.types import Batch, Trajectory


@contextmanager
def double() -> Iterator[None]:
    """Inside, new tensors and weights are float64, and torch uses one thread: tensors are small, so
    more threads would only wait."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class World:
    """A finite world under one policy. K trajectories, P starts (prompts), S states, A actions.

    Attributes:
        mdp: the process. logits: [S, A] the policy θ. index: finds the state of an observation.
        paths: every trajectory once [K rows]; `group` is the number of its start; `logp` and
            `baseline` (the greedy trajectory's return) are those of the policy.
        luck: [K] product of the environment's transition probabilities along a trajectory.
        start: [P] probability of each start.
        names: of the trajectories, for tables.
        timed: values depend on the step and not only on the state, because the state does not
            contain the time to the horizon.
    """

    mdp: MDP
    logits: Tensor
    index: Index
    paths: Batch
    luck: Tensor
    start: Tensor
    names: tuple[str, ...]
    timed: bool = False

    def policy(self, logits: Tensor | None = None, value: Tensor | None = None) -> TabularPolicy:
        """The policy at θ, or at other logits [S, A], with `value` as its critic's values
        (`TabularPolicy.value`)."""
        return TabularPolicy(
            self.logits if logits is None else logits, self.index, self.mdp.allowed, value
        )

    def policy_logp(self, logits: Tensor) -> Tensor:
        """log π(aₜ|sₜ) of every trajectory under other logits [S, A]; [K, T] nats, 0 where not own;
        carries gradient."""
        state = self.index(self.paths)[:, :-1]
        action = torch.where(self.paths.mask, self.paths.action, 0)
        logp = logits.masked_fill(~self.mdp.allowed, -torch.inf).log_softmax(-1)[state, action]
        return torch.where(self.paths.mask, logp, 0.0)

    def at(self, logits: Tensor) -> World:
        """The same world under another policy: its trajectories are recorded again."""
        moved = replace(self, logits=logits.detach().double().clone())
        logp = self.policy_logp(moved.logits)
        return replace(moved, paths=replace(self.paths, logp=logp, baseline=moved._greedy()))

    def _greedy(self) -> Tensor:
        """[K] return of the greedy trajectory from the same start; where transitions are random, of
        the likeliest one."""
        state, best = self.index(self.paths)[:, :-1], self.pi.argmax(-1)
        greedy = ((best[state] == self.paths.action) | ~self.paths.mask).all(1)
        baseline = torch.zeros_like(self.luck)
        for group in self.paths.group.unique():
            rows = (self.paths.group == group).nonzero().flatten()
            likeliest = rows[torch.where(greedy[rows], self.luck[rows], -1.0).argmax()]
            baseline[rows] = self.returns[likeliest]
        return baseline

    @property
    def returns(self) -> Tensor:
        """R of each trajectory [K]."""
        return torch.where(self.paths.mask, self.paths.reward, 0.0).sum(1)

    @property
    def lengths(self) -> Tensor:
        """Number of own actions of each trajectory [K]."""
        return self.paths.mask.sum(1)

    @property
    def conditional(self) -> Tensor:
        """P(τ | start) [K]."""
        return self.luck * self.paths.logp.sum(1).exp()

    @property
    def probability(self) -> Tensor:
        """P(τ) [K], adds up to 1."""
        return self.start[self.paths.group] * self.conditional

    @property
    def value(self) -> Tensor:
        """V^π in the shape of `TabularPolicy.value`: [S], or [H+1, S] if `timed`."""
        v = self.mdp.values(self.pi)[0]
        return v if self.timed else v[0]

    @property
    def pi(self) -> Tensor:
        """π(a|s) [S, A]."""
        return self.mdp.policy(self.logits)

    @property
    def expected_return(self) -> float:
        """J(θ)."""
        return float(self.mdp.expected_return(self.logits))

    @property
    def gradient(self) -> Tensor:
        """∇J(θ) [S·A]."""
        return self.mdp.gradient(self.logits).flatten()

    def solve_rate(self) -> Tensor:
        """E[R | start] [P]; with binary rewards the probability of a right answer."""
        total = self.conditional * self.returns
        return torch.zeros_like(self.start).index_add(0, self.paths.group, total)


def responses(alphabet: str, end: str, longest: int) -> list[str]:
    """Every string over `alphabet` that ends with `end`, or is cut off at `longest` characters.

    >>> responses("a", ".", 2)
    ['.', 'a.', 'aa']
    """
    ended = ["".join(x) + end for n in range(longest) for x in product(alphabet, repeat=n)]
    return ended + ["".join(x) for x in product(alphabet, repeat=longest)]


def token_world(
    tasks: Mapping[str, Mapping[str, float]],
    seed: int = 0,
    spread: float = 1.0,
    start: Iterable[float] | None = None,
) -> World:
    """A language task as a world: prompts, every response to each, and its reward on the last
    token. A character is a token.

    The policy is a softmax table over prefixes, with random logits. The prompt is in `obs` and not
    in `mask`.

    Args:
        tasks: prompt → {response → reward}. No response may be the beginning of another response to
            the same prompt.
        seed: of the logits. spread: their standard deviation. start: probabilities of the prompts,
            uniform if None.
    Raises:
        ValueError: a response or a prompt is empty, or is the beginning of another one.

    >>> token_world({"1+1=": {"2": 1.0, "3": 0.0}}, spread=0.0).expected_return
    0.5
    """
    tree = _TokenTree(tasks)
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(
        len(tree.step), len(tree.characters), generator=generator, dtype=torch.float64
    )
    chances = torch.tensor(
        list(start) if start is not None else [1 / len(tasks)] * len(tasks), dtype=torch.float64
    )
    mdp = tree.mdp(tasks, chances)
    rows, names = [], []
    for group, (prompt, answers) in enumerate(tasks.items()):
        for response, reward in answers.items():
            rows.append(tree.row(prompt, response, reward, group))
            names.append(f"{prompt}{response}")
    world = World(
        mdp,
        logits,
        Prefixes(torch.tensor(tree.step)),
        collate(rows),
        torch.ones(len(rows), dtype=torch.float64),
        chances,
        tuple(names),
    )
    return world.at(logits)


class _TokenTree:
    """All prefixes of the task's strings as states. State 0 is the empty prefix; state 1 is no
    prefix of any string."""

    def __init__(self, tasks: Mapping[str, Mapping[str, float]]) -> None:
        strings = [p + r for p, answers in tasks.items() for r in answers]
        _check_prefixes(tasks)
        self.characters = sorted(set("".join(strings)))
        self.token = {c: i for i, c in enumerate(self.characters)}
        self.state: dict[str, int] = {"": 0}
        self.step = [[1] * len(self.characters), [1] * len(self.characters)]
        for string in strings:
            for n in range(1, len(string) + 1):
                self._add(string[:n])

    def _add(self, prefix: str) -> None:
        if prefix in self.state:
            return
        self.state[prefix] = len(self.step)
        self.step.append([1] * len(self.characters))
        self.step[self.state[prefix[:-1]]][self.token[prefix[-1]]] = self.state[prefix]

    def mdp(self, tasks: Mapping[str, Mapping[str, float]], start: Tensor) -> MDP:
        step = torch.tensor(self.step)
        s, a = step.shape
        transition = torch.nn.functional.one_hot(step, s).double()
        reward = torch.zeros(s, a, s, dtype=torch.float64)
        begin = torch.zeros(s, dtype=torch.float64)
        terminal = (step == 1).all(1)
        for chance, (prompt, answers) in zip(start.tolist(), tasks.items(), strict=True):
            begin[self.state[prompt]] = chance
            for response, score in answers.items():
                reward[:, :, self.state[prompt + response]] = score
        itself = torch.eye(s, dtype=torch.float64)[terminal]
        transition[terminal] = itself[:, None].expand(-1, a, -1)
        reward[terminal] = 0.0
        allowed = (step != 1) | terminal[:, None]
        longest = max(len(response) for answers in tasks.values() for response in answers)
        return MDP(transition, reward, begin, terminal, longest, allowed)

    def row(self, prompt: str, response: str, reward: float, group: int) -> Trajectory:
        ids = torch.tensor([self.token[c] for c in prompt + response])
        t = len(ids) - 1
        mask = torch.arange(t) >= len(prompt) - 1
        rewards = torch.zeros(t, dtype=torch.float64)
        rewards[-1] = reward
        logp = torch.zeros(t, dtype=torch.float64)
        return Trajectory(ids, ids[1:], mask, rewards, logp, terminated=True, group=group)


def _check_prefixes(tasks: Mapping[str, Mapping[str, float]]) -> None:
    responses_of = [(f"response to {p!r}", list(r)) for p, r in tasks.items()]
    for what, strings in [("prompt", list(tasks)), *responses_of]:
        if "" in strings or not strings:
            raise ValueError(
                f"a {what} is empty: every prompt and response needs at least one character"
            )
        for a, b in product(strings, strings):
            if a != b and b.startswith(a):
                raise ValueError(
                    f"the {what} {a!r} is the beginning of {b!r}: end it with a character of"
                    " its own"
                )


def grid_world(
    grid: GridModel | None = None, horizon: int = 4, seed: int = 0, spread: float = 0.5
) -> World:
    """The grid world with an end after `horizon` moves; the policy is a softmax table over cells.

    Raises:
        ValueError: more trajectories than can be listed (4^horizon without slips, 8^horizon with
            them).
    """
    grid = grid or GridModel()
    if (8 if grid.slip else 4) ** horizon > 2**17:
        raise ValueError(
            f"{horizon} moves have too many trajectories to list them all: take a shorter horizon"
        )
    mdp = grid_mdp(grid, horizon)
    logits = spread * torch.randn(
        grid.states, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    paths = list(mdp.paths(grid.state(grid.start)))
    rows = [
        Trajectory(
            torch.tensor(p.states),
            torch.tensor(p.actions),
            torch.ones(len(p.actions), dtype=torch.bool),
            torch.tensor(p.rewards, dtype=torch.float64),
            torch.zeros(len(p.actions), dtype=torch.float64),
            terminated=True,
            group=0,
        )
        for p in paths
    ]
    luck = torch.tensor([p.luck for p in paths], dtype=torch.float64)
    names = tuple("".join("→↑←↓"[a] for a in p.actions) for p in paths)
    start = torch.ones(1, dtype=torch.float64)
    return World(mdp, logits, States(), collate(rows), luck, start, names, timed=True).at(logits)


def grid_mdp(grid: GridModel, horizon: int) -> MDP:
    """The grid as a process that ends after `horizon` moves."""
    start = torch.zeros(grid.states, dtype=torch.float64)
    start[grid.state(grid.start)] = 1.0
    allowed = torch.ones(grid.states, 4, dtype=torch.bool)
    return MDP(grid.transition, grid.reward, start, grid.terminal, horizon, allowed)


# An easy short task and a hard long one; right answers of each are short and long.
STANDARD = {
    "e": {"a.": 1.0, "aa": 1.0, "ab": 1.0, "b.": 0.0, "ba": 1.0, "bb": 0.0, ".": 0.0},
    "hd": {
        ".": 0.0,
        "a.": 1.0,
        "aa": 0.0,
        "aba": 0.0,
        "abb.": 1.0,
        "abba": 0.0,
        "ab.": 0.0,
        "b": 0.0,
    },
}


def standard(rewards: Mapping[str, float] | None = None) -> World:
    """The lab's standard world: two prompts of different difficulty and length, 15 responses,
    binary rewards.

    Args:
        rewards: other rewards of some strings (prompt and response together).
    """
    tasks = {
        p: {r: (rewards or {}).get(p + r, x) for r, x in answers.items()}
        for p, answers in STANDARD.items()
    }
    return token_world(tasks, seed=3)
