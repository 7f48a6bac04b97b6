"""Laws of text: what is learned, sampled and judged are the tokens that the model's template makes
of the conversation.

Each function's name and docstring are the law's. `TEXT` is their order. Left out: what a template
knows of thoughts, tools and roles (`model_template.py`), and numbers (`model_numbers.py`).
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
    """Answers end with the token with which the template ends a turn, everywhere; it opens no turn,
    and it is an end token."""
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
            return fail(f"{what}: learned is {s.own(row)[-60:]!r}, not ending with {name}")
    return _by_template(s, name) if s.chats and not s.template.end else holds(s.template.describe())


def _by_template(s: Subject, name: str) -> LawFinding:
    """What the template writes behind an answer, looked for without logpi."""
    behind = s.text([user(ASK), answer(SAY)]).rpartition(SAY)[2]
    between = (
        s.text([user(ASK), answer(SAY), user("And back?")])
        .rpartition(SAY)[2]
        .partition("And back?")[0]
    )
    closing = [
        i
        for i in s.tokenizer(behind, add_special_tokens=False)["input_ids"]
        if i in s.tokenizer.added_tokens_decoder
    ]
    if closing:
        first = s.tokenizer.convert_ids_to_tokens(closing[0])
        return (
            holds(s.template.describe())
            if first == name
            else fail(f"the template ends a turn with {first}, not {name}")
        )
    if name in between:
        return fail(
            f"{name} announces the user's turn ({between!r}); behind the last answer the template"
            f" writes {behind!r}"
        )
    return limited(s.template.describe())


def stops(s: Subject) -> LawFinding:
    """Who loads the model elsewhere stops there too: the generation config names the end token."""
    config = getattr(s.policy.model, "generation_config", None)
    if config is None:
        return absent("a reward model generates nothing")
    ids = config.eos_token_id
    if s.end in ([ids] if isinstance(ids, int) else ids or []):
        return holds(f"{', '.join(s.template.spelled_ends)}")
    return limited(
        f"the generation config does not name {s.template.end_text}: logpi stops there all the"
        " same, and saves the model so"
    )


def bos(s: Subject) -> LawFinding:
    """One BOS at most, and the one that the template writes: in prompts, those rendered beforehand,
    demonstrations."""
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
    found = {what: _leading(ids, token) for what, ids in counts.items()}
    if max(found.values()) > 1:
        return fail(
            ", ".join(
                f"{what} begins with {n} of {s.tokenizer.bos_token}"
                for what, n in found.items()
                if n > 1
            )
        )
    asked = [found[what] for what in ("a prompt", "a demonstration") if what in found and s.chats]
    if any(n != wanted for n in asked):
        return fail(f"the template writes {wanted} BOS; a prompt and a demonstration have {asked}")
    if s.chats and found["a prompt rendered beforehand"] != wanted:
        return limited("prompts rendered beforehand get a BOS that the template does not write")
    return holds(
        f"{s.tokenizer.bos_token}, {max(found.values())} in front"
        if max(found.values())
        else "none is written"
    )


def _leading(ids: Sequence[int], token: int) -> int:
    return next((n for n, i in enumerate(ids) if i != token), len(ids))


def rendering(s: Subject) -> LawFinding:
    """A demonstration's row is what the template makes of the whole conversation, token by token;
    or the difference is said."""
    if not s.chats:
        return _plainly(s)
    kept: list[str] = []
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
        wrong = _unlike(s, messages, rows)
        if wrong and not warned:
            return fail(f"{name}: {wrong}")
        warnings |= {warned: None} if warned else {}
        kept.append(name)
    return (
        limited("; ".join(warnings))
        if warnings
        else holds(f"{len(kept)} conversations: {', '.join(kept)}")
    )


def _unlike(s: Subject, messages: Sequence[Message], rows: Sequence[Trajectory]) -> str:
    """Where the rows are not what the template writes up to each answer, or all of it as one; "" if
    they are."""
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
    """Without a template: prompt and completion are the text of both."""
    row = s.demonstrated({"prompt": "2+2=", "completion": "4 and\nmore"})[0]
    text = s.decoded(row.obs.tolist()).removesuffix(s.template.end_text).strip()
    begun = (
        s.tokenizer.bos_token
        if s.tokenizer.bos_token and text.startswith(s.tokenizer.bos_token)
        else ""
    )
    if text.removeprefix(begun).strip() != "2+2=4 and\nmore":
        return fail(f"'2+2=' and '4 and\\nmore' are learned as {text!r}")
    return holds("a prompt and its completion are the text of both")


def prompts(s: Subject) -> LawFinding:
    """What is learned begins where a sampler begins: the prompt's tokens are those in front of the
    answer, for data of every kind."""
    if not s.chats:
        ids = s.template.plain("2+2=")
        rows = [
            s.demonstrated({"prompt": "2+2=", "completion": "4"})[0],
            s.preferred({"prompt": "2+2=", "chosen": "4", "rejected": "5"})[0],
        ]
        return (
            holds("plain prompts")
            if all(_before(r) == ids for r in rows)
            else fail("a plain prompt's tokens differ from its row's")
        )
    for name, messages in CONVERSATIONS.items():
        if s.refusal(messages) or name == "no words":
            continue
        asked = messages[:-1]
        ids = s.template.ids(asked)
        rows = {
            "a demonstration": s.demonstrated(
                {"prompt": asked, "completion": messages[-1]["content"]}
            )[0]
        }
        rows["a pair"] = s.preferred(
            {"prompt": asked, "chosen": messages[-1]["content"], "rejected": "?"}
        )[0]
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
    """Learned is what the assistant says with its end, and nothing that anyone else says; with
    learn=last the last answer alone."""
    if not s.chats:
        row = s.demonstrated({"prompt": "2+2=", "completion": "4"})[0]
        return (
            holds(repr(s.own(row)))
            if s.own(row).strip() == f"4{s.template.end_text}"
            else fail(f"learned is {s.own(row)!r}")
        )
    messages = CONVERSATIONS["three turns"]
    every = "".join(s.own(r) for r in s.conversed(messages))
    last = "".join(s.own(r) for r in s.conversed(messages, "last"))
    says = [m["content"] for m in messages if m["role"] == "assistant"]
    asks = [m["content"] for m in messages if m["role"] == "user"]
    closed = len(says) if s.template.ends_turns else 1
    if [w for w in says if every.count(w) != 1] or every.count(s.template.end_text) != closed:
        return fail(f"of {says} is learned {every!r}")
    if any(w in every for w in asks) or any(w in last for w in says[:-1]) or says[-1] not in last:
        return fail(f"learned is {every!r}, and of the last answer {last!r}")
    return holds(f"of three answers {every!r}")


def control_tokens(s: Subject) -> LawFinding:
    """Control tokens that data spell stay text: in questions, answers, pairs and observations."""
    spelled, places = _spelled(s), _places(s)
    if not spelled:
        return absent("the tokenizer has no control tokens")
    for where, make in places.items():
        # what marks the parts of an answer (thoughts, calls) is its own to write
        evil = " ".join(s.template.spelled_ends if where == "an answer" else spelled)
        clean, dirty = make("a b"), make(f"a {evil} b")
        more = _controls(s, dirty) - _controls(s, clean)
        if more:
            return fail(
                f"{where}: {', '.join(map(s.tokenizer.convert_ids_to_tokens, more))} of the data"
                " acts"
            )
        if "".join(evil.split()) not in "".join(s.decoded(dirty).split()):
            return fail(f"{where}: {evil!r} is lost")
    return holds(f"{len(spelled)} spelled in {', '.join(places)}: {' '.join(spelled[:4])} …")


def _spelled(s: Subject) -> list[str]:
    """Control tokens for data to spell: those that the template writes, ends, BOS, and a few
    more."""
    text = s.text([user(ASK), answer(SAY), user(ASK)], ask=True) if s.chats else ""
    frame = [
        c
        for c in s.template.controls
        if c in text or c in s.template.spelled_ends or c == s.tokenizer.bos_token
    ]
    return list(
        dict.fromkeys([*frame, *[c for c in s.template.controls if c != s.tokenizer.unk_token][:8]])
    )


def _places(s: Subject) -> dict[str, Callable[[str], Sequence[int]]]:
    """Where data stand, and the tokens that they become there."""
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
    special = {s.tokenizer.convert_tokens_to_ids(c) for c in s.template.controls} - {
        s.tokenizer.unk_token_id
    }
    return Counter(i for i in ids if i in special)


def spaces(s: Subject) -> LawFinding:
    """Text behind other tokens gets no space of its own, and decoding gives back what was
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
                f"the tokenizer gives back {back!r} of {text!r}, which is what rewards and tools"
                " read"
            )
    return holds("none is added or lost")


TEXT = (rendering, ends, stops, bos, prompts, masks, control_tokens, spaces)
