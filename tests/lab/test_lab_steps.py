"""Step values of a language model: splitting, exact values of a tiny model, the report."""

from __future__ import annotations

import pytest
import torch

from logpi.engine.engine import Engine
from logpi.engine.sampling import Sampling
from logpi.errors import UserError
from logpi.lab.steps import StepValue, judge_steps, split_steps, step_report, step_values
from logpi.policies.causal_lm import CausalLM
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def policy():
    return CausalLM(tiny_model("llama", std=0.6), tiny_tokenizer())


@pytest.mark.parametrize(
    ("text", "separator", "steps"),
    [
        ("a\nb\nc", "\n", ["a\n", "b\n", "c"]),
        ("a\n\n\nb\n", "\n", ["a\n\n\n", "b\n"]),
        ("\na", "\n", ["\n", "a"]),
        ("1+1=2, so 3.", ", ", ["1+1=2, ", "so 3."]),
        ("whole", "", ["whole"]),
        ("whole", "\n", ["whole"]),
    ],
)
def test_steps_join_to_the_text_again(text, separator, steps):
    assert split_steps(text, separator) == steps
    assert "".join(split_steps(text, separator)) == text


def test_values_are_the_models_own(policy):
    """One token is left to sample, so V is the probability that it is a digit, which the model
    itself can say."""
    prompt, samples = policy.render("4+4="), 4000

    def digit_last(texts):
        return [float(t[-1:].isdigit()) for t in texts]

    found = judge_steps(
        policy,
        Engine(policy),
        prompt,
        "a,b,7",
        digit_last,
        samples=samples,
        separator=",",
        sampling=Sampling(max_tokens=1),
        seed=1,
    )
    assert [v.text for v in found] == ["a,", "b,", "7"]
    digits = policy.tokenizer("0123456789", add_special_tokens=False)["input_ids"]
    # the same weights, without our attention
    exact, plain = [], tiny_model("llama", std=0.6)
    for prefix in ("", "a,", "a,b,"):
        ids = [*prompt, *policy.tokenizer(prefix, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            logits = plain(torch.tensor([ids])).logits[0, -1]
        exact.append(float(logits.softmax(-1)[digits].sum()))
        # an end token leaves the prefix, whose last character is no digit
        if prefix:
            assert not prefix[-1].isdigit()
    for v, p in zip(found, exact, strict=True):
        assert v.before == pytest.approx(p, abs=4 * (p * (1 - p) / samples) ** 0.5)
    # the response itself
    assert found[-1].after == 1.0
    assert [v.after for v in found[:-1]] == [v.before for v in found[1:]]


def test_advantages_add_up_to_the_reward_minus_the_first_value(policy):
    found = judge_steps(
        policy,
        Engine(policy),
        policy.render("1"),
        "x\ny\nz",
        lambda t: [float(len(x)) for x in t],
        samples=4,
        sampling=Sampling(max_tokens=3),
    )
    assert sum(v.advantage for v in found) == pytest.approx(5.0 - found[0].before)


def test_bad_step_stands_out():
    values = [
        StepValue("fine\n", 0.9, 0.94, 0.05),
        StepValue("slip\n", 0.94, 0.41, 0.06),
        StepValue("luck", 0.41, 1.0, 0.05),
    ]
    report = step_report(values, 64)
    assert [v.bad for v in values] == [False, True, False]
    marked = [line for line in report.text().splitlines() if "◄" in line]
    assert len(marked) == 1
    assert "slip" in marked[0]
    assert "step 2 lowers the value from 0.94 to 0.41" in report.shown


def test_a_fall_that_chance_explains_is_not_marked():
    assert not StepValue("x", 0.9, 0.8, 0.06).bad
    assert "no step" in step_report([StepValue("x", 0.9, 1.0, 0.06)], 8).shown


def test_command_reads_files_and_draws(policy, tmp_path):
    policy.save(tmp_path / "model")
    (tmp_path / "response.txt").write_text("1+1\n2")
    report = step_values(
        str(tmp_path / "model"),
        "1+1=",
        f"@{tmp_path / 'response.txt'}",
        "2",
        reward="number",
        samples=3,
        max_tokens=4,
        chat=False,
    )
    assert len(report.tables[0].rows) == 2
    assert report.picture(tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"response": "@missing.txt"}, "missing.txt"),
        ({"reward": "nonsense"}, "nonsense"),
        ({}, "nowhere"),
    ],
)
def test_mistakes_are_one_line(change, says, tmp_path):
    given = {
        "model": str(tmp_path / "nowhere"),
        "prompt": "p",
        "response": "r",
        "answer": "1",
    } | change
    with pytest.raises(UserError, match=says) as error:
        step_values(**given)
    assert len(str(error.value).splitlines()) == 1
