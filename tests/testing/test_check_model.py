"""The laws of models: they hold for every family, what a family cannot do is said, and each finds
what breaks it."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from logpi.cli import main
from logpi.policies import chat_template
from logpi.policies.causal_lm import CausalLM
from logpi.policies.chat_template import ChatTemplate
from logpi.policies.reward_model import RewardModel
from logpi.policies.small import small_policy
from logpi.policies.text_tokens import TextTokens
from logpi.rollouts import chat_rows as conversation
from logpi.testing import check_model, model_numbers
from logpi.testing.model import LAWS, Law
from logpi.testing.subject import LawVerdict, Subject
from tests.families import FAMILIES, family

NO_TOOLS, ALTERNATE = {"tools"}, {"roles", "tools"}
SAID = {  # limits that users of the family should know
    "qwen2.5": NO_TOOLS,
    "chatml": NO_TOOLS,
    "base-qwen": {"stops", "tools"},
    "qwen3": {"rendering", "thinking", "observations"},
    "think-special": {"rendering", "thinking", "observations"},
    "qwq": {"rendering", "thinking", "observations"},
    "hermes": set(),
    "items": set(),
    "marked": {"rendering", "thinking", "tools", "marks"},
    "smollm2": NO_TOOLS,
    "llama2": ALTERNATE,
    "llama3": NO_TOOLS,
    "llama3.1": set(),
    "mistral-tools": {"system message", "roles"},
    "gemma2": {"stops", "system message", *ALTERNATE},
    "gemma3": {"system message", *ALTERNATE},
    "mistral": {"system message", *ALTERNATE},
    "zephyr": {"bos", "tools"},
    "phi3": NO_TOOLS,
    "phi3.5": NO_TOOLS,
    "glm4": {"ends", "tools", "observations"},
    "r1": {"rendering", "thinking", "tools", "observations"},
    "base-bytes": set(),
    "base-space": set(),
    "base-always": set(),
    "base-pieces": set(),
}
QUICK = (
    "hermes",
    "qwen3",
    "marked",
    "mistral",
    "gemma2",
    "phi3",
    "r1",
    "base-bytes",
    "base-always",
)


def policy(name: str, **config) -> CausalLM:
    return CausalLM(*family(name, **config))


def law(name: str) -> Law:
    return next(x for x in LAWS if x.name == name)


def hold(name: str) -> None:
    table = check_model(policy(name))
    assert table.passed, str(table)
    assert {x.name for x, f in table.findings if f.verdict is LawVerdict.LIMITED} == SAID[name], (
        str(table)
    )
    assert len(str(table).splitlines()) == len(LAWS) and table.verdict().startswith("ok: ")


@pytest.mark.parametrize("name", QUICK)
def test_laws_hold(name):
    hold(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in QUICK])
def test_laws_hold_for_all_families(name):
    hold(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [p for p in os.environ.get("LOGPI_CHECK_MODELS", "").split(":") if p]
)
def test_laws_hold_for_models_of_yours(path):
    """LOGPI_CHECK_MODELS=DIR:DIR make test-all"""
    assert main(["check-model", path]) == 0


def test_what_families_cannot_do_is_said():
    gemma, base = check_model(policy("gemma2")), check_model(policy("base-bytes"))
    assert (
        gemma["system message"].detail == "a system message is refused: System role not supported"
    )
    assert "does not name <end_of_turn>" in gemma["stops"].detail
    assert (
        base["thinking"].verdict is LawVerdict.ABSENT
        and "no chat template" in base["thinking"].detail
    )
    assert (
        check_model(policy("hermes"))["tools"].detail
        == "calls are of style hermes, results are appended"
    )
    assert (
        check_model(policy("items"))["tools"].detail
        == "calls are of style xml, results are appended"
    )
    assert check_model(policy("qwen3"))["options"].detail == "--template-options enable_thinking"


# --- each law finds what breaks it ---


def apart(self, whole, cuts):
    """Each piece as if nothing stood before it."""
    return [self.encode(whole[a:b]) for a, b in pairwise([0, *cuts, len(whole)])]


TEXT = {
    "rendering": ("mistral", TextTokens, "pieces", apart),
    "ends": (
        "base-qwen",
        ChatTemplate,
        "end_id",
        property(lambda self: self.tokenizer.eos_token_id),
    ),
    "bos": (
        "llama3",
        ChatTemplate,
        "plain",
        lambda self, text: list(self.tokenizer(f"<|begin_of_text|>{text}")["input_ids"]),
    ),
    "prompts": (
        "chatml",
        ChatTemplate,
        "ids",
        lambda self, m, *a, **k: [*self.encode(self.render(m, None, True, None)), 7],
    ),
    "masks": (
        "chatml",
        conversation,
        "_parted",
        lambda t, whole, cuts: ((ids := t.encode(whole)), [True] * len(ids)),
    ),
    "control tokens": ("gemma3", TextTokens, "hidden", lambda self, value, controls=None: value),
    "spaces": ("base-always", TextTokens, "_begins_plain", True),
    "thinking": ("r1", chat_template, "behind_opening", lambda asked, body: body),
    "observations": (
        "mistral",
        TextTokens,
        "behind",
        lambda self, token, text: self.encode(text, first=False),
    ),
    "marks": ("marked", conversation, "_closed", lambda template, whole, cuts: cuts),
}


@pytest.mark.parametrize("name", TEXT)
def test_a_broken_law_of_text_is_found(name, monkeypatch):
    kind, where, attribute, wrong = TEXT[name]
    monkeypatch.setattr(where, attribute, wrong)
    finding = law(name)(Subject(policy(kind)), set())
    assert finding.verdict is LawVerdict.FAIL, finding.detail


def nan(p: CausalLM) -> None:
    p.model.get_input_embeddings().weight.data[0, 0] = float("nan")


def off(p: CausalLM) -> None:
    """What the learner says moves with a row's neighbours."""
    right = p.evaluate
    p.evaluate = lambda batch: replace(e := right(batch), logp=e.logp + 0.01 * batch.obs.shape[1])


