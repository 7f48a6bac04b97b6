"""Policy gradients from scratch: REINFORCE, a baseline, GRPO with PPO's clip. One file, torch
alone, read from top to bottom.

    python examples/from_scratch.py            about half a minute

Chapter 1 walks a 4×4 grid, chapter 2 sorts digits with a small recurrent network, as a language
model would: token by token, one reward at the end. Three loss functions do all the learning; the
tests show that they are exactly the library's. Left out, and in the library: everything a real run
needs (see `logpi`), and every other way to make these choices (`logpi algorithms`).

Shapes: B episodes (rows), T steps, padded on the right. `mask` [B, T] is 1 where the policy acted.
Log-probabilities in nats.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

# === The losses ===
#
# We want θ to climb J(θ) = E[R]: the expected reward of what the policy itself does. The policy
# gradient theorem says how, with nothing but samples:
#
#     ∇J = E[ Σₜ ∇log π(aₜ|sₜ) · (something that says how good aₜ was) ].
# Autograd does the ∇ if the loss is −Σ log π · goodness, goodness held constant. All that follows
# is about the goodness.


def returns_to_go(reward: Tensor) -> Tensor:
    """Gₜ = rₜ + rₜ₊₁ + …, [B, T]: an action is judged by what came after it, not before."""
    return reward.flip(1).cumsum(1).flip(1)


def reinforce_loss(logp: Tensor, reward: Tensor, mask: Tensor) -> Tensor:
    """Goodness = the return that followed (Williams 1992). Right on average, and very noisy."""
    return -(logp * returns_to_go(reward) * mask).sum() / len(logp)


def baseline_loss(logp: Tensor, value: Tensor, reward: Tensor, mask: Tensor) -> Tensor:
    """Goodness = the return, less what was to be expected here: G − V(s). Less noise, same average.

    V is learned from the same returns: the second term (half the mean squared error, times ½).
    """
    target = returns_to_go(reward)
    surprise = (target - value).detach()
    error = 0.5 * (value - target) ** 2
    return ((-logp * surprise + 0.5 * error) * mask).sum() / len(logp)


def grpo_loss(
    logp: Tensor, logp_old: Tensor, total: Tensor, mask: Tensor, group: int,
    *, clip: float = 0.2, logp_ref: Tensor | None = None, beta: float = 0.0,
) -> Tensor:  # fmt: skip
    """Goodness = the reward, compared with other answers to the same prompt (DeepSeekMath,
    arXiv:2402.03300). No V to learn.

    Rows come `group` at a time, answers to one prompt; `total` [B] is the reward of each answer,
    `logp_old` what the policy said when it answered. The clip is PPO's (arXiv:1707.06347): it lets
    a batch be used more than once, by giving up on an action as soon as its probability has moved
    by more than `clip` in the direction it was pushed. `beta` holds the policy near a reference.
    """
    by_prompt = total.reshape(-1, group)
    centred = by_prompt - by_prompt.mean(1, keepdim=True)
    advantage = (centred / (by_prompt.std(1, keepdim=True) + 1e-6)).reshape(-1, 1)
    ratio = (logp - logp_old).exp()
    objective = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    if logp_ref is not None:
        gap = logp_ref - logp
        objective = objective - beta * (gap.exp() - gap - 1)  # Schulman's k3, never negative
    # the mean over an answer's tokens, then over answers
    return -((objective * mask).sum(1) / mask.sum(1)).mean()


# === Chapter 1: a grid world ===
#
# Start in a corner, four moves, every move costs 1 of fuel. One cell ends the walk with +5, one
# with +4, one with −1. The best walk is four moves long and earns −1 −1 −1 +5 = 2. The policy is a
# table: four numbers for each cell.

SIDE, LIMIT = 4, 20
MOVES = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]])  # right, up, left, down
PRIZE = {(3, 1): 5.0, (3, 3): 4.0, (0, 3): -1.0}


def walk(logits: Tensor, episodes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities, cells, rewards and mask of `episodes` walks at once; each [B, T]."""
    prize, ends = torch.full((SIDE, SIDE), -1.0), torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for (x, y), r in PRIZE.items():
        prize[x, y], ends[x, y] = r, True
    place = torch.zeros(episodes, 2, dtype=torch.long)
    alive = torch.ones(episodes, dtype=torch.bool)
    seen = []
    for _ in range(LIMIT):
        cell = place[:, 0] * SIDE + place[:, 1]
        logp = logits[cell].log_softmax(-1)
        action = torch.multinomial(logp.detach().exp(), 1)
        place = torch.where(alive[:, None], (place + MOVES[action[:, 0]]).clamp(0, SIDE - 1), place)
        reward = prize[place[:, 0], place[:, 1]] * alive
        seen.append((logp.gather(1, action)[:, 0], cell, reward, alive.float()))
        alive = alive & ~ends[place[:, 0], place[:, 1]]
    logp, cell, reward, mask = (torch.stack(x, 1) for x in zip(*seen, strict=True))
    return logp, cell, reward, mask


