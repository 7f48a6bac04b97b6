"""Laws of text: training, sampling and judging use the tokens that the model's template makes of
the conversation.

Each function's name and docstring are the law's. `TEXT` is their order. Left out: thoughts, tools
and roles in a template (`model_template.py`), and numbers (`model_numbers.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from logpi.errors import UserError
from logpi.rollouts.observations import Observations
from logpi.testing.subject import (
    LONG,
    LawFinding,
    Subject,
    absent,
    answer,
    fail,
    holds,
    limited,
    system,
    user,
    with_warnings,
)

if TYPE_CHECKING:
    from logpi.policies.chat_template import Message
    from logpi.types import Trajectory

__all__ = ["ASK", "CONVERSATIONS", "SAY", "TEXT"]

ASK, SAY = "How far is it?", "It is 4 km."
CONVERSATIONS: dict[str, list[Message]] = {
    "one turn": [user(ASK), answer(SAY)],
    "three turns": [
        user(ASK),
        answer(SAY),
        user("And back?"),
        answer("The same."),
        user("So?"),
        answer("8 km."),
    ],
    "a system message": [system("Be brief."), user(ASK), answer(SAY)],
    "unicode": [
        user("Größe: 3 µm — 日本語, עברית, 👩‍👩‍👧 e\u0301"),
        answer("½ · naïve ﬁ 漢字 🙂\u200b."),
    ],
    "code": [
        user("Write it:\n\n    x = 1\n"),
        answer("```python\ndef f(x):\n\treturn  x\n```\n\nDone."),
    ],
    "white space at edges": [user("  \n spaced \n"), answer(" \n edged  ")],
    "a long word": [user("x" * 300), answer("ab" * 150)],
    "no words": [user(""), answer("")],
}


def ends(s: Subject) -> LawFinding:
    """Answers end with the token by which the template ends a turn, in data of every kind; it opens
    no turn, and sampling stops at it."""
    end = s.end
    name = s.template.end_text
    if end not in s.policy.eos_ids:
        return fail(f"{name} does not end a response")
    rows = {"prompt and completion": s.demonstrated({"prompt": ASK, "completion": SAY})[0]}
    pair = s.preferred({"prompt": ASK, "chosen": SAY, "rejected": "5"})
    rows |= {"a chosen response": pair[0], "a rejected response": pair[1]}
    if s.chats:
        rows["messages"] = s.conversed(CONVERSATIONS["one turn"])[-1]
    for what, row in rows.items():
        own = row.action[row.mask].tolist()
        if own[-1:] != [end] or own.count(end) != 1:
            return fail(f"{what}: the learned text {s.own(row)[-60:]!r} does not end with {name}")
    return _by_template(s, name) if s.chats and not s.template.end else holds(s.template.describe())


def _by_template(s: Subject, name: str) -> LawFinding:
    """Compares the end token with the text that the template writes behind an answer."""
    behind = s.text([user(ASK), answer(SAY)]).rpartition(SAY)[2]
    longer = s.text([user(ASK), answer(SAY), user("And back?")])
    between = longer.rpartition(SAY)[2].partition("And back?")[0]
    ids = s.tokenizer(behind, add_special_tokens=False)["input_ids"]
    closing = [i for i in ids if i in s.tokenizer.added_tokens_decoder]
    if closing:
        first = s.tokenizer.convert_ids_to_tokens(closing[0])
        if first != name:
            return fail(f"the template ends a turn with {first}, not {name}")
        return holds(s.template.describe())
    if name in between:
        return fail(
            f"{name} announces the user's turn ({between!r}); behind the last answer the template"
            f" writes {behind!r}"
        )
    return limited(s.template.describe())


def stops(s: Subject) -> LawFinding:
    """Other libraries stop at the same token: the generation config names the end token."""
    config = getattr(s.policy.model, "generation_config", None)
    if config is None:
        return absent("a reward model generates nothing")
    ids = config.eos_token_id
    if s.end in ([ids] if isinstance(ids, int) else ids or []):
        return holds(", ".join(s.template.spelled_ends))
    return limited(
        f"the generation config does not name {s.template.end_text}; logpi stops there anyway, and"
        " adds it when it saves the model"
    )


def bos(s: Subject) -> LawFinding:
    """Prompts, prompts rendered beforehand and demonstrations have one BOS at most: that of the
    template."""
    token = s.tokenizer.bos_token_id
    if token is None:
        return absent("the tokenizer has no BOS")
    counts = {
        "a plain prompt": s.template.plain(ASK),
        "a demonstration": s.demonstrated({"prompt": ASK, "completion": SAY})[0].obs.tolist(),
    }
    wanted = 0
    if s.chats:
        wanted = _leading(s.written([user(ASK)], ask=True), token)
        counts |= {
            "a prompt": s.template.ids([user(ASK)]),
            "a prompt rendered beforehand": s.template.plain(s.text([user(ASK)], ask=True)),
        }
        if wanted > 1:
            return fail(f"the template writes {wanted} of {s.tokenizer.bos_token}")
    leading = {what: _leading(ids, token) for what, ids in counts.items()}
    most = max(leading.values())
    if most > 1:
        double = {what: n for what, n in leading.items() if n > 1}
        return fail(
            ", ".join(
                f"{what} begins with {n} of {s.tokenizer.bos_token}" for what, n in double.items()
            )
        )
    asked = [leading[x] for x in ("a prompt", "a demonstration") if x in leading and s.chats]
    if any(n != wanted for n in asked):
        return fail(f"the template writes {wanted} BOS; a prompt and a demonstration have {asked}")
    if s.chats and leading["a prompt rendered beforehand"] != wanted:
        return limited("prompts rendered beforehand get a BOS that the template does not write")
    return holds(f"{s.tokenizer.bos_token}, {most} in front" if most else "none is written")


def _leading(ids: Sequence[int], token: int) -> int:
    return next((n for n, i in enumerate(ids) if i != token), len(ids))


def rendering(s: Subject) -> LawFinding:
    """A demonstration's row has the template's tokens of the whole conversation, or a warning tells
    the difference."""
    if not s.chats:
        return _plainly(s)
    rendered: list[str] = []
    # In their order, each once.
    warnings: dict[str, None] = {}
    for name, messages in CONVERSATIONS.items():
        if s.refusal(messages):
            continue
        try:
            rows, warned = with_warnings(lambda m=messages: s.conversed(m))
        except UserError as error:
            warnings[f"{name}: {error}"] = None
            continue
        difference = _difference(s, messages, rows)
        if difference and not warned:
            return fail(f"{name}: {difference}")
        warnings |= {warned: None} if warned else {}
        rendered.append(name)
    if warnings:
        return limited("; ".join(warnings))
    return holds(f"{len(rendered)} conversations: {', '.join(rendered)}")


def _difference(s: Subject, messages: Sequence[Message], rows: Sequence[Trajectory]) -> str:
    """Where the rows differ from the template's text up to each answer, or of the whole for one
    row; "" if nowhere."""
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    upto = [messages] if len(rows) == 1 else [messages[: i + 1] for i in answers]
    for row, part in zip(rows, upto, strict=True):
        ids, written = row.obs.tolist(), s.written(part)
        if ids != written and ids != [*written, s.end]:
            at = next(
                (i for i, (a, b) in enumerate(zip(ids, written, strict=False)) if a != b),
                min(len(ids), len(written)),
            )
            return (
                f"the row has {_shown(s, ids, at)} where the template writes"
                f" {_shown(s, written, at)}"
            )
    return ""


def _shown(s: Subject, ids: Sequence[int], at: int) -> str:
    return " ".join(s.tokenizer.convert_ids_to_tokens(list(ids[max(0, at - 2) : at + 4])))


def _plainly(s: Subject) -> LawFinding:
    """Without a template: the row is the text of prompt and completion."""
    row = s.demonstrated({"prompt": "2+2=", "completion": "4 and\nmore"})[0]
    text = s.decoded(row.obs.tolist()).removesuffix(s.template.end_text).strip()
    if text.removeprefix(s.tokenizer.bos_token or "").strip() != "2+2=4 and\nmore":
        return fail(f"'2+2=' and '4 and\\nmore' are learned as {text!r}")
    return holds("a row is the text of prompt and completion")


def prompts(s: Subject) -> LawFinding:
    """Learning begins where sampling begins: in data of every kind the tokens in front of the
    answer are those of the prompt."""
    if not s.chats:
        ids = s.template.plain("2+2=")
        rows = [
            s.demonstrated({"prompt": "2+2=", "completion": "4"})[0],
            s.preferred({"prompt": "2+2=", "chosen": "4", "rejected": "5"})[0],
        ]
        if any(_before(r) != ids for r in rows):
            return fail("a plain prompt's tokens differ from its row's")
        return holds("plain prompts")
    for name, messages in CONVERSATIONS.items():
        if s.refusal(messages) or name == "no words":
            continue
        asked, said = messages[:-1], messages[-1]["content"]
        ids = s.template.ids(asked)
        rows = {
            "a demonstration": s.demonstrated({"prompt": asked, "completion": said})[0],
            "a pair": s.preferred({"prompt": asked, "chosen": said, "rejected": "?"})[0],
        }
        for what, row in rows.items():
            if _before(row) != ids and not s.template.marks():
                return fail(
                    f"{name}, {what}: in front of the answer {s.decoded(_before(row))[-60:]!r}, a"
                    f" sampler sees {s.decoded(ids)[-60:]!r}"
                )
        if ids != s.written(asked, ask=True):
            return fail(
                f"{name}: a sampler sees other tokens than the template writes:"
                f" {s.decoded(ids)[-80:]!r}"
            )
    return holds("demonstrations, pairs and samplers see the same prompts, those of the template")


def _before(row: Trajectory) -> list[int]:
    """The tokens in front of a row's first own one."""
    return row.obs[: int(row.mask.long().argmax()) + 1].tolist()


