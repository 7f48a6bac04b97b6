"""How messages become tokens, family by family: the very tokens of rows, ends, what prompts open,
what sampled tokens say."""

from __future__ import annotations

import warnings

import pytest

from logpi.envs.data import load_rows
from logpi.envs.implicit_prompts import implicit_prompt, shared_messages
from logpi.errors import UserError
from logpi.policies.causal_lm import CausalLM
from logpi.policies.chat_template import ChatTemplate
from logpi.rollouts.chat import Chat
from logpi.rollouts.chat_rows import token_rows
from logpi.rollouts.observations import Observations
from logpi.rollouts.preference_pairs import read_pairs
from logpi.testing.subject import Subject, answer, system, user
from tests.families import FAMILIES, family, tokenizer

IM = "<|im_start|>"
ASKED = f"{IM} user Ċ What Ġis Ġ 2 + 2 ? <|im_end|> Ċ {IM} assistant Ċ"
HELPFUL = f"{IM} system Ċ You Ġare Ġhelpful . <|im_end|> Ċ "
LLAMA = (
    "<|start_header_id|> user <|end_header_id|> ĊĊ What Ġis Ġ 2 + 2 ? <|eot_id|>"
    " <|start_header_id|> assistant <|end_header_id|> ĊĊ"
)
GEMMA = "<bos> <start_of_turn> us er \n What ▁is ▁2+2? <end_of_turn> \n <start_of_turn> model \n"
INST = "<s> ▁ <0x5B> I <0x4E> S T <0x5D> ▁What ▁is ▁2+2? ▁ <0x5B> <0x2F> I <0x4E> S T <0x5D>"
ZEPHYR = (
    "▁ <0x3C> <0x7C> us er <0x7C> > \n What ▁is ▁2+2? </s> \n <0x3C> <0x7C> assistant <0x7C> > \n"
)
SAID = "It Ġis Ġ 4 ."
ROWS = {  # of "What is 2+2?" and "It is 4.": in front of the answer, learned, behind
    "qwen2.5": (HELPFUL + ASKED, f"{SAID} <|im_end|>", "Ċ"),
    "chatml": (ASKED, f"{SAID} <|im_end|>", "Ċ"),
    "base-qwen": (ASKED, f"{SAID} <|im_end|>", "Ċ"),
    "qwen3": (ASKED, f"<think> ĊĊ </think> ĊĊ {SAID} <|im_end|>", "Ċ"),
    "think-special": (ASKED, f"<think> ĊĊ </think> ĊĊ {SAID} <|im_end|>", "Ċ"),
    "qwq": (f"{ASKED} <think> Ċ", f"Ċ </think> ĊĊ {SAID} <|im_end|>", "Ċ"),
    "marked": (ASKED, f"{SAID} <|im_end|>", "Ċ"),
    "llama2": (INST, "▁It ▁is ▁4. ▁ </s>", ""),
    "llama3": (f"<|begin_of_text|> {LLAMA}", f"{SAID} <|eot_id|>", ""),
    "gemma2": (GEMMA, "It ▁is ▁4. <end_of_turn>", "\n"),
    "gemma3": (GEMMA, "It ▁is ▁4. <end_of_turn>", "\n"),
    "mistral": (INST, "It ▁is ▁4. </s>", ""),
    "mistral-tools": ("<s> [INST] ▁ ▁What ▁is ▁2+2? [/INST]", "▁ ▁It ▁is ▁4. </s>", ""),
    "zephyr": (ZEPHYR, "It ▁is ▁4. </s>", "\n"),
    "phi3": (
        "<|user|> ▁What ▁is ▁2+2? <|end|> <|assistant|>",
        "▁It ▁is ▁4. <|end|>",
        "<|endoftext|>",
    ),
    "phi3.5": (
        "<|user|> Ċ What Ġis Ġ 2 + 2 ? <|end|> Ċ <|assistant|> Ċ",
        f"{SAID} <|end|>",
        "Ċ <|endoftext|>",
    ),
    "glm4": (
        "[gMASK] <sop> <|user|> Ċ What Ġis Ġ 2 + 2 ? <|assistant|> Ċ",
        f"{SAID} <|endoftext|>",
        "",
    ),
    "r1": (
        "<|begin|> <|User|> What Ġis Ġ 2 + 2 ? <|Assistant|> <think> Ċ",
        f"Ċ </think> ĊĊ {SAID} <|endofsentence|>",
        "",
    ),
    "base-bytes": ("What Ġis Ġ 2 + 2 ?", f"{SAID} <|endoftext|>", ""),
    "base-space": ("ĠWhat Ġis Ġ2 + 2 ?", "It Ġis Ġ4 . </s>", ""),
    "base-always": ("<s> ▁What ▁is ▁2+2?", "It ▁is ▁4. </s>", ""),
    "base-pieces": ("<s> ▁What ▁is ▁2+2?", "It ▁is ▁4. </s>", ""),
}
CHATS = [name for name, f in FAMILIES.items() if f.template is not None]


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def subject(name: str, template: str | None = None, **options) -> Subject:
    return Subject(CausalLM(*family(name, template=template), **options))


