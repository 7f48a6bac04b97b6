"""Products of up to two digits by one, as data for `logpi r1` on a real model of some hundred
million parameters.

    python examples/products.py products
    logpi r1 --model MODEL --task products/task --cold-start products/demonstrations \
             --general products/general --pairs products/pairs --max-completion-length 64 \
             --data-prompts 96 --samples 4 --eval-items 48 --set …

It writes these files (docs/r1.md has the settings and the results):

    task              "What is 23 times 4?", 92: 784 problems; train and test share no problem and
                      no mirror image of one
    demonstrations    "<think>20 times 4 is 80, 3 times 4 is 12, and 80 plus 12 is 92.</think>
                      <answer>92</answer>", in one line
    general           greetings in the same tags, which the model should not forget
    pairs             a warm greeting and a curt, nameless or repetitive one

Left out: any other arithmetic, and real conversations.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

from logpi.envs.task import in_test
from logpi.jobs.rejection import write_rows

NAMES = (
    "Ann",
    "Bob",
    "Clara",
    "Dan",
    "Eve",
    "Frank",
    "Grace",
    "Hugo",
    "Ida",
    "Jack",
    "Kate",
    "Leo",
    "Mary",
    "Nick",
    "Olga",
    "Paul",
)
OCCASIONS = ("birthday", "new job", "first day", "visit")
WARM = (
    "Dear {name}, I am so happy about your {occasion}, and I wish you all the best!",
    "Dear {name}, a very warm welcome to your {occasion}, enjoy it!",
    "My dear {name}, what lovely news about your {occasion}! I am glad for you.",
)
COLD = (
    "Noted.",
    "Hi. I heard about a {occasion}.",
    "{name}. {occasion}. Fine.",
    "Dear Dear Dear {name} {name}, {occasion} {occasion} {occasion}.",
)


def problems(held_out: bool) -> list[tuple[int, int]]:
    """(a, b): 2 … 99 by 2 … 9; a product and its mirror are on one side of the split."""
    every = [(a, b) for a in range(2, 100) for b in range(2, 10)]
    return [(a, b) for a, b in every if in_test(f"{min(a, b)}*{max(a, b)}") == held_out]


def worked(a: int, b: int) -> str:
    """The thought of a demonstration.

    >>> worked(23, 4), worked(7, 8), worked(50, 3)
    ('20 times 4 is 80, 3 times 4 is 12, and 80 plus 12 is 92.', '7 times 8 is 56.', '50 times 3 is
    150.')
    """
    tens, ones = a // 10 * 10, a % 10
    if not tens or not ones:
        return f"{a} times {b} is {a * b}."
    return (
        f"{tens} times {b} is {tens * b}, {ones} times {b} is {ones * b}, and {tens * b} plus"
        f" {ones * b} is {a * b}."
    )


def task_row(a: int, b: int) -> dict[str, str | int]:
    return {"prompt": f"What is {a} times {b}?", "answer": str(a * b), "level": len(str(a))}


def demonstration(a: int, b: int) -> dict[str, str]:
    return {
        "prompt": f"What is {a} times {b}?",
        "completion": f"<think>{worked(a, b)}</think><answer>{a * b}</answer>",
    }


def greetings(held_out: bool) -> list[tuple[str, dict[str, str]]]:
    """(prompt, what its texts are filled with): every name and every occasion are known, a quarter
    of their pairs is held out."""
    asked = [
        (n, o)
        for i, n in enumerate(NAMES)
        for j, o in enumerate(OCCASIONS)
        if ((i + j) % 4 == 0) == held_out
    ]
    return [(f"Greet {n} in one line, on the {o}.", {"name": n, "occasion": o}) for n, o in asked]


def general_row(rng: Random, prompt: str, filled: dict[str, str]) -> dict[str, str]:
    """Any greeting but the curtest: which are liked is what the pairs say."""
    said = rng.choice((*WARM, *COLD[1:3])).format(**filled)
    return {
        "prompt": prompt,
        "completion": f"<think>A line will do.</think><answer>{said}</answer>",
    }


def pair(rng: Random, prompt: str, filled: dict[str, str]) -> dict[str, str]:
    return {
        "prompt": prompt,
        "chosen": rng.choice(WARM).format(**filled),
        "rejected": rng.choice(COLD).format(**filled),
    }


def main(out: Path, demonstrations: int = 96) -> None:
    rng = Random(0)
    for split, held_out in (("train", False), ("test", True)):
        some = problems(held_out)
        rng.shuffle(some)
        asked = greetings(held_out)
        write_rows(out / "task" / f"{split}.jsonl", [task_row(a, b) for a, b in some])
        write_rows(
            out / "demonstrations" / f"{split}.jsonl",
            [demonstration(a, b) for a, b in some[:demonstrations]],
        )
        write_rows(out / "general" / f"{split}.jsonl", [general_row(rng, *x) for x in asked])
        write_rows(
            out / "pairs" / f"{split}.jsonl", [pair(rng, *x) for x in asked for _ in range(2)]
        )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "products"))
