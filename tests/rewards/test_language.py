"""Language consistency: what a word is, in four scripts and more; what does not count; what a
policy could try."""

from __future__ import annotations

import re
import time

import pytest

from logpi.rewards import LanguageConsistency, reward
from logpi.rewards.language import LANGUAGES, SCRIPTS, is_mixed, scripts, words

PURE = {
    "en": "First I add the ones digits, then I don't forget the carry.",
    "fr": "D'abord, j'additionne les unités à côté; ça fait déjà douze.",
    "zh": "首先把个位相加，然后进一，所以答案是一百三十二。",
    "ru": "Сначала складываем единицы, затем десятки и не забываем перенос.",
    "ar": "أولا نجمع الآحاد ثم نجمع العشرات ولا ننسى الباقي",
    "ja": "まず一の位を足して、それからカタカナも使います。",
    "ko": "먼저 일의 자리를 더합니다.",
    "hi": "पहले इकाई जोड़ें फिर दहाई",
    "el": "Πρώτα προσθέτουμε τις μονάδες.",
    "he": "קודם מחברים את היחידות",
    "th": "บวกหลักหน่วยก่อน",
}


@pytest.mark.parametrize("language", PURE)
def test_a_text_is_wholly_in_its_own_script_and_not_at_all_in_another(language):
    target, total = words(PURE[language], language)
    assert target == total > 0
    for other in PURE:
        if set(LANGUAGES[other]).isdisjoint(LANGUAGES[language]):
            assert not words(PURE[language], other)[0] or "ja" in (language, other)
    assert not is_mixed(PURE[language])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I don't know", {"latin": 2}),  # "I" alone is a variable to us; don't is one word
        ("naïve cafe\u0301", {"latin": 2}),  # composed and combining accents
        ("we add 7+5=12 and 3,000.5", {"latin": 3}),
        ("设 x 为 y", {"han": 2}),
        ("加法 addition 进位", {"han": 4, "latin": 1}),
        ("so $\\alpha x + \\text{abc}$ and \\(foo bar\\)", {"latin": 2}),
        ("$$\\frac{ab}{cd}$$ \\boxed{answer} \\[ sum \\]", {}),
        ("see ```python\nprint(total)\n``` and `x_total`", {"latin": 2}),
        (
            "hide $因为 so$ `потому что`",
            {"latin": 1, "han": 2, "cyrillic": 2},
        ),  # formulas hide no other script
        ("it costs $5 today", {"latin": 3}),  # a dollar without a partner is text
        ("see https://example.org/a/path now", {"latin": 2}),
        ("<think>yes</think><answer>no</answer>", {"latin": 2}),
        (
            "p\u0430yment",
            {"latin": 1, "cyrillic": 1},
        ),  # a Cyrillic а in a Latin word: two words, the lone p none
        (
            "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0",
            {"other": 9},
        ),  # Georgian: unlisted, never the target
        ("123 + 4 = ?! …", {}),
        ("", {}),
    ],
)
def test_what_is_a_word(text, expected):
    assert dict(scripts(text)) == expected


def test_the_reward_reads_the_thoughts():
    r = LanguageConsistency("en")
    assert r.share("<think>carry the one</think><answer>一</answer>") == 1.0
    assert (
        LanguageConsistency("en", whole=True).share(
            "<think>carry the one</think><answer>一</answer>"
        )
        == 0.75
    )
    assert r.share("<think>carry 进 one") == pytest.approx(
        2 / 3
    )  # cut off: what is there of the thought
    assert r.share("no tags 但是") == 0.5
    assert r.share("<think>7+5=12</think><answer>132</answer>") == 0.0  # silence does not pay
    chat = [{"role": "user", "content": "请用英文"}, {"role": "assistant", "content": "yes sir"}]
    assert r(prompts=["?"], completions=[chat]) == [1.0]


def test_by_name_and_with_a_weight():
    made = reward("language(zh):0.5")
    assert made.function == LanguageConsistency("zh") and made.weight == 0.5
    assert reward("language('ru')").function == LanguageConsistency("ru")
    with pytest.raises(ValueError, match="no script is known for 'xx'"):
        reward("language(xx)")


def test_scripts_do_not_overlap():
    characters = "".join(map(chr, range(0x33000)))
    found = {s: set(re.findall(f"[{inside}]", characters)) for s, inside in SCRIPTS.items()}
    assert sum(map(len, found.values())) == len(set().union(*found.values()))
    assert len(found["han"]) > 90_000 and not any(
        c.isdigit() and c.isascii() for c in found["latin"]
    )


@pytest.mark.parametrize(
    "piece",
    ["$", "\\(", "```", "`", "\\boxed{", "<think>", "a'", "http://", "\\", "a\u0301", "因a"],
)
def test_linear_in_hostile_text(piece):
    text = piece * (200_000 // len(piece))
    start = time.process_time()
    scripts(text)
    assert time.process_time() - start < 1.0
