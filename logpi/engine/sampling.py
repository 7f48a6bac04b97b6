"""Requests and completions; the draw of the next token, and stop strings.

Each token takes one uniform number, inverted through the cumulative distribution: exact up to
rounding, and several times faster than `torch.multinomial` on a large vocabulary. The number is a
hash of the row's seed and the token's position, so a row's samples depend neither on its neighbours
nor on the order of work. Left out: beam search (`evaluation/beam_search.py`), repetition penalties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# probabilities of one block, which are added up before they are searched
BLOCK = 256
# a row's seed is below
SEEDS = 2**63 - 1


@dataclass(frozen=True)
class Sampling:
    """How rows are sampled and when they end. Greedy is a property of a request, not of sampling.

    Attributes:
        temperature: > 0, or None for the policy's own. Log-probabilities are reported at the
            temperature in effect.
        top_k: keep the k likeliest tokens (and those as likely as the k-th); 0 keeps all.
        top_p: keep the fewest tokens whose probabilities add up to top_p; 1 keeps all.
        max_tokens: a row's limit; it ends with stop = "length".
        stop: a row ends once its decoded text contains one of these. Its tokens are kept as they
            were sampled.

    Raises:
        ValueError: a value out of range.
    """

    temperature: float | None = None
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(
                f"temperature must be positive, not {self.temperature}; greedy is"
                " Request(greedy=True)"
            )
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_k must be 0 or more and top_p in (0, 1], not {self.top_k} and {self.top_p}"
            )
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if isinstance(self.stop, str) or not all(self.stop):
            raise ValueError(f"stop must be a tuple of non-empty strings, not {self.stop!r}")

    @property
    def truncated(self) -> bool:
        """Whether some tokens cannot be sampled. Log-probabilities are of the whole distribution,
        so such samples are not for training."""
        return self.top_k > 0 or self.top_p < 1.0


@dataclass(frozen=True)
class Request:
    """A prompt, and how it is sampled.

    Attributes:
        prompt: token ids, at least one. n: samples. greedy: take the likeliest token each time.
        max_tokens: the limit of this request, or None for the sampling's.
        seeds: of its samples, each in [0, 2⁶³ − 1); empty: they are drawn (`seeded`).
    """

    prompt: Sequence[int]
    n: int = 1
    greedy: bool = False
    max_tokens: int | None = None
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Completion:
    """What was sampled for a row.

    Attributes:
        tokens: [t] long. The end token, if there is one, is the last; it is an action like others.
        logp: [t] nats, under the whole tempered distribution, also where sampling was truncated or
            greedy.
        stop: "eos", "stop" (a stop string) or "length" (a limit: the row did not end by itself);
            with `on_turn_end` also what its last continuation says.
        version: [t] long, updates that the weights had had at each token; None from our own engine,
            whose weights are the policy's of the moment.
    """

    tokens: Tensor
    logp: Tensor
    stop: str
    version: Tensor | None = None


def seeded(requests: Sequence[Request], generator: torch.Generator | None) -> list[Request]:
    """The requests with a seed for each sample. Those without seeds get them from the generator, in
    their order; so requests may then be sampled in any order, together or apart.

    Raises:
        ValueError: a request for no sample, or with another number of seeds than samples.
    """
    for number, r in enumerate(requests):
        if r.n < 1:
            raise ValueError(f"request {number} asks for n={r.n} samples; ask for at least 1")
        if r.seeds and len(r.seeds) != r.n:
            raise ValueError(f"request {number} has {len(r.seeds)} seeds for {r.n} samples")
    rows = sum(r.n for r in requests if not r.seeds)
    device = generator.device if generator is not None else "cpu"
    drawn = iter(torch.randint(SEEDS, (rows,), generator=generator, device=device).tolist())
    return [
        r if r.seeds else replace(r, seeds=tuple(next(drawn) for _ in range(r.n))) for r in requests
    ]


def uniform(seed: Tensor, counter: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), float32, for seeds and counters long, of shapes that broadcast:
    splitmix64 of `counter` in stream `seed`."""
    # the golden ratio in 64 bits; products wrap around
    z = seed + (counter + 1) * -0x61C8864680B583EB
    z = (z ^ _shift(z, 30)) * -0x40A7B892E31B1A47
    z = (z ^ _shift(z, 27)) * -0x6B2FB644ECCEEE15
    return _shift(z ^ _shift(z, 31), 40).float() * 2.0**-24


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical shift right of 64-bit integers (torch's is arithmetic)."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def draw(
    logits: Tensor, u: Tensor, greedy: Tensor | None, sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """Tokens [n] and their log-probabilities [n] nats under the whole distribution, for tempered
    logits [n, V].

    u: [n] uniform in [0, 1). greedy: [n] bool, rows that take the likeliest token, or None if no
        row does.

    Raises:
        FloatingPointError: the distribution is not a distribution (NaN or infinite logits).
    """
    p = logits.softmax(-1)
    token = invert(_truncate(p, sampling) if sampling.truncated else p, u)
    if greedy is not None:
        token = torch.where(greedy, logits.argmax(-1), token)
    return token, p.gather(-1, token[:, None]).squeeze(-1).log()


def invert(p: Tensor, u: Tensor) -> Tensor:
    """[n], the first index at which the cumulative sum of p [n, V] exceeds u [n] times the whole
    sum; p there is not 0.

    In a large vocabulary the blocks' sums give the block of `BLOCK` first, then the place in it:
    the whole cumulative sum would cost more than all else in sampling.

    With blocks of 2, p = [.1 .2 | .3 .1 | .3] and u = .5:

        sums of blocks    .3 .4 .3, cumulative .3 .7 1    .5 lies in block 1
        within block 1    left = (.5 − .3) / .4 = .5      of [.3 .1], cumulative .3 .4
        place             .3 > .5 · .4, so 0              token 1 · 2 + 0 = 2
    """
    if p.shape[1] <= 4 * BLOCK:
        return _first(p.cumsum(-1), u)[0].squeeze(1)
    whole = p.shape[1] // BLOCK * BLOCK
    sums = p[:, :whole].unflatten(1, (-1, BLOCK)).sum(-1)
    if whole < p.shape[1]:
        sums = torch.cat([sums, p[:, whole:].sum(-1, keepdim=True)], -1)
    cumulative = sums.cumsum(-1)
    block, z = _first(cumulative, u)
    size = sums.gather(1, block)
    # uniform in [0, 1) again
    left = (z - (cumulative.gather(1, block) - size)) / size
    column = block * BLOCK + torch.arange(BLOCK, device=p.device)
    inside = p.gather(1, column.clamp(max=p.shape[1] - 1)).masked_fill_(column >= p.shape[1], 0)
    place = _first(inside.cumsum(-1), left.squeeze(1).clamp_(min=0))[0]
    # only NaN lies beyond the end, and makes logp NaN
    return (block * BLOCK + place).clamp_(max=p.shape[1] - 1).squeeze(1)


def _first(cumulative: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Where cumulative [n, *] first exceeds z = u [n] times its end; that index and z, [n, 1]
    each."""
    end = cumulative[:, -1]
    # rounding may reach the end
    z = torch.minimum(u * end, torch.nextafter(end, torch.zeros_like(end)))[:, None]
    return torch.searchsorted(cumulative, z, right=True).clamp_(max=cumulative.shape[1] - 1), z


def _truncate(p: Tensor, sampling: Sampling) -> Tensor:
    """p with the tokens that top-k and then top-p exclude set to 0; not normalised again."""
    if 0 < sampling.top_k < p.shape[-1]:
        p = p.masked_fill(p < p.topk(sampling.top_k, dim=-1).values[:, -1:], 0)
    if sampling.top_p < 1.0:
        ordered, index = p.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        excluded = before >= sampling.top_p * ordered.sum(-1, keepdim=True)
        p = p.masked_fill(torch.zeros_like(excluded).scatter(-1, index, excluded), 0)
    return p


class StopStrings:
    """Finds the rows whose text now contains a stop string.

    Only a token whose text has the string's last character (or part of a character) can complete a
    string, so only rows that just sampled such a token are decoded, and only their tails.
    """

    def __init__(self, stop: Sequence[str], tokenizer, vocabulary: int) -> None:
        self.stop, self.tokenizer = tuple(stop), tokenizer
        # tokens that surely cover the longest string: a character has at most 4 bytes
        self.tail = 4 * max(map(len, self.stop)) + 4
        ends = {s[-1] for s in self.stop}
        texts = tokenizer.batch_decode([[i] for i in range(min(vocabulary, len(tokenizer)))])
        closing = [" " in ends or "\ufffd" in t or any(c in t for c in ends) for t in texts]
        self.closing = torch.tensor(closing + [True] * (vocabulary - len(closing)))

    def matches(
        self, token: Tensor, row: Sequence[int], history: Sequence[Sequence[int]]
    ) -> Tensor:
        """[n] bool for rows `row` [n] that just sampled `token` [n], whose tokens so far are
        history[row]."""
        out = torch.zeros(len(token), dtype=torch.bool)
        for i in self.closing[token.cpu()].nonzero().squeeze(1).tolist():
            text = self.tokenizer.decode(history[row[i]][-self.tail :])
            out[i] = any(s in text for s in self.stop)
        return out.to(token.device)