def masks(s: Subject) -> LawFinding:
    """The model learns the assistant's answers with their ends and nothing else; with learn=last
    the last answer alone."""
    if not s.chats:
        own = s.own(s.demonstrated({"prompt": "2+2=", "completion": "4"})[0])
        if own.strip() != f"4{s.template.end_text}":
            return fail(f"the learned text is {own!r}")
        return holds(repr(own))
    messages = CONVERSATIONS["three turns"]
    every = "".join(s.own(r) for r in s.conversed(messages))
    last = "".join(s.own(r) for r in s.conversed(messages, "last"))
    says = [m["content"] for m in messages if m["role"] == "assistant"]
    asks = [m["content"] for m in messages if m["role"] == "user"]
    closed = len(says) if s.template.ends_turns else 1
    if [w for w in says if every.count(w) != 1] or every.count(s.template.end_text) != closed:
        return fail(f"of {says} the learned text is {every!r}")
    if any(w in every for w in asks) or any(w in last for w in says[:-1]) or says[-1] not in last:
        return fail(f"the learned text is {every!r}, and of the last answer {last!r}")
    return holds(f"of three answers {every!r}")


def control_tokens(s: Subject) -> LawFinding:
    """Control tokens that are spelled in data stay text: in questions, answers, pairs and
    observations."""
    spelled, places = _spelled(s), _places(s)
    if not spelled:
        return absent("the tokenizer has no control tokens")
    for where, make in places.items():
        # An answer may itself write the marks of its parts (thoughts, calls).
        evil = " ".join(s.template.spelled_ends if where == "an answer" else spelled)
        clean, dirty = make("a b"), make(f"a {evil} b")
        more = _controls(s, dirty) - _controls(s, clean)
        if more:
            return fail(
                f"{where}: {', '.join(map(s.tokenizer.convert_ids_to_tokens, more))} of the data"
                " acts as a control token"
            )
        if "".join(evil.split()) not in "".join(s.decoded(dirty).split()):
            return fail(f"{where}: {evil!r} is lost")
    return holds(f"{len(spelled)} spelled in {', '.join(places)}: {' '.join(spelled[:4])} …")


