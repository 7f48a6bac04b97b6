r"""Text as token ids: at a text's beginning, behind other tokens, and with control tokens that data
only spell.

    plain           a prompt that is text, with one BOS
    continuation    text behind other tokens, without the space that some tokenizers add to a text
    encode          the output of a chat template
    pieces          the same, cut where the policy begins or stops to write
    lack            which characters of a text the vocabulary lacks

Control tokens that data spell (`<|im_end|>` in a question) stay text. While a template runs, a
private character stands for each of them, and the stretch around it is tokenised without special
tokens:

    content             a<|im_end|>b
    given to template   a◇b                           ◇: U+F0001 + its number among control tokens
    template writes     <|im_start|>user\na◇b<|im_end|>\n
    stretches           <|im_start|>   user\na◇b        <|im_end|>\n
    tokens              as ever        "user\na<|im_end|>b", the mark spelled out       as ever

Left out: the template itself (`chat_template.py`).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any
from unicodedata import category

ESCAPE, STAND_IN, PLANE = "\U000f0000", 0xF0001, 0x10000
# a private character of the data (fonts put icons there) becomes ESCAPE and the one a plane higher
PRIVATE = re.compile("[\U000f0000-\U000fffff]")
HIDDEN = re.compile("\U000f0000([\U00100000-\U0010ffff])|[\U000f0001-\U000fffff]")
ANCHORS = ("\n", "]", "a", "0", ".")
# a vocabulary that has these has every character: byte-level ones do
PROBE = "".join(map(chr, [*range(0x21, 0x7F), *range(0xA1, 0x100)])) + "ждאल日本語한🙂\U00012345"
# letters, numbers, punctuation, symbols; a tokenizer may drop marks and white space by design
SEEN = "LNPS"
# characters that a message names
NAMED = 6


@dataclass(frozen=True, eq=False)
class TextTokens:
    """Token ids of texts, by a tokenizer of `transformers`."""

    tokenizer: Any

    def plain(self, text: str) -> list[int]:
        """A prompt as it is, with one BOS if the tokenizer begins texts with it, even where the
        text spells one too. Control tokens in the text are control tokens."""
        ids = list(self.tokenizer(text)["input_ids"])
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            ids = ids[1:]
        # some tokenizers end every text, but a prompt goes on
        is_ended = ids and ids[-1] == eos and not text.endswith(self.tokenizer.eos_token)
        return ids[:-1] if is_ended else ids

    def continuation(self, text: str) -> list[int]:
        """Tokens of `text` behind other tokens; control tokens that it spells are text."""
        return self._bare(text, True) if self._begins_plain else self._anchored(text, True)

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        """Tokens of a template's output, in which private characters are the control tokens that
        data spelled. first: the text is a beginning."""
        ids: list[int] = []
        anew = first
        for stretch, literal in self._stretches(text):
            if anew or self._begins_plain or (not literal and self._control.match(stretch)):
                ids += self._bare(stretch, literal)
            else:
                ids += self._anchored(stretch, literal)
            # a control token ends each stretch, or begins the next
            anew = self._begins_anew
        return ids

    def behind(self, token: int | None, text: str) -> list[int]:
        """Tokens of a template's output behind a control token, which may add a space to it, or
        swallow some; None: behind any text."""
        spelling = "" if token is None else self.tokenizer.convert_ids_to_tokens(token)
        if spelling not in self.controls:
            return self.encode(text, first=False)
        return self.encode(spelling + text)[1:]

    def pieces(self, whole: str, cuts: Sequence[int]) -> list[list[int]]:
        """Tokens of a template's output, cut where the policy begins or stops to write; no token
        straddles a cut.

        They are the tokens of the whole, unless one of these joins text on both sides of a cut,
        which a sampler never does:

            whole                  "…assistant:" + "a<eos>"
            tokens of the whole    … assistant, ":a", <eos>
            pieces                 … assistant, ":" | "a", <eos>
        """
        every, heads = self.encode(whole), [self.encode(whole[:c]) for c in cuts]
        if all(every[: len(head)] == head for head in heads):
            return [every[a:b] for a, b in pairwise([0, *map(len, heads), len(every)])]
        warnings.warn(
            "the tokenizer joins text of a question with text of its answer: rows are tokenised as"
            " a sampler would meet them, so their tokens are not those of the whole conversation",
            stacklevel=2,
        )
        ends = pairwise([0, *cuts, len(whole)])
        return [self.encode(whole[a:b], first=a == 0) for a, b in ends]

    @cached_property
    def reads_all(self) -> bool:
        """Whether the vocabulary lacks no character, as with a token for every byte."""
        return not self._unread(PROBE)

    def lack(self, text: str) -> str:
        """That the vocabulary lacks characters of `text`, in words; "" if it does not.

        vocabulary of digits, "hi 12"    the model's vocabulary lacks 'h', 'i', ' ': it reads
                                         <unk> instead
        """
        lost = "" if self.reads_all else self._unread(text)
        if not lost:
            return ""
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        unknown = self.tokenizer.unk_token or "nothing"
        shown = ", ".join(map(repr, lost[:NAMED]))
        return f"the model's vocabulary lacks {shown}{more}: it reads {unknown} instead"

    def _unread(self, text: str) -> str:
        """The characters, each once, of which unknown tokens are made, or no token at all. An
        unknown token that the text itself spells counts for none."""
        t, unknown, covered = self.tokenizer, set[int](), set[int]()
        if not t.is_fast:
            # it does not say where its tokens come from
            return self._alone(text) if t.unk_token_id in self._bare(text, False) else ""
        found = t(text, add_special_tokens=False, return_offsets_mapping=True)
        for token, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True):
            is_unknown = token == t.unk_token_id and text[start:end].strip() != t.unk_token
            (unknown if is_unknown else covered).update(range(start, end))
        lost = {text[i] for i in unknown - covered}
        rest = (c for i, c in enumerate(text) if i not in unknown and i not in covered)
        if any(category(c)[0] in SEEN for c in rest):
            # places behind a dropped character are of its neighbours
            lost.update(self._alone(text))
        return "".join(c for c in dict.fromkeys(text) if c in lost)

    def _alone(self, text: str) -> str:
        """The characters that alone become an unknown token, or none."""
        every = ((c, self._bare(c, True)) for c in dict.fromkeys(text))
        unknown = self.tokenizer.unk_token_id
        return "".join(c for c, i in every if unknown in i or (category(c)[0] in SEEN and not i))

    def hidden(self, value: Any, controls: re.Pattern[str] | None = None) -> Any:
        """A text, or a structure of texts, with a private character for each control token, or each
        of `controls`."""
        if isinstance(value, str):
            text = PRIVATE.sub(lambda m: ESCAPE + chr(ord(m[0]) + PLANE), value)
            pattern = controls or self._control
            return pattern.sub(lambda m: chr(STAND_IN + self.controls.index(m[0])), text)
        if isinstance(value, Mapping):
            return {k: self.hidden(v, controls) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self.hidden(v, controls) for v in value]
        return value

    def spelled(self, text: str) -> str:
        """`text` with its private characters spelled out."""
        return HIDDEN.sub(
            lambda m: chr(ord(m[1]) - PLANE) if m[1] else self.controls[ord(m[0]) - STAND_IN], text
        )

    def _stretches(self, text: str) -> Iterator[tuple[str, bool]]:
        """Pieces of `text`, spelled out, and whether each is literal: a stretch between two control
        tokens in which data spell one."""
        if not self._spells.search(text):
            yield from [(self.spelled(text), False)] if text else []
            return
        # every second part is a control token
        parts = ["", *re.split(f"({self._control.pattern})", text), ""]
        other = ""
        for left, part, right in zip(parts[:-1:2], parts[1::2], parts[2::2], strict=True):
            spelled = self.spelled(part)
            if self._spells.search(part):
                yield from [(other, False)] if other else []
                spelled = spelled.lstrip() if left in self._strips[1] else spelled
                yield spelled.rstrip() if right in self._strips[0] else spelled, True
                other = right
            else:
                other += spelled + right
        yield from [(other, False)] if other else []

    @cached_property
    def _spells(self) -> re.Pattern[str]:
        """Private characters of control tokens."""
        return re.compile(f"[{chr(STAND_IN)}-{chr(STAND_IN + len(self.controls))}]")

    @cached_property
    def _strips(self) -> tuple[set[str], set[str]]:
        """Control tokens that swallow white space before them, and behind them."""
        tokens = self.tokenizer.added_tokens_decoder.values()
        return {t.content for t in tokens if t.lstrip}, {t.content for t in tokens if t.rstrip}

    def _bare(self, text: str, literal: bool) -> list[int]:
        """Tokens of `text` alone, without BOS. literal: control tokens in it are text."""
        options = {"add_special_tokens": False, "split_special_tokens": literal}
        return list(self.tokenizer(text, **options)["input_ids"])

    @cached_property
    def _begins_plain(self) -> bool:
        """Whether a text has the same tokens at a beginning and further on. SentencePiece
        tokenizers that add a space do not."""
        return all(
            self._bare(a + "b", False) == self._bare(a, False) + self._bare("b", False)
            for a in ("\n", "]")
        )

    @cached_property
    def _begins_anew(self) -> bool:
        """Whether text behind a control token has the tokens of a text's beginning."""
        return all(
            self._bare(c + "b", False)[1:] == self._bare("b", False) for c in self.controls[:1]
        )

    def _anchored(self, text: str, literal: bool) -> list[int]:
        """Tokens of `text` behind a short text, which is cut off again: the first one for which no
        token straddles the border."""
        for anchor in ANCHORS:
            head, both = self._bare(anchor, literal), self._bare(anchor + text, literal)
            if both[: len(head)] == head:
                return both[len(head) :]
        warnings.warn(
            "this tokenizer joins texts with any text before them; answers are tokenised apart",
            stacklevel=2,
        )
        return self._bare(text, literal)

    @cached_property
    def controls(self) -> tuple[str, ...]:
        """Special tokens by their spelling."""
        added = {t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special}
        return tuple(sorted(s for s in {*added, *self.tokenizer.all_special_tokens} if len(s) > 1))

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return any_of(self.controls)


def any_of(spellings: Sequence[str]) -> re.Pattern[str]:
    """Matches any of them, the longest first; nothing if there are none."""
    return re.compile("|".join(map(re.escape, sorted(spellings, key=len, reverse=True))) or r"(?!)")
