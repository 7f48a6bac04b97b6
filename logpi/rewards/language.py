r"""Rewards for the language of a completion: the share of its words that are written in the target
language's script.

    R = words in the target's script / words            (DeepSeek-R1, arXiv:2501.12948, §2.3.2)

What a word is: a run of letters of one script, `don't` being one; of Chinese, Japanese and Korean
each character, which stand without spaces between them (as mixed error rates of code-switched
speech count them). No words at all: numbers, punctuation, tags, URLs, single Latin and Greek
letters (variables), and the Latin and Greek letters of code (```…```, `…`) and of mathematics ($…$,
\(…\), \[…\], \boxed{…}, \commands). Letters of another script count there too: a policy must not be
paid for thinking in Chinese between dollars.

Every function here is total and linear in the text. Left out: telling languages of one script apart
(English from French), which needs a model; grammar; what the words say.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from logpi.rewards.text import text_of

# script -> its characters, as the inside of a regular expression's [ ]; the first two are also
# those of formulas
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
# one character, one word
ALONE = ("han", "kana", "hangul")

# ISO 639-1 -> scripts that its words may have
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

# combining accents and joiners go on with a word
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
    """`text` without the Latin and Greek letters between `opener` and `closer`; an opener without a
    closer is text."""
    parts, at = [], 0
    while (start := text.find(opener, at)) >= 0 and (
        end := text.find(closer, start + len(opener))
    ) >= 0:
        parts += [text[at:start], _FORMULA.sub(" ", text[start + len(opener) : end])]
        at = end + len(closer)
    return " ".join([*parts, text[at:]])


def scripts(text: str) -> Counter[str]:
    """Words of `text` by script (see this module's first lines); `other` counts letters of any
    script not listed.

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
    """Words in the script of `language`, and words in all.

    >>> words("Let me think: 设 then", "en")
    (4, 5)
    """
    found = scripts(text)
    return sum(found[s] for s in LANGUAGES[language]), found.total()


def is_mixed(text: str) -> bool:
    """Words of more than one script are in it; Han with kana, as Japanese is written, is one.

    >>> is_mixed("first 一 then 二"), is_mixed("3 + 4 = 7, so seven"), is_mixed("これは漢字")
    (True, False, False)
    """
    return len({"han" if s == "kana" else s for s in scripts(text)}) > 1


@dataclass(frozen=True)
class LanguageConsistency:
    """The share of words in the target language's script, in [0, 1]; DeepSeek-R1's reward against
    language mixing.

    It is of the thoughts, as published, where the completion has them between <think> and </think>,
    else of everything.
    A completion without any word gets 0: there is no language in it, and silence must not pay. R1
    adds it to the other rewards with weight 1.

    Attributes:
        language: "en", "zh", "ru", "ar", … (see `LANGUAGES`). whole: always of everything, the
            answer included.

    Raises:
        ValueError: a language whose script is not known.

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
        """Of one completion."""
        _, opened, thought = text.partition("<think>")
        target, total = words(
            text if self.whole or not opened else thought.partition("</think>")[0], self.language
        )
        return target / total if total else 0.0
