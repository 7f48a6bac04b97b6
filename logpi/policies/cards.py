"""A saved model's card, and its way to the Hugging Face hub.

    write_card("runs/1/model", Card(base_model="Qwen/Qwen3-0.6B", algorithm="grpo", metrics={…}))
    push_to_hub("runs/1/model", "me/my-model")                   the model
    push_to_hub("runs/1/model/adapter", "me/my-adapter")         its LoRA adapter alone

The card is `README.md`. A few fields of YAML are for the hub's search. The text tells people the
base model, the data, the algorithm, and the command that makes the model again. Left out:
collecting these facts, which jobs do.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from logpi.policies.hub import answers, check_name

CARD = "README.md"
MODEL, ADAPTER = "config.json", "adapter_config.json"
USE = {
    MODEL: """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{repo}")
tokenizer = AutoTokenizer.from_pretrained("{repo}")""",
    ADAPTER: """from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("{repo}")""",
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """The contents of a model's card; an empty field is left out.

    Attributes:
        title: the heading; default: the directory's name.
        base_model: a hub name or a directory.
        data: hub names, files or tasks that the model learned from.
        algorithm: its name. description: the output of `logpi describe NAME`.
        metrics: the last or best evaluation, by name. command: the command that made the model.
        license: of the hub's list (`apache-2.0`). tags: further words for the hub's search.
    """

    title: str = ""
    base_model: str = ""
    data: Sequence[str] = ()
    algorithm: str = ""
    description: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    command: str = ""
    license: str = ""
    tags: Sequence[str] = ()

    def text(self, repo: str, kind: str = MODEL, scores: bool = False) -> str:
        """The whole file. repo: the name that people load; kind: `MODEL` or `ADAPTER`; scores: it
        is a reward model."""
        use = USE[kind].format(repo=repo)
        if scores:
            use = use.replace("ForCausalLM", "ForSequenceClassification")
        what = "A LoRA adapter" if kind == ADAPTER else "A model"
        facts = {
            "base model": self.base_model,
            "data": ", ".join(self.data),
            "algorithm": self.algorithm,
        }
        parts = [
            f"---\n{self._metadata(kind)}\n---",
            f"# {self.title or repo.rpartition('/')[2]}",
            f"{what} trained with logpi.",
            "\n".join(f"- **{name}**: {value}" for name, value in facts.items() if value),
            _section("Metrics", _table(self.metrics)),
            _section("How it was made", self.command, "```sh\n{}\n```"),
            _section("Algorithm", self.description, "```text\n{}\n```"),
            _section("Use", use, "```python\n{}\n```"),
        ]
        return "\n\n".join(p for p in parts if p) + "\n"

    def _metadata(self, kind: str) -> str:
        """The fields that the hub reads, without paths of this machine."""
        from huggingface_hub import ModelCardData

        data = [d for d in self.data if _on_hub(d)]
        card = ModelCardData(
            base_model=self.base_model if _on_hub(self.base_model) else None,
            datasets=data or None,
            library_name="peft" if kind == ADAPTER else "transformers",
            license=self.license or None,
            tags=["logpi", *([self.algorithm] if self.algorithm else []), *self.tags],
        )
        return card.to_yaml().strip()


def write_card(directory: str | Path, card: Card, repo: str = "") -> Path:
    """Write the card into a saved model's directory, and into its `adapter/` if there is one.

    Args:
        repo: the name on the hub, if it is known; else the directory stands in the example of use.
    Returns:
        The card's file.
    Raises:
        ValueError: no saved model or adapter there.
    """
    directory = Path(directory)
    for inner in (directory / "adapter", directory):
        if inner == directory or (inner / ADAPTER).is_file():
            kind, config = _config(inner)
            text = card.text(repo or directory.name, kind, _is_classifier(config))
            (inner / CARD).write_text(text, encoding="utf-8")
    return directory / CARD


def push_to_hub(
    directory: str | Path,
    repo: str,
    *,
    card: Card | None = None,
    private: bool | None = None,
    token: str | None = None,
    message: str = "Upload by logpi",
) -> str:
    """Upload a saved model, or a saved adapter, with its card; make the repository if need be.

    Args:
        directory: a saved model, or the `adapter` directory in it.
        repo: `owner/name`. card: written first; None: the card in the directory, or a short one.
        private: whether a new repository is; None: by the owner's settings.
        token: None: that of `hf auth login`, or HF_TOKEN.
    Returns:
        The repository's address.
    Raises:
        ValueError: one line: no model there, no such name, the hub does not answer or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    directory = Path(directory)
    kind, config = _config(directory)
    base = str(config.get("base_model_name_or_path") or "") if kind == ADAPTER else ""
    check_name(repo)
    if kind == ADAPTER and not _on_hub(base):
        warnings.warn(
            f"the adapter names its base model by a path of this machine ({base}): nobody else can"
            f" load it so; write the hub's name into {ADAPTER}",
            stacklevel=2,
        )
    if not answers():
        raise ValueError("the Hugging Face hub does not answer (or HF_HUB_OFFLINE is set)")
    if card is not None or not (directory / CARD).is_file():
        write_card(directory, card or Card(base_model=base), repo)
    api = HfApi(token=token)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=directory, commit_message=message)
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the hub does not take {directory} as {repo}: {reason}") from None
    return f"{api.endpoint}/{repo}"


def _config(directory: Path) -> tuple[str, dict[str, Any]]:
    """`MODEL` or `ADAPTER`, and its configuration. Raises ValueError: the directory has neither."""
    for kind in (MODEL, ADAPTER):
        if (directory / kind).is_file():
            return kind, json.loads((directory / kind).read_text("utf-8"))
    raise ValueError(f"{directory} holds no saved model: neither {MODEL} nor {ADAPTER}")


def _is_classifier(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is a sequence classifier's, as a reward model's is."""
    names = config.get("architectures") or []
    return config.get("task_type") == "SEQ_CLS" or any("SequenceClass" in str(n) for n in names)


def _on_hub(name: str) -> bool:
    """Whether a word is `owner/name`, and no path here.

    >>> _on_hub("Qwen/Qwen3-0.6B"), _on_hub("rows.jsonl"), _on_hub("/home/me/model")
    (True, False, False)
    """
    if name.count("/") != 1 or Path(name).exists() or Path(name).suffix in (".jsonl", ".json"):
        return False
    try:
        check_name(name)
    except ValueError:
        return False
    return True


def _section(heading: str, text: str, form: str = "{}") -> str:
    """A heading and the text in `form`; "" without text."""
    return f"## {heading}\n\n{form.format(text.strip())}" if text.strip() else ""


def _table(metrics: Mapping[str, float]) -> str:
    rows = [f"| {name} | {value:.4g} |" for name, value in metrics.items()]
    return "\n".join(["| metric | value |", "|---|---|", *rows]) if rows else ""
