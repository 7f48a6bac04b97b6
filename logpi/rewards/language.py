r"""Rewards for the language of a completion: the share of words in the target language's script.

    R = words in the target's script / words            (DeepSeek-R1, arXiv:2501.12948, §2.3.2)

A word is a run of letters of one script, such as `don't`. In Chinese, Japanese and Korean, which
have no spaces, each character is a word (as in mixed error rates of code-switched speech). These
are not words: numbers, punctuation, tags, URLs, single Latin and Greek letters (variables), and the
Latin and Greek letters in code (```…```, `…`) and mathematics ($…$, \(…\), \[…\], \boxed{…},
\commands). Letters of another script count there too, so that thinking in Chinese between dollars
earns nothing.

Every function takes any text, in linear time. Left out: languages of one script (English and
French), which need a model to distinguish; grammar; meaning.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from logpi.rewards.text import text_of

# script -> its characters, for the [ ] of a regular expression; formulas use the first two
SCRIPTS = {
    "latin": (
        "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u1e00-\u1eff\u2c60-\u2c7f"
        "\ua722-\ua7ca\uff21-\uff3a\uff41-\uff5a"
    ),
    "greek": "\u0370-\u0373\u0376-\u037d\u037f\u0386\u0388-\u03ff\u1f00-\u1fff",
    "cyrillic": "\u0400-\u0482\u048a-\u052f\u1c80-\u1c8a\ua640-\ua69f",
    "arabic": (
        "\u0620-\u065f\u066e-\u06d3\u06d5-\u06ed\u06fa-\u06ff\u0750-\u077f\u0870-\u08ff"
        "\ufb50-\ufdff\ufe70-\ufefc"
    ),
    "hebrew": "\u05d0-\u05ea\u05ef-\u05f2\ufb1d-\ufb4f",
    "devanagari": "\u0900-\u0963\u0971-\u097f",
    "thai": "\u0e01-\u0e3a\u0e40-\u0e4e",
    "han": "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af",
    "kana": "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d",
    "hangul": "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3",
}
# in these scripts each character is a word
ALONE = ("han", "kana", "hangul")

# ISO 639-1 -> the scripts of its words
LANGUAGES = {
    **dict.fromkeys(
        ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "tr", "vi", "id"), ("latin",)
    ),
    **dict.fromkeys(("ru", "uk", "bg", "mk"), ("cyrillic",)),
    **dict.fromkeys(("ar", "fa", "ur"), ("arabic",)),
    **dict.fromkeys(("hi", "mr", "ne"), ("devanagari",)),
    "zh": ("han",),
    "ja": ("han", "kana"),
    "ko": ("hangul",),
    "el": ("greek",),
    "he": ("hebrew",),
    "th": ("thai",),
}

# combining accents and joiners continue a word
_MARK = "\u0300-\u036f\u200c\u200d"
_WORD = re.compile(
    "|".join(
        [
            f"(?P<{s}>[{c}])" if s in ALONE else f"(?P<{s}>[{c}][{c}{_MARK}]*(?:['\u2019][{c}]+)*)"
            for s, c in SCRIPTS.items()
        ]
        + [r"(?P<other>[^\W\d_])"]
    )
)
_FORMULA = re.compile(f"[{SCRIPTS['latin']}{SCRIPTS['greek']}]")
_NO_WORDS = re.compile(r"</?[A-Za-z_]{1,32}>|https?://[^\s\u3000-\uffff]+|\\[A-Za-z]+")
_SPANS = (
    ("```", "```"),
    ("`", "`"),
    ("$$", "$$"),
    ("$", "$"),
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("\\boxed{", "}"),
)


def _without_formulas(text: str, opener: str, closer: str) -> str:
    """`text` without the Latin and Greek letters between `opener` and `closer`. An opener without
    a closer is text."""
    parts, at = [], 0
    while (start := text.find(opener, at)) >= 0 and (
        end := text.find(closer, start + len(opener))
    ) >= 0:
        parts += [text[at:start], _FORMULA.sub(" ", text[start + len(opener) : end])]
        at = end + len(closer)
    return " ".join([*parts, text[at:]])


def scripts(text: str) -> Counter[str]:
    """The numbers of words of `text` by script; `other` counts the letters of unlisted scripts.

    >>> scripts("So x = 3, donc <b>wait</b>, 因为 $a+b$")
    Counter({'latin': 3, 'han': 2})
    """
    for opener, closer in _SPANS:
        if opener in text:
            text = _without_formulas(text, opener, closer)
    counts: Counter[str] = Counter()
    for match in _WORD.finditer(_NO_WORDS.sub(" ", text)):
        script = match.lastgroup or "other"
        if not (script in ("latin", "greek") and match.end() - match.start() == 1):
            counts[script] += 1
    return counts


def words(text: str, language: str) -> tuple[int, int]:
    """The number of words in the script of `language`, and of all words.

    >>> words("Let me think: 设 then", "en")
    (4, 5)
    """
    counts = scripts(text)
    return sum(counts[s] for s in LANGUAGES[language]), counts.total()


def is_mixed(text: str) -> bool:
    """Whether a text has words of several scripts. Han and kana, as in Japanese, are one.

    >>> is_mixed("first 一 then 二"), is_mixed("3 + 4 = 7, so seven"), is_mixed("これは漢字")
    (True, False, False)
    """
    return len({"han" if s == "kana" else s for s in scripts(text)}) > 1


@dataclass(frozen=True)
class LanguageConsistency:
    """The share of words in the target language's script, in [0, 1]: DeepSeek-R1's reward against
    language mixing.

    It counts the words between <think> and </think>, as published, or all words without these tags.
    A completion without words gets 0, as silence must not pay. R1 adds it to the other rewards with
    weight 1.

    Attributes:
        language: "en", "zh", "ru", "ar", … (see `LANGUAGES`).
        whole: count the whole completion, with the answer.

    Raises:
        ValueError: a language without a known script.

    >>> reward = LanguageConsistency("en")
    >>> mixed = "<think>carry 进 one</think><answer>132</answer>"
    >>> reward(prompts=["?"] * 2, completions=[mixed, "42"])
    [0.6666666666666666, 0.0]
    """

    language: str = "en"
    whole: bool = False
    name: str = "language"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ValueError(
                f"language: no script is known for {self.language!r}; there are:"
                f" {', '.join(LANGUAGES)}"
            )

    def __call__(self, prompts, completions, completion_ids=None, **columns) -> list[float | None]:
        return [self.share(text_of(c)) for c in completions]

    def share(self, text: str) -> float:
        """The share in one completion."""
        _, opened, rest = text.partition("<think>")
        thought = rest.partition("</think>")[0] if opened and not self.whole else text
        target, total = words(thought, self.language)
        return target / total if total else 0.0
