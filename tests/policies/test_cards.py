"""A saved model's card, and what is sent to the hub (whose API is a stand-in here)."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import yaml

from logpi.policies import cards
from logpi.policies.cards import Card, push_to_hub, write_card
from logpi.policies.causal_lm import CausalLM
from logpi.policies.lora import Merging, add_lora
from tests.tiny import tiny_model, tiny_tokenizer

CARD = Card(
    title="Adder",
    base_model="Qwen/Qwen3-0.6B",
    data=("openai/gsm8k", "rows.jsonl"),
    algorithm="grpo",
    description="advantage  A = R − mean(R)",
    metrics={"accuracy": 0.81234, "length": 120.0},
    command="logpi rl --model Qwen/Qwen3-0.6B --task openai/gsm8k",
    license="apache-2.0",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    policy = CausalLM(tiny_model(), tiny_tokenizer())
    policy.model.name_or_path = "owner/base"
    add_lora(policy, rank=2)
    Merging(policy).save(path)
    return path


@pytest.fixture
def hub(monkeypatch):
    """Writes down what is asked of the hub."""
    import huggingface_hub

    calls: list[tuple[str, dict]] = []

    class Api:
        endpoint = "https://hub"

        def __init__(self, token):
            calls.append(("token", {"token": token}))

        def create_repo(self, repo, **options):
            calls.append(("create", {"repo": repo, **options}))

        def upload_folder(self, **options):
            calls.append(("upload", options))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(cards, "answers", lambda: True)
    return SimpleNamespace(calls=calls, api=Api)


def metadata(text: str) -> dict:
    return yaml.safe_load(text.split("---")[1])


def test_a_card_says_how_the_model_was_made(saved):
    text = write_card(saved, CARD).read_text()
    assert metadata(text) == {
        "base_model": "Qwen/Qwen3-0.6B",
        "datasets": ["openai/gsm8k"],  # a file of this machine is nothing that the hub knows
        "library_name": "transformers",
        "license": "apache-2.0",
        "tags": ["logpi", "grpo"],
    }
    for part in (
        "# Adder",
        "- **data**: openai/gsm8k, rows.jsonl",
        "| accuracy | 0.8123 |",
        "```sh\nlogpi rl --model Qwen/Qwen3-0.6B",
        "```text\nadvantage  A = R − mean(R)\n```",
        f'AutoModelForCausalLM.from_pretrained("{saved.name}")',
    ):
        assert part in text, part
    adapter = (saved / "adapter" / "README.md").read_text()
    assert metadata(adapter)["library_name"] == "peft" and "AutoPeftModelForCausalLM" in adapter


def test_an_empty_card_has_no_empty_sections(saved):
    text = write_card(saved, Card()).read_text()
    assert text.count("## ") == 1 and "## Use" in text and "**" not in text


def test_pushing_a_model(saved, hub):
    address = push_to_hub(saved, "me/adder", card=CARD, private=True, token="t")
    assert address == "https://hub/me/adder"
    assert hub.calls == [
        ("token", {"token": "t"}),
        ("create", {"repo": "me/adder", "private": True, "exist_ok": True}),
        (
            "upload",
            {"repo_id": "me/adder", "folder_path": saved, "commit_message": "Upload by logpi"},
        ),
    ]
    assert 'from_pretrained("me/adder")' in (saved / "README.md").read_text()


def test_pushing_an_adapter_writes_a_card_that_names_the_base(saved, hub):
    adapter = saved / "adapter"
    (adapter / "README.md").unlink(missing_ok=True)
    push_to_hub(adapter, "me/adapter")
    assert metadata((adapter / "README.md").read_text())["base_model"] == "owner/base"
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(saved)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match="by a path of this machine"):
        push_to_hub(adapter, "me/adapter")


def test_refusals_are_one_line(saved, hub, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="holds no saved model"):
        push_to_hub(tmp_path, "me/x")
    with pytest.raises(ValueError, match="no name on the Hugging Face hub"):
        push_to_hub(saved, "a/b/c")

    def refuse(*args, **options):
        raise OSError("403\nforbidden")

    monkeypatch.setattr(hub.api, "create_repo", refuse)
    with pytest.raises(ValueError, match="does not take .* as me/x: 403 forbidden"):
        push_to_hub(saved, "me/x")
    monkeypatch.setattr(cards, "answers", lambda: False)
    with pytest.raises(ValueError, match="does not answer"):
        push_to_hub(saved, "me/x")