def longer(p: CausalLM) -> None:
    p.model.config.n_positions = 4096


def forgetful(p: CausalLM) -> None:
    right = p.save

    def save(directory) -> None:
        p.model.get_input_embeddings().weight.data[:, 0] += 1
        right(directory)
        p.model.get_input_embeddings().weight.data[:, 0] -= 1

    p.save = save


NUMBERS = {
    "finite": (nan, "NaN or infinity"),
    "embeddings": (lambda p: p.tokenizer.add_tokens(["<tool>"]), "resize_token_embeddings"),
    "context": (longer, "learned up to 1024, and the config says 4096"),
    "packed": (off, "differs from the model's own forward"),
    "neighbours": (off, "beside a longer row it moves by up to 0.7"),
    "sampler": (off, "nats a token"),
    "saved": (forgetful, "the loaded model differs"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_broken_law_of_numbers_is_found(name):
    breaks, detail = NUMBERS[name]
    made = policy("base-bytes")
    breaks(made)
    finding = law(name)(Subject(made), set())
    assert finding.verdict is LawVerdict.FAIL and detail in finding.detail


def test_other_likeliest_tokens_are_found(monkeypatch):
    right = model_numbers._generated
    monkeypatch.setattr(model_numbers, "_generated", lambda *a: [t + 1 for t in right(*a)])
    finding = law("greedy")(Subject(policy("base-bytes")), set())
    assert finding.verdict is LawVerdict.FAIL and finding.detail.startswith("token 0 is ")


def test_what_a_law_trips_over_is_its_finding():
    table = check_model(policy("chatml", template="{{ nothing.at.all }}"))
    assert not table.passed and table.verdict().startswith("FAIL: ")
    assert "the chat template refuses these messages" in table["ends"].detail


# --- reward models, and the command ---


def reward_model(name: str) -> RewardModel:
    import transformers as hf

    network, made = family(name)
    network.config.num_labels = 1
    torch.manual_seed(1)
    return RewardModel(hf.Qwen2ForSequenceClassification(network.config).eval(), made)


def test_laws_hold_for_a_reward_model():
    made = reward_model("chatml")
    table = check_model(made)
    assert table.passed, str(table)
    assert (
        table["sampler"].verdict is LawVerdict.ABSENT and table["packed"].verdict is LawVerdict.OK
    )
    torch.nn.init.zeros_(made.model.score.weight)
    assert check_model(made)["head"].verdict is LawVerdict.FAIL


def test_laws_in_english_are_not_tried_on_digits():
    """What its characters suffice for is tried, and a break of a number's law is one."""
    digits = small_policy("0123456789+=", width=16, layers=1, heads=2)
    table = check_model(digits)
    assert table.passed, str(table)
    for name in ("rendering", "control tokens", "spaces"):
        assert table[name].verdict is LawVerdict.ABSENT
        assert table[name].detail.startswith("not tried: the model's vocabulary lacks 'H', 'o', ")
    assert table["prompts"].verdict is table["packed"].verdict is LawVerdict.OK
    nan(digits)
    assert check_model(digits)["finite"].verdict is LawVerdict.FAIL


def test_the_command_says_and_returns_its_verdict(tmp_path, capsys):
    network, made = family("gemma2")
    network.save_pretrained(tmp_path / "good"), made.save_pretrained(tmp_path / "good")
    assert main(["check-model", str(tmp_path / "good")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(LAWS) + 1 and lines[-1].startswith("ok: ")
    assert main(["check-model", str(tmp_path / "good"), "--end-token", "<eos>", "--explain"]) == 0
    assert "Answers end with the token" in capsys.readouterr().out
    made.chat_template = "{{ nothing.at.all }}"
    network.save_pretrained(tmp_path / "bad"), made.save_pretrained(tmp_path / "bad")
    assert main(["check-model", str(tmp_path / "bad")]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("FAIL: ")
    assert main(["check-model", str(tmp_path / "none")]) == 2
    reward_model("chatml").save(tmp_path / "reward")
    assert main(["check-model", str(tmp_path / "reward")]) == 0
