"""Preference data: every layout to the same rows, what is dropped, the reference recorded, the
order restored."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from logpi.algorithms import algorithm
from logpi.envs.data import load_rows
from logpi.errors import UserError
from logpi.learner import Learner
from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.chat import Chat
from logpi.rollouts.collate import collate
from logpi.rollouts.preference_pairs import Preferences, read_labels, read_pairs, without_empty
from logpi.updates.adamw import AdamW
from logpi.updates.micro_batches import evaluate
from tests.tiny import tiny_model, tiny_tokenizer

ROWS = [{"prompt": f"{i}+1=", "chosen": f"{i + 1}", "rejected": f"{i}, or so"} for i in range(8)]


@pytest.fixture(scope="module")
def policy():
    return CausalLM(tiny_model("llama"), tiny_tokenizer())


def text(policy, row) -> tuple[str, str]:
    """What is context and what is learned."""
    start = int(row.mask.nonzero()[0])
    ids = row.obs.tolist()
    decode = policy.tokenizer.decode
    return decode(ids[: start + 1]), decode(ids[start + 1 :], skip_special_tokens=True)


LAYOUTS = {
    "plain": {"prompt": "Q: hi A:", "chosen": " yes", "rejected": " no"},
    "implicit, as HH writes it": {
        "chosen": "\n\nHuman: hi\n\nAssistant: yes",
        "rejected": "\n\nHuman: hi\n\nAssistant: no",
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_layouts(policy, tmp_path, layout):
    (tmp_path / "d.jsonl").write_text(json.dumps(LAYOUTS[layout]))
    ((chosen, rejected),) = read_pairs(policy, load_rows(str(tmp_path / "d.jsonl"))).groups
    assert text(policy, chosen)[0] == text(policy, rejected)[0] and text(policy, chosen)[
        0
    ].endswith(("A:", "Assistant:"))
    assert (text(policy, chosen)[1], text(policy, rejected)[1]) == (" yes", " no")
    assert (
        chosen.obs[-1] == policy.eos_ids[-1]
        and chosen.reward.tolist()[-1] == 1.0
        and not rejected.reward.any()
    )
    assert chosen.group == rejected.group and not chosen.terminated


@pytest.mark.parametrize("explicit", [True, False])
def test_conversations(policy, tmp_path, explicit):
    asked = [{"role": "user", "content": "hi"}]
    said = [[{"role": "assistant", "content": c}] for c in ("yes", "no")]
    row = (
        {"prompt": asked, "chosen": said[0], "rejected": said[1]}
        if explicit
        else {"chosen": asked + said[0], "rejected": asked + said[1]}
    )
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    ((chosen, rejected),) = read_pairs(policy, load_rows(str(tmp_path / "d.jsonl"))).groups
    assert text(policy, chosen) == ("user: hi\nassistant: ", "yes\n")  # as the template writes it
    assert text(policy, rejected)[1] == "no\n"


def test_what_is_the_same_after_the_cut_is_dropped_and_counted(policy):
    rows = [
        *ROWS[:2],
        {"prompt": "1+1=", "chosen": "aaaaab", "rejected": "aaaaac"},
        {"prompt": "1" * 9, "chosen": "a", "rejected": "b"},
    ]
    read = read_pairs(policy, rows, max_length=9)
    assert (len(read.groups), read.dropped) == (2, 2)


def test_labels_come_with_another_prompts_response(policy):
    rows = [{"prompt": f"{i}?", "completion": f"c{i}", "label": i % 2 == 0} for i in range(4)]
    groups = read_labels(policy, rows).groups
    assert [float(g[0].reward.sum()) for g in groups] == [1.0, -1.0, 1.0, -1.0]
    assert [float(g[1].reward.sum()) for g in groups] == [0.0] * 4
    assert [text(policy, g[1]) for g in groups][-1] == ("3?", "c0")
    from_pairs = read_labels(policy, ROWS[:2]).groups
    assert [float(g[0].reward.sum()) for g in from_pairs] == [1.0, -1.0, 1.0, -1.0]
    with pytest.raises(UserError, match="the same prompt"):
        read_labels(policy, [{"prompt": "a", "completion": "b", "label": True}])
    with pytest.raises(UserError, match="row 0: expected a completion and a label"):
        read_labels(policy, [{"prompt": "a", "completion": "b"}])


def test_margins_are_read_from_the_rows(policy):
    ((chosen, _),) = read_pairs(policy, [ROWS[0] | {"margin": 0.5}]).groups
    assert float(chosen.reward.sum()) == 1.5


def test_recorded_log_probabilities_are_the_references(policy):
    rollout = Preferences(read_pairs(policy, ROWS).groups, size=3)
    rollout.record(policy, tokens=50)
    for batch in rollout.batches():
        expected = torch.where(batch.mask, evaluate(policy, batch, None).logp, 0.0)
        torch.testing.assert_close(batch.logp, expected, atol=1e-5, rtol=1e-5)


def test_only_what_the_run_sees_is_recorded(policy):
    rollout = Preferences(read_pairs(policy, ROWS).groups, size=2, seed=1)
    rollout.record(policy, batches=2)
    assert sum(bool(t.logp.any()) for g in rollout.groups for t in g) == 8
    for _ in range(2):
        batch = rollout().batch
        expected = torch.where(batch.mask, evaluate(policy, batch, None).logp, 0.0)
        torch.testing.assert_close(batch.logp, expected, atol=1e-5, rtol=1e-5)
    assert not rollout().batch.logp.any()


def test_with_and_without_a_model_in_memory_the_steps_are_the_same():
    """DPO against recorded log-probabilities and against a reference model."""
    ends = []
    for recorded in (True, False):
        policy = CausalLM(tiny_model("llama"), tiny_tokenizer())
        rollout = Preferences(read_pairs(policy, ROWS).groups, size=4)
        if recorded:
            rollout.record(policy)
        learner = Learner(policy, algorithm("dpo", recorded=recorded, micro_tokens=30), AdamW(1e-3))
        assert (learner.reference is None) == recorded
        ends.append([learner.update(rollout().batch)["loss"] for _ in range(4)])
    assert ends[0] == pytest.approx(ends[1], abs=1e-5) and ends[0][-1] < ends[0][0]


def test_order_is_new_in_each_pass_and_restored(policy):
    groups = read_pairs(policy, ROWS).groups
    rollout = Preferences(groups, size=8, seed=3)
    first, second = (rollout().batch.obs.tolist() for _ in range(2))
    assert sorted(first) == sorted(second) and first != second
    again = Preferences(groups, size=8, seed=3)
    again.load_state_dict({"cursor": 8})
    assert again().batch.obs.tolist() == second


def test_a_pair_that_two_passes_bring_into_one_batch_counts_twice(policy):
    """As two pairs: under one number they would be one comparison of four rows, with the weight of
    one."""
    rollout = Preferences(read_pairs(policy, ROWS[:3]).groups, size=4)
    batch = rollout().batch
    assert (
        batch.group.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        and len({tuple(x) for x in batch.obs.tolist()}) == 6
    )
    assert algorithm("dpo", recorded=True).objective.weight(batch.mask, batch.group).amax() == 0.25


def test_prompts_are_wrapped_as_asked(policy):
    ((chosen, _),) = read_pairs(policy, ROWS[:1], chat=Chat(wrap=True)).groups
    assert text(policy, chosen)[0] == "user: 0+1=\nassistant: "


def test_micro_batches_of_pairs_add_up(policy):
    """The gradient of a batch of pairs does not depend on the forward's token budget."""
    batch = collate([t for g in read_pairs(policy, ROWS).groups for t in g])
    found = []
    for tokens in (None, 25):
        model = CausalLM(tiny_model("llama"), tiny_tokenizer())
        made = algorithm("dpo", beta=0.5, micro_tokens=tokens, max_grad_norm=None)
        reference = CausalLM(tiny_model("llama", seed=1), tiny_tokenizer())
        learner = Learner(model, made, AdamW(1e-3), reference=reference)
        found.append(learner.update(batch))
    for key in ("loss", "grad_norm", "rewards/accuracies", "logps/chosen", "logps/rejected"):
        assert found[0][key] == pytest.approx(found[1][key], rel=1e-4), key


def test_a_gzipped_file_of_implicit_prompts_is_read(policy, tmp_path):
    path: Path = tmp_path / "d.jsonl.gz"
    rows = [
        {
            "chosen": f"\n\nHuman: {i}?\n\nAssistant: y{i}",
            "rejected": f"\n\nHuman: {i}?\n\nAssistant: n",
        }
        for i in range(3)
    ]
    path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    assert len(read_pairs(policy, load_rows(str(path))).groups) == 3


def test_empty_responses_are_left_out_only_when_asked(policy):
    rows = [*ROWS[:2], {"prompt": "Q A:", "chosen": " ", "rejected": "no"}]
    with pytest.raises(UserError, match="row 2: 'chosen' is empty"):
        read_pairs(policy, rows)
    assert without_empty(rows) == ROWS[:2]