def grid(
    with_baseline: bool, updates: int = 100, episodes: int = 16, seed: int = 0
) -> tuple[list[float], Tensor, Tensor]:
    """Trains a table; the mean return of every update, the logits and the values."""
    torch.manual_seed(seed)
    logits = nn.Parameter(torch.zeros(SIDE * SIDE, 4))
    value = nn.Parameter(torch.zeros(SIDE * SIDE))
    optimizer = torch.optim.Adam([{"params": [logits], "lr": 0.1}, {"params": [value], "lr": 0.3}])
    curve = []
    for _ in range(updates):
        logp, cell, reward, mask = walk(logits, episodes)
        loss = reinforce_loss(logp, reward, mask)
        if with_baseline:
            loss = baseline_loss(logp, value[cell], reward, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(float(reward.sum(1).mean()))
    return curve, logits, value.detach()


def spread(logits: Tensor, value: Tensor | None, batches: int = 100, episodes: int = 16) -> float:
    """The gradient's standard deviation between batches: what must average out to learn."""
    slopes = []
    for _ in range(batches):
        logp, cell, reward, mask = walk(logits, episodes)
        loss = reinforce_loss(logp, reward, mask)
        if value is not None:
            loss = baseline_loss(logp, value[cell], reward, mask)
        slopes.append(torch.autograd.grad(loss, logits)[0])
    return float(torch.stack(slopes).std(0).norm())


# === Chapter 2: tokens ===
#
# The prompt is three digits and "=", the answer is the same digits sorted. A language model is a
# policy: the state is the text so far, the action is the next token. Nobody shows it a right
# answer; it only hears which share of its digits was in its place.

DIGITS, EQUALS = 3, 10


class Network(nn.Module):
    """A recurrent network over eleven tokens; logits after every prefix, [B, L, 10]."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.embed, self.core = nn.Embedding(11, width), nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.core(self.embed(tokens))[0])

    def logp(self, tokens: Tensor) -> Tensor:
        """Log-probability of each answer token, [B, DIGITS], from the logits after the "="."""
        answer = tokens[:, -DIGITS:]
        logits = self(tokens[:, :-1])[:, -DIGITS:]
        return logits.log_softmax(-1).gather(-1, answer[..., None]).squeeze(-1)


def ask(prompts: int) -> Tensor:
    """[P, DIGITS + 1] random digits and "="."""
    return torch.cat([torch.randint(0, 10, (prompts, DIGITS)), torch.full((prompts, 1), EQUALS)], 1)


@torch.no_grad()
def answer(network: Network, prompt: Tensor, greedy: bool = False) -> Tensor:
    """The prompt with its answer, token by token."""
    logits, state = network.core(network.embed(prompt))
    for _ in range(DIGITS):
        chance = network.head(logits[:, -1]).softmax(-1)
        token = chance.argmax(-1, keepdim=True) if greedy else torch.multinomial(chance, 1)
        prompt = torch.cat([prompt, token], 1)
        logits, state = network.core(network.embed(token), state)
    return prompt


def grade(tokens: Tensor) -> Tensor:
    """The share of digits in their place, [B]."""
    return (tokens[:, -DIGITS:] == tokens[:, :DIGITS].sort(1).values).float().mean(1)


def sort_digits(
    method: str, updates: int, prompts: int = 32, group: int = 16, passes: int = 1, seed: int = 0
) -> list[float]:
    """Trains a network; after every tenth of the updates, its greedy answers' right digits."""
    torch.manual_seed(seed)
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    exam, curve = ask(500), []
    mask = torch.ones(prompts * group, DIGITS)
    for update in range(updates):
        tokens = answer(network, ask(prompts).repeat_interleave(group, 0))
        total = grade(tokens)
        logp_old = network.logp(tokens).detach()
        for _ in range(passes):
            logp = network.logp(tokens)
            if method == "reinforce":
                at_the_end = torch.cat([torch.zeros(len(total), DIGITS - 1), total[:, None]], 1)
                loss = reinforce_loss(logp, at_the_end, mask)
            else:
                loss = grpo_loss(logp, logp_old, total, mask, group)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        if update % (updates // 10) == updates // 10 - 1:
            curve.append(float(grade(answer(network, exam, greedy=True)).mean()))
    return curve


# === The story ===


def show(name: str, curve: list[float], points: int = 10) -> None:
    every = len(curve) // points
    means = [sum(curve[i * every : (i + 1) * every]) / every for i in range(points)]
    print(f"  {name:<34}" + "".join(f"{x:6.2f}" for x in means), flush=True)


def main() -> None:
    start = time.perf_counter()
    torch.set_num_threads(1)  # everything here is small: threads would only wait for one another
    print("1. A grid world: mean return, 100 updates of 16 walks (the best walk earns 2)")
    show("REINFORCE", grid(with_baseline=False)[0])
    curve, logits, value = grid(with_baseline=True)
    show("with a learned baseline", curve)
    plain, reduced = spread(logits, None), spread(logits, value)
    print(f"  the gradient's spread there: {plain:.2f}, with the baseline {reduced:.2f}")
    print(
        "2. Sorting three digits: greedy answers' digits in place (chance: .1), 200 × 512 answers"
    )
    show("REINFORCE", sort_digits("reinforce", 200))
    show("GRPO", sort_digits("grpo", 200))
    show("GRPO, 100 batches used three times", sort_digits("grpo", 100, passes=3))
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
