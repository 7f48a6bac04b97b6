"""Copying, with slips and with the word that corrects them: the task where noticing a slip pays.

A slip is a letter that the word does not have, so that even a small model can tell it from a right
one; what remains open is whether it says so. Some demonstrations do, most go on. The reward takes
the text with its corrections (`first=True`: without, and then a correction cannot pay). Left out:
the judge (`rewards.Corrected`), and slips that are hard to see.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar

from logpi.envs.task import GeneratedTask, Row, check_template
from logpi.rewards import Corrected, Rewards, Weighted

LETTERS = "bcdfghjk"
WAIT = Corrected().word


def noticed(word: str, copy: str) -> Counter[tuple[bool, bool]]:
    """How often each happened in a copy of `word`: (the letter is right, " wait " follows it).

    >>> noticed("bcd", "bf wait cg")  # b is right, f is noticed, c is right, g is not noticed
    Counter({(True, False): 2, (False, True): 1, (False, False): 1})
    """
    counts: Counter[tuple[bool, bool]] = Counter()
    place = 0
    for letter, wait in re.findall(f"(.)({WAIT})?", copy):
        if place == len(word):
            break
        counts[letter == word[place], bool(wait)] += 1
        place += not wait
    return counts


@dataclass(frozen=True)
class Copying(GeneratedTask):
    """Copy a word of `length` letters, no letter twice.

    A row: prompt `hkcd>`, answer `hkcd`, and a demonstration, for example

        hkcd               right at once
        hkg wait cd        a slip that is noticed
        hkgd               a slip that is not

    A letter of a demonstration is wrong with probability `slips`, whatever comes before it, and is
    then one that the word does not have. A correction is always right. A policy of demonstrations
    gets better by slipping less often and by noticing more of its slips: both pay, if the corrected
    text is judged.

    Attributes:
        length: letters of a word, 2 … 7. slips, noticed: share of letters that are wrong, and of
            these that are corrected, in [0, 1].
        first: the reward judges each place's first letter, so that a correction cannot pay: the
            control.
        prompt: a template with {word}.

    Raises:
        ValueError: an option out of its range.

    >>> Copying(slips=0.4, noticed=1.0).rows("train")[0]["completion"]
    'k wait gfk wait jk wait c'
    """

    length: int = 4
    slips: float = 0.2
    noticed: float = 0.4
    first: bool = False
    prompt: str = "{word}>"
    characters: ClassVar[str] = LETTERS
    words: ClassVar[tuple[str, ...]] = (WAIT,)
    name: str = field(default="copying", init=False, repr=False)

    def __post_init__(self) -> None:
        if not 2 <= self.length < len(LETTERS):
            raise ValueError(f"copying: length must be between 2 and 7, got {self.length}")
        for share in ("slips", "noticed"):
            if not 0 <= getattr(self, share) <= 1:
                raise ValueError(
                    f"copying: {share} is a share between 0 and 1, got {getattr(self, share)}"
                )
        check_template(self.name, self.prompt, "word")

    @property
    def reward(self) -> Rewards:
        return Rewards((Weighted(Corrected(first=self.first)),))

    def draw(self, rng: Random) -> tuple[str, str]:
        word = "".join(rng.sample(LETTERS, self.length))
        return word, word

    def row(self, problem: str, rng: Random) -> Row:
        return {
            "prompt": self.prompt.format(word=problem),
            "answer": problem,
            "completion": "".join(self._copied(problem, letter, rng) for letter in problem),
            "level": self.length,
        }

    def _copied(self, word: str, letter: str, rng: Random) -> str:
        if rng.random() >= self.slips:
            return letter
        slip = rng.choice([c for c in LETTERS if c not in word])
        return slip + WAIT + letter if rng.random() < self.noticed else slip