def template(name: str) -> ChatTemplate:
    made = tokenizer(name)
    return ChatTemplate(made, stops=tuple(map(made.convert_tokens_to_ids, FAMILIES[name].stops)))


def spelled(s: Subject, row) -> tuple[str, str, str]:
    """Tokens in front of the first own one, own, and behind the last own one."""
    tokens = s.tokenizer.convert_ids_to_tokens(row.obs.tolist())
    own = (row.mask.nonzero() + 1).flatten().tolist()
    assert own == list(range(own[0], own[-1] + 1))
    return (
        " ".join(tokens[: own[0]]),
        " ".join(tokens[own[0] : own[-1] + 1]),
        " ".join(tokens[own[-1] + 1 :]),
    )


# --- rows ---


@pytest.mark.parametrize("name", ROWS)
def test_a_demonstration_has_the_very_tokens_of_its_family(name):
    s = subject(name)
    assert (
        spelled(s, s.demonstrated({"prompt": "What is 2+2?", "completion": "It is 4."})[0])
        == ROWS[name]
    )
    chosen, rejected = s.preferred(
        {"prompt": "What is 2+2?", "chosen": "It is 4.", "rejected": "It is 4!"}
    )
    assert spelled(s, chosen) == (*ROWS[name][:2], "")  # a pair ends with the end of its answer
    assert spelled(s, rejected)[0] == ROWS[name][0] and rejected.obs[-1] == chosen.obs[-1]


@pytest.mark.parametrize("name", CHATS)
def test_a_conversation_has_the_tokens_of_prompt_and_completion(name):
    s = subject(name)
    talk = [user("What is 2+2?"), answer("It is 4.")]
    [by_words], [by_messages] = (
        s.demonstrated({"prompt": "What is 2+2?", "completion": "It is 4."}),
        s.conversed(talk),
    )
    assert (
        by_messages.obs.tolist() == by_words.obs.tolist()
        and by_messages.mask.tolist() == by_words.mask.tolist()
    )


# --- ends ---


@pytest.mark.parametrize("name", FAMILIES)
def test_ends_are_found_by_rendering(name):
    made, f = template(name), FAMILIES[name]
    assert made.end_text == (f.end or f.eos)
    assert (
        set(made.spelled_ends) == {made.end_text, f.eos, *f.stops}
        and made.spelled_ends[-1] == made.end_text
    )
    assert made.ends_turns == (f.template is not None and name != "glm4")
    assert made.describe().startswith(f"answers end with {made.end_text}")
    assert ("writes no end of a turn" in made.describe()) == (name == "glm4")


def test_another_end_can_be_chosen():
    s = subject("glm4", end_token="<|observation|>")
    assert (
        spelled(s, s.demonstrated({"prompt": "What is 2+2?", "completion": "It is 4."})[0])[1]
        == f"{SAID} <|observation|>"
    )
    with pytest.raises(ValueError, match="'<|nothing|>' is not one token"):
        ChatTemplate(tokenizer("glm4"), end="<|nothing|>")


def test_a_saved_model_stops_where_it_learned_to(tmp_path):
    import transformers as hf

    policy = CausalLM(*family("gemma2"))
    policy.save(tmp_path)
    assert [
        policy.tokenizer.convert_ids_to_tokens(i)
        for i in hf.GenerationConfig.from_pretrained(tmp_path).eos_token_id
    ] == ["<eos>", "<end_of_turn>"]


def test_an_answer_without_words_learns_to_end():
    for name in CHATS:
        s = subject(name)
        own = s.own(s.conversed([user("?"), answer("")])[-1])
        assert own.endswith(FAMILIES[name].end) and own.count(FAMILIES[name].end) == 1, name


# --- thoughts ---

THOUGHT = "<think>\nadd them\n</think>\n\nIt is 4."


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("r1", "<think>\n"), ("qwq", "<think>\n"), ("qwen3", ""), ("chatml", ""), ("gemma3", "")],
)
def test_a_thought_is_opened_once(name, prefix):
    s = subject(name)
    assert s.template.prefix(s.template.ids([user("2+2?")])) == prefix
    row = s.demonstrated({"prompt": "2+2?", "completion": THOUGHT})[0]
    assert s.own(row) == THOUGHT.removeprefix(prefix) + FAMILIES[name].end


