"""The model and the data of `logpi r1` without arguments: a small base model that has read untidy
text in two languages.

Everything is generated: sums (`envs/tasks/bilingual.py`), greetings as the non-reasoning side, and
pairs of greetings judged by a known rule with noise, from which the reward model learns. The base
model has read worked sums and greetings in English, Chinese and both by turns, mostly without
proper tags. Left out: people and real text; the rule stands for them.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from logpi.demos.chain import base_model, judged
from logpi.jobs import sft
from logpi.runs.metrics import write_rows

NAMES = tuple("ann bob cat dan eve fay gus hal ian joy kim leo may ned oli pam".split())
VERBS = ("greet", "thank", "invite", "cheer")
KIND = ("dear", "friend", "welcome", "please", "good", "day", "nice")
PLAIN = ("hello", "hi", "you", "and", "the")
CHINESE = "你好谢请友"
WORDS = (*NAMES, *VERBS, *KIND, *PLAIN, "kindly")
TASK = "bilingual(digits=2, slips=0.15)"


def gold(prompt: str, response: str) -> float:
    """The hidden rule: (kind words − words said again − 2 without the name) / 4, of the
    answer alone; 1 is very good.

    >>> gold("greet ann.", "<think>kindly</think><answer>hello dear friend ann good day</answer>")
    1.0
    >>> gold("greet ann.", "<answer>dear dear bob</answer>")
    -0.5
    """
    words = response.rpartition("<answer>")[2].partition("</answer>")[0].split()
    has_name = prompt.rstrip(".").split()[-1] in words
    kind = len(set(words) & set(KIND))
    return min(1.0, (kind - (len(words) - len(set(words))) - (0 if has_name else 2)) / 4)


def _greeting(name: str, rng: Random, kind: int, plain: int) -> str:
    words = [*rng.sample(KIND, kind), *rng.sample(PLAIN, plain), name]
    rng.shuffle(words)
    return " ".join(words)


def _untidy(prompt: str, name: str, rng: Random) -> str:
    """A greeting as the base model has read them: anything goes."""
    text = _greeting(
        name if rng.random() < 0.7 else rng.choice(NAMES), rng, rng.randint(0, 2), rng.randint(0, 2)
    )
    words = [w if rng.random() < 0.6 else rng.choice(CHINESE) for w in text.split()]
    text = " ".join(words)
    return rng.choice(
        (
            text,
            f"<think>kindly</think><answer>{text}</answer>",
            f"<think>{text}</think>",
            f"<answer>{text}</answer>",
        )
    )


def _asked(held_out: bool) -> list[tuple[str, str]]:
    """(prompt, name): every verb and every name are known, a quarter of their pairs is held out."""
    pairs = [
        (v, n)
        for i, v in enumerate(VERBS)
        for j, n in enumerate(NAMES)
        if ((i + j) % 4 == 0) == held_out
    ]
    return [(f"{verb} {name}.", name) for verb, name in pairs]


def _greetings(rng: Random, count: int, tidy: bool) -> list[dict[str, str]]:
    rows = []
    for _ in range(count):
        prompt, name = rng.choice(_asked(held_out=False))
        answer = (
            f"<think>kindly</think><answer>{_greeting(name, rng, rng.randint(0, 2), 1)}</answer>"
        )
        rows.append(
            {"prompt": prompt, "completion": answer if tidy else _untidy(prompt, name, rng)}
        )
    return rows


def _pair(rng: Random) -> dict[str, str]:
    """Two answers compared as a noisy person would: better by Δ of the rule is preferred with
    probability σ(6Δ)."""
    prompt, name = rng.choice(_asked(held_out=False))

    def some() -> str:
        words = _greeting(
            name if rng.random() < 0.7 else rng.choice(NAMES),
            rng,
            rng.randint(0, 5),
            rng.randint(0, 3),
        ).split()
        return " ".join(words + rng.choices(words, k=rng.choice((0, 0, 1, 2))))

    one, two = some(), some()
    marks = [gold(prompt, f"<answer>{s}</answer>") for s in (one, two)]
    return judged(prompt, one, two, 6 * (marks[0] - marks[1]), rng)


def write_data(out: Path, seed: int) -> None:
    """What the base model reads, the non-reasoning demonstrations, and judged pairs; the same for
    the same seed."""
    from logpi.envs.tasks import task

    if (out / "pairs" / "test.jsonl").exists():  # written last
        return
    rng = Random(seed)
    sums = task(TASK).rows("train", seed + 1)[:16_000]
    texts = [{"prompt": r["prompt"], "completion": r["completion"]} for r in sums] + _greetings(
        rng, 4_000, tidy=False
    )
    write_rows(out / "texts" / "train.jsonl", texts)
    write_rows(out / "general" / "train.jsonl", _greetings(rng, 1_000, tidy=True))
    write_rows(out / "general" / "test.jsonl", [{"prompt": p} for p, _ in _asked(held_out=True)])
    write_rows(out / "pairs" / "train.jsonl", [_pair(rng) for _ in range(4_000)])
    write_rows(out / "pairs" / "test.jsonl", [_pair(rng) for _ in range(500)])


def base(out: Path, data: Path, seed: int, device: str) -> sft.SFT:
    """Write the untrained model; return the arguments of the SFT that makes it a base model."""
    from logpi.envs.tasks import Bilingual
    from logpi.policies.small import small_policy

    task = Bilingual()
    letters, words = task.alphabet + CHINESE + ".", (*task.words, *WORDS)
    base_model(
        out / "untrained",
        lambda: small_policy(letters, words=words, width=96, layers=3, context=192, seed=seed),
    )
    return sft.SFT(
        model=str(out / "untrained"),
        task=str(data / "texts"),
        steps=800,
        rows=96,
        lr=3e-3,
        warmup=20,
        seed=seed,
        save_every=250,
        device=device,
        out=out / "base",
    )