def _spelled(s: Subject) -> list[str]:
    """Control tokens to spell in data: those that the template writes, ends, BOS, and a few
    others."""
    text = s.text([user(ASK), answer(SAY), user(ASK)], ask=True) if s.chats else ""
    usual = {*s.template.spelled_ends, s.tokenizer.bos_token}
    frame = [c for c in s.template.controls if c in text or c in usual]
    others = [c for c in s.template.controls if c != s.tokenizer.unk_token][:8]
    return list(dict.fromkeys([*frame, *others]))


def _places(s: Subject) -> dict[str, Callable[[str], Sequence[int]]]:
    """The places of data in a conversation, and the tokens of a text there."""
    places: dict[str, Callable[[str], Sequence[int]]] = {
        "an observation": lambda text: Observations(s.template, limit=LONG)(text, None).ids,
        "an answer": (
            lambda text: s.demonstrated({"prompt": ASK, "completion": text})[0].obs.tolist()
        ),
    }
    if s.chats:
        places["a question"] = lambda text: s.template.ids([user(text)])
        places["a pair"] = lambda text: s.preferred(
            {"prompt": text, "chosen": SAY, "rejected": "?"}
        )[0].obs.tolist()
    return places


def _controls(s: Subject, ids: Sequence[int]) -> Counter[int]:
    special = {s.tokenizer.convert_tokens_to_ids(c) for c in s.template.controls}
    return Counter(i for i in ids if i in special and i != s.tokenizer.unk_token_id)


def spaces(s: Subject) -> LawFinding:
    """Text behind other tokens gets no extra space, and decoding returns the text that was
    encoded."""
    for head, tail in (("2+2=", "4"), ("It is", " four."), ("a\n", "b"), ("x", "\n\ny")):
        ids = [*s.template.plain(head), *s.template.continuation(tail)]
        text = s.template.decode(ids)
        if text.strip() != (head + tail).strip():
            return fail(f"{head!r} and {tail!r} behind it become {text!r}")
    for text in ("a  b , c .", "I 'm \t here n't", "½ 日本語 🙂"):
        back = s.template.decode(s.template.continuation(text))
        if back.strip() != text.strip():
            return limited(
                f"the tokenizer decodes {text!r} as {back!r}, and rewards and tools read that"
            )
    return holds("none is added or lost")


TEXT = (rendering, ends, stops, bos, prompts, masks, control_tokens, spaces)