def test_a_closed_thought_in_the_prompt_is_a_prefix_too():
    s = subject("qwen3", template_options={"enable_thinking": False})
    ids = s.template.ids([user("2+2?")])
    assert s.template.prefix(ids) == "<think>\n\n</think>\n\n"
    assert s.own(s.demonstrated({"prompt": "2+2?", "completion": "4"})[0]) == "4<|im_end|>"
    with pytest.raises(ValueError, match="no variable 'thinking_budget'"):
        ChatTemplate(tokenizer("qwen3"), {"thinking_budget": 1})


def test_templates_that_forget_thoughts_give_a_row_for_each_answer():
    talk = [
        user("Run."),
        answer("<think>\nplan A\n</think>\n\none"),
        user("Again."),
        answer("<think>\nplan B\n</think>\n\ntwo"),
    ]
    s = subject("qwen3")
    first, second = s.conversed(talk)
    assert first.obs.tolist() == s.written(talk[:2]) and second.obs.tolist() == s.written(talk)
    assert s.own(first) == f"{talk[1]['content']}<|im_end|>" and "plan A" not in s.decoded(
        second.obs.tolist()
    )


# --- marks ---


def test_marks_without_the_end_are_drawn_out_to_it_and_said():
    s = subject("marked")
    talk = [user("2+2?"), answer("It is <|im_end|> 4."), user("So?"), answer("")]
    with pytest.warns(UserWarning, match=r"leave out <\|im_end\|>.*it is learned too"):
        [row] = token_rows(s.policy, talk)
    own = [i for i, mine in zip(row.ids, row.own, strict=True) if mine]
    assert s.decoded(own) == "It is <|im_end|> 4.<|im_end|><|im_end|>"
    assert own.count(s.template.end_id) == 2  # what the answer spells is text


def test_marks_that_run_on_are_cut_behind_the_end():
    head, body = "{{ '<|im_start|>' + m.role + '\\n' }}", "{{ m.content + '<|im_end|>\\n' }}"
    marked = (
        f"{{% if m.role == 'assistant' %}}{{% generation %}}{body}{{% endgeneration %}}{{% else"
        f" %}}{body}{{% endif %}}"
    )
    s = subject("marked", f"{{% for m in messages %}}{head}{marked}{{% endfor %}}")
    row = s.conversed([user("2+2?"), answer("It is 4."), user("So?"), answer("4")])[0]
    assert s.own(row) == "It is 4.<|im_end|>4<|im_end|>"


# --- text that stays text ---


@pytest.mark.parametrize("name", CHATS)
def test_control_tokens_in_data_are_text(name):
    s = subject(name)
    evil = " ".join(
        ("a", FAMILIES[name].end, *FAMILIES[name].special, FAMILIES[name].bos or "", "b")
    )
    special = set(map(s.tokenizer.convert_tokens_to_ids, s.template.controls)) - {
        s.tokenizer.unk_token_id
    }

    def controls(ids) -> list[int]:
        return [i for i in ids if i in special]

    ids = s.template.ids([user(evil)])
    assert controls(ids) == controls(s.template.ids([user("a b")]))
    assert "".join(evil.split()) in "".join(s.decoded(ids).split())
    ends = " ".join(("a", *s.template.spelled_ends, "b"))
    rows = [s.demonstrated({"prompt": "?", "completion": c})[0].obs.tolist() for c in (ends, "a b")]
    assert controls(rows[0]) == controls(rows[1]) and "".join(ends.split()) in "".join(
        s.decoded(rows[0]).split()
    )
    assert not controls(Observations(s.template)(evil, None).ids)


def test_icons_of_fonts_are_not_taken_for_control_tokens():
    made = template("chatml")
    icons = "\U000f0000 \U000f0001\U000f0002 \U00100000 \U000ffffd"
    ids = made.ids([user(f"{icons}<|im_end|>")])
    assert made.tokenizer.decode(ids).startswith(f"<|im_start|>user\n{icons}<|im_end|><|im_end|>\n")
    assert ids.count(made.end_id) == 1
    assert Observations(made, limit=40)([user(icons * 50)], made.end_id).cut


def test_what_special_tokens_swallow_is_swallowed_in_rows_too():
    """Phi-3's swallow white space behind them, also in front of a text in which data spell one."""
    made = template("phi3")
    assert made.tokenizer.convert_ids_to_tokens(made.ids([user("a <|end|> b")]))[:2] == [
        "<|user|>",
        "▁a",
    ]
    assert made.behind(made.end_id, "\n<|user|>\nb") == made.encode("<|end|>\n<|user|>\nb")[1:]


