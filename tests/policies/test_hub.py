"""Names on the hub: what cannot be one, and a hub that does not answer, said at once."""

from __future__ import annotations

import time

import pytest
from huggingface_hub import constants

from logpi.policies.hub import answers, check_model, check_name


@pytest.fixture
def unreachable(monkeypatch, tmp_path):
    """A hub on a port where nobody listens, and an empty cache."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    answers.cache_clear()
    yield tmp_path
    answers.cache_clear()


@pytest.mark.parametrize("name", ["./x", "../x", "a/b/c", "x y", "", "~/x", "x" * 200, "é"])
def test_what_no_repository_is_called(name):
    with pytest.raises(
        ValueError, match="no such file or directory, and no name on the Hugging Face hub"
    ):
        check_name(name)


def test_names_that_could_be_there():
    check_name("gpt2")
    check_name("Qwen/Qwen2.5-0.5B-Instruct")


def test_a_hub_that_does_not_answer_is_asked_once(unreachable):
    start = time.perf_counter()
    for name in ("nosuch", "no/such"):
        with pytest.raises(
            ValueError,
            match=(
                f"{name}: no such file or directory here, and the Hugging Face hub does not answer"
            ),
        ):
            check_model(name)
    assert time.perf_counter() - start < 5
    assert constants.HF_HUB_OFFLINE  # so the libraries that download do not ask either


def test_a_model_in_the_cache_needs_no_hub(unreachable):
    snapshot = unreachable / "models--owner--name" / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    check_model("owner/name")


def test_a_misspelt_directory_is_said_at_once(unreachable):
    from transformers import AutoModelForCausalLM  # noqa: F401  takes seconds to import by itself

    from logpi.policies.causal_lm import CausalLM

    start = time.perf_counter()
    with pytest.raises(ValueError, match="nosuch: no such file or directory"):
        CausalLM.load("nosuch")
    assert time.perf_counter() - start < 10
