"""Three small tasks on lists and letters: sort numbers, reverse a text, count a letter in a word.

Each prompt says where the answer goes (after #), so that a chat model needs no examples. Left out:
long inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from string import ascii_lowercase
from typing import ClassVar

from logpi.envs.task import GeneratedTask, Row, check_template
from logpi.rewards import ExactAnswer, Rewards, Weighted

_AFTER = Rewards((Weighted(ExactAnswer("#")),))

_WORDS = """
accommodation address afternoon alligator apple arithmetic assess balloon banana barrel beekeeper
beetle beginning believe blackberry blossom bookkeeper bottle broccoli bubble butter butterfly
cabbage calculator calendar canal candle cappuccino carrot cathedral cello cheese chocolate
cinnamon circle coffee college colour committee common computer cookie copper cotton crossroad
cucumber daffodil daughter deeper different dinner distance doctor dollar dragon eleven elephant
embarrass engineer equation error evening excellent expression fallen feeling fellow festival
follow football forest fraction freedom friend funnel garden geese generous giraffe glass goose
gossip grammar grasshopper grass green guitar hammer happiness hello hobby holiday honeybee
horizon hundred illness immune indeed inner insect intelligence island jelly journey jungle
kangaroo keeper kettle kitten ladder lantern lesson letter level lettuce lollipop lotus magazine
mammal marble matter meadow memory message middle millennium minimum mirror misspell moccasin moon
mosquito mountain mushroom narrow necessary needle nonsense notebook number occasion occurrence
ocean offer onion opposite orange orchestra otter oxygen paddle paper parallel parrot passenger
peach pebble penguin pepper performance pillow pineapple planet pollen pony possess possible
potato pottery pressure process professor puddle pumpkin puppy puzzle quarrel question queue
rabbit raccoon radio raspberry recess recommend referee remember ribbon river robber rooster
runner saddle sandwich school scissors session settle seventeen shallow sheep shopping silver
sister skill sleepless spaghetti sparrow spell spinning spoon squirrel statistics stress
strawberry success suddenly suffer sugar summer supper swallow sweet tattoo teacher tennis terrace
theatre thirteen thunder tobacco tomato tomorrow toothbrush traffic transmission travel tree
triangle tunnel turtle twelve umbrella universe unless unnecessary usual vacuum valley vanilla
vegetable village violin volcano volleyball wagon water weekend wheel whisper willow window winner
winter woodpecker woollen yellow yesterday zebra zipper
"""


@dataclass(frozen=True)
class Sort(GeneratedTask):
    """Sort `count` numbers of 0 … `largest`, smallest first.

    A row: prompt `Sort, smallest first: 17 3 92. Answer after #.`, answer `3 17 92`, demonstration
    `#3 17 92`. Lists of the same numbers in another order are one problem.

    Raises:
        ValueError: an option out of its range.
    """

    count: int = 4
    largest: int = 99
    prompt: str = "Sort, smallest first: {numbers}. Answer after #."
    characters: ClassVar[str] = "0123456789 #"
    name: str = field(default="sort", init=False, repr=False)
    reward: Rewards = field(default=_AFTER, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 2 <= self.count <= 1_000 or self.largest < 1:
            raise ValueError(
                f"sort: needs 2 ≤ count ≤ 1000 and largest ≥ 1, got {self.count} and {self.largest}"
            )
        check_template(self.name, self.prompt, "numbers")

    def draw(self, rng: Random) -> tuple[str, list[int]]:
        numbers = [int(rng.random() * (self.largest + 1)) for _ in range(self.count)]
        return " ".join(map(str, sorted(numbers))), numbers

    def row(self, problem: list[int], rng: Random) -> Row:
        answer = " ".join(map(str, sorted(problem)))
        prompt = self.prompt.format(numbers=" ".join(map(str, problem)))
        return {"prompt": prompt, "answer": answer, "completion": f"#{answer}", "level": self.count}


@dataclass(frozen=True)
class Reverse(GeneratedTask):
    """Write random letters backwards; their number, the level, is drawn from `shortest` to
    `longest`.

    A row: prompt `Reverse: hlqe. Answer after #.`, answer `eqlh`, demonstration `#eqlh`. A text and
    its mirror image are one problem.

    Raises:
        ValueError: an option out of its range.
    """

    shortest: int = 3
    longest: int = 8
    prompt: str = "Reverse: {text}. Answer after #."
    characters: ClassVar[str] = ascii_lowercase + "#"
    name: str = field(default="reverse", init=False, repr=False)
    reward: Rewards = field(default=_AFTER, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 2 <= self.shortest <= self.longest <= 1_000:
            raise ValueError(
                f"reverse: needs 2 ≤ shortest ≤ longest ≤ 1000, got {self.shortest} and"
                f" {self.longest}"
            )
        check_template(self.name, self.prompt, "text")

    def draw(self, rng: Random) -> tuple[str, str]:
        text = "".join(rng.choices(ascii_lowercase, k=rng.randint(self.shortest, self.longest)))
        return min(text, text[::-1]), text

    def row(self, problem: str, rng: Random) -> Row:
        answer = problem[::-1]
        prompt = self.prompt.format(text=problem)
        return {
            "prompt": prompt,
            "answer": answer,
            "completion": f"#{answer}",
            "level": len(problem),
        }


@dataclass(frozen=True)
class Letters(GeneratedTask):
    """How often a letter occurs in a word, which tokens hide and spelling out shows.

    A row: prompt `How many r in strawberry? Answer after #.`, answer `3`, and a demonstration that
    spells the word and counts on the way, `s0t0r1a1w1b1e1r2r3y3#3`. Level: the word's length.
    Words: a list of some 250.

    Attributes:
        absent: share of questions whose letter is drawn from the whole alphabet (the answer is then
            mostly 0).

    Raises:
        ValueError: an option out of its range.
    """

    absent: float = 0.2
    prompt: str = "How many {letter} in {word}? Answer after #."
    characters: ClassVar[str] = ascii_lowercase + "0123456789#"
    name: str = field(default="letters", init=False, repr=False)
    reward: Rewards = field(default=_AFTER, init=False, repr=False)
    words: ClassVar[tuple[str, ...]] = tuple(_WORDS.split())

    def __post_init__(self) -> None:
        if not 0 <= self.absent <= 1:
            raise ValueError(f"letters: absent is a share between 0 and 1, got {self.absent}")
        check_template(self.name, self.prompt, "letter", "word")

    def draw(self, rng: Random) -> tuple[str, tuple[str, str]]:
        word = self.words[int(rng.random() * len(self.words))]
        letter = rng.choice(ascii_lowercase if rng.random() < self.absent else word)
        return f"{letter} {word}", (letter, word)

    def row(self, problem: tuple[str, str], rng: Random) -> Row:
        letter, word = problem
        answer = str(word.count(letter))
        spelt = "".join(f"{c}{word[: i + 1].count(letter)}" for i, c in enumerate(word))
        return {
            "prompt": self.prompt.format(letter=letter, word=word),
            "answer": answer,
            "completion": f"{spelt}#{answer}",
            "level": len(word),
        }