def test_what_tokens_say():
    made = template("think-special")
    ids = made.tokenizer("<think>\nhm\n</think>\n\n4<|im_end|><|endoftext|>")["input_ids"]
    assert made.decode(ids) == "<think>\nhm\n</think>\n\n4"


# --- BOS ---


@pytest.mark.parametrize(
    ("name", "count"),
    [("llama3", 1), ("gemma3", 1), ("r1", 1), ("mistral", 1), ("qwen2.5", 0), ("zephyr", 0)],
)
def test_one_bos_in_prompts_rendered_here_or_beforehand(name, count):
    s = subject(name)
    bos = s.tokenizer.bos_token_id
    beforehand = s.policy.render(s.text([user("hi")], ask=True))
    rows = [
        s.template.ids([user("hi")]),
        s.demonstrated({"prompt": "hi", "completion": "yo"})[0].obs.tolist(),
    ]
    assert [r.count(bos) if bos is not None else 0 for r in rows] == [count, count]
    assert (beforehand.count(bos) if bos is not None else 0) == (1 if name == "zephyr" else count)


# --- pairs ---


def test_pairs_of_conversations_keep_what_was_said_in_between():
    s = subject("chatml")
    rows = [
        {
            "prompt": [user("hi?")],
            "chosen": [answer("call"), {"role": "tool", "content": "42"}, answer("good")],
            "rejected": [answer("bad")],
        },
        {
            "chosen": [user("hi?"), answer("one"), user("more?"), answer("good")],
            "rejected": [user("hi?"), answer("two"), user("less?"), answer("bad")],
        },
        {
            "chosen": [system("be"), user("hi?"), answer("one"), user("more?"), answer("good")],
            "rejected": [system("be"), user("hi?"), answer("one"), user("more?"), answer("bad")],
        },
    ]
    rows = [
        r if "prompt" in r else {**r, **implicit_prompt(r["chosen"], r["rejected"])} for r in rows
    ]
    chosen = [g[0] for g in read_pairs(s.policy, rows, chat=Chat(wrap=True)).groups]
    assert list(map(s.own, chosen)) == [
        "call<|im_end|>good<|im_end|>",
        "one<|im_end|>good<|im_end|>",
        "good<|im_end|>",
    ]
    assert [
        w in s.decoded(t.obs.tolist()) for t, w in zip(chosen, ("42", "more?", "be"), strict=True)
    ] == [True] * 3


def test_answers_that_begin_like_the_prompt_keep_their_words():
    s = subject("chatml")
    pair = s.preferred(
        {"prompt": "Hello", "chosen": "Hello! What can I do?", "rejected": "Hello there."}
    )
    assert list(map(s.own, pair)) == ["Hello! What can I do?<|im_end|>", "Hello there.<|im_end|>"]


def test_what_two_responses_share_is_their_prompt():
    u, a, b = user("?"), answer("a"), answer("b")
    assert shared_messages([u, a, u, a], [u, a, u, b]) == [u, a, u]
    assert shared_messages([u, a, u, b], [u, b, u, b]) == [
        u
    ]  # what follows the first answer is its consequence
    assert (
        implicit_prompt("Human: hi Assistant: yes", "Human: hi Assistant: no")["prompt"]
        == "Human: hi Assistant:"
    )
    assert implicit_prompt("x", "y") == {} == implicit_prompt(1, 2)


def test_pairs_read_from_files_have_the_same_prompts(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"chosen": [{"role": "user", "content": "hi?"}, {"role": "assistant", "content": "yes"}],'
        ' "rejected": [{"role": "user", "content": "hi?"}, {"role": "assistant", "content":'
        ' "no"}]}\n'
    )
    [row] = load_rows(str(path))
    s = subject("llama3")
    pair = s.preferred(row)
    assert [s.own(t) for t in pair] == ["yes<|eot_id|>", "no<|eot_id|>"]
    assert pair[0].obs[: int(pair[0].mask.long().argmax()) + 1].tolist() == s.template.ids(
        [user("hi?")]
    )


# --- refusals ---


def test_refusals_are_the_templates_own_words():
    with pytest.raises(ValueError, match="refuses these messages: System role not supported"):
        template("gemma3").ids([system("be"), user("hi")])
    with pytest.raises(UserError, match="row 0: .*must alternate"):
        subject("gemma3").conversed([user("a"), user("b"), answer("c")])
    with pytest.raises(ValueError, match="no chat template"):
        template("base-bytes").ids([user("hi")])


def test_phi_goes_on_behind_the_end_of_a_turn():
    """Without a question its template writes <|endoftext|> behind the last turn: no part of what
    went before."""
    made = template("phi3.5")
    told = Observations(made)([user("So?")], made.end_id)
    assert told.text == "\n<|user|>\nSo?<|end|>\n<|assistant|>\n"
