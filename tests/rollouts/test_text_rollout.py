"""Text rollouts: rows are exactly what was sampled, verdicts decide what is learned from, groups
are kept or refilled."""

from dataclasses import replace

import pytest
import torch

import logpi
from logpi.engine.engine import Engine
from logpi.engine.sampling import Completion, Sampling
from logpi.envs.tasks import Addition
from logpi.errors import UserError
from logpi.ops.selection import Bootstrap, CountAsFailure, DropUniform, MaskOut, MixedOutcomes
from logpi.policies.small import small_policy
from logpi.rewards import Rewards, Weighted, rewards
from logpi.rollouts.demonstrations import Demonstrations
from logpi.rollouts.prompt_sources import TaskPrompts
from logpi.rollouts.text_rollout import TextRollout
from logpi.updates.adamw import AdamW

TASK = Addition()


@pytest.fixture(scope="module")
def policy():
    return small_policy(TASK.alphabet, width=32, layers=2, heads=2, seed=3, critic=True)


def rollout(policy, judge="exact", *, tokens=8, **options) -> TextRollout:
    judged = judge if isinstance(judge, Rewards) else rewards(judge)
    given = {
        "prompts": 3,
        "num_generations": 4,
        "sampling": Sampling(max_tokens=tokens),
        "algorithm": logpi.algorithm("reinforce"),
        "seed": 1,
    } | options
    return TextRollout(policy, Engine(policy, slots=5), TASK, judged, **given)


def even(prompts, completions, **_):
    """1 for completions with an even number of characters: random policies get both."""
    return [float(len(c) % 2 == 0) for c in completions]


def half(prompts, completions, **_):
    """No verdict on completions of odd length."""
    return [1.0 if len(c) % 2 == 0 else None for c in completions]


def test_a_row_is_what_was_sampled(policy):
    collected = rollout(policy, rewards(even))()
    batch = collected.batch
    assert len(batch) == 12 and batch.group.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert torch.equal(batch.obs[:, 1:], batch.action)
    for i, sample in enumerate(collected.samples):
        prompt = policy.render(sample["prompt"])
        own = batch.mask[i].nonzero().flatten()
        assert own[0] == len(prompt) - 1 and len(own) == sample["tokens"]
        assert batch.obs[i, : len(prompt)].tolist() == prompt
        assert (
            policy.tokenizer.decode(batch.action[i, own], skip_special_tokens=True)
            == sample["completion"]
        )
        assert batch.reward[i].nonzero().flatten().tolist() == (
            [int(own[-1])] if sample["reward"] else []
        )
        assert bool(batch.terminated[i]) == (sample["stop"] != "length")
    assert torch.allclose(batch.logp, policy.evaluate(batch).logp, atol=1e-5)


def test_a_missing_verdict_is_not_a_zero(policy):
    collected = rollout(policy, rewards(half))()
    missing = torch.tensor([s["reward"] is None for s in collected.samples])
    assert 0 < int(missing.sum()) < len(missing)
    assert not collected.batch.mask[missing].any() and collected.batch.mask[~missing].any(1).all()
    assert collected.metrics["rewards/missing"] == pytest.approx(float(missing.float().mean()))
    assert collected.metrics["reward"] == 1.0


def test_what_a_reward_logs_stands_in_the_metrics_and_the_samples(policy):
    def logging(completions, log_metric, log_extra):
        log_metric("characters", sum(map(len, completions)))
        log_extra("size", [len(c) for c in completions])
        return [1.0] * len(completions)

    collected = rollout(policy, logging)()
    assert [s["extras"] for s in collected.samples] == [
        {"size": len(s["completion"])} for s in collected.samples
    ]
    total = sum(len(s["completion"]) for s in collected.samples)
    assert collected.metrics["characters"] == total
    assert "extras" not in rollout(policy, even)().samples[0]


def test_no_verdict_at_all_is_said(policy):
    broken = Rewards((Weighted(lambda prompts, completions, **_: 1 / 0, name="broken"),))
    with pytest.raises(UserError, match=r"not one of 12 completions got a verdict.*division"):
        rollout(policy, broken)()


@pytest.mark.parametrize("choice", [Bootstrap(), MaskOut(), CountAsFailure(-1.0)])
def test_truncation(policy, choice):
    always = rewards(lambda prompts, completions, **_: [1.0] * len(completions))
    batch = rollout(
        policy, always, tokens=2, algorithm=logpi.algorithm("reinforce", truncation=choice)
    )().batch
    plain = rollout(policy, always, tokens=2)().batch
    cut = ~plain.terminated
    assert cut.any() and not cut.all()
    total, width = batch.reward.sum(1), plain.mask.shape[1]
    assert (
        torch.equal(total[~cut], plain.reward.sum(1)[~cut])
        and width == 2 + max(len(policy.render(s)) for s in ("10+10=",)) - 1
    )
    if isinstance(choice, Bootstrap):
        assert torch.equal(batch.mask, plain.mask) and torch.equal(
            batch.terminated, plain.terminated
        )
    elif isinstance(choice, MaskOut):
        assert not batch.mask[cut].any() and batch.mask[~cut].any(1).all()
    else:
        assert batch.terminated.all() and torch.equal(total[cut], -torch.ones(int(cut.sum())))


@pytest.mark.parametrize("name", ["dapo", "remax", "grpo"])
def test_an_algorithm_is_used_whole(policy, name):
    """`logpi.algorithm("dapo")` lost its dynamic sampling without a word."""
    made = logpi.algorithm(name)
    source = rollout(policy, rewards(even), algorithm=made)
    assert (source.keep, source.truncation) == (made.keep, made.truncation)
    assert source.greedy == made.objective.needs_greedy == (name == "remax")
    assert source.keep.refill == (name == "dapo")


def test_fewer_samples_than_are_compared_are_refused(policy):
    with pytest.raises(UserError, match="num_generations must be at least 2, not 1"):
        rollout(policy, algorithm=logpi.algorithm("grpo"), num_generations=1)


def test_another_sampler_can_stand_in_the_engines_place(policy):
    """Requests in, completions out: here ones that a file or a server might give."""

    class Canned:
        def generate(
            self, requests, sampling=None, generator=None, progress=None, on_turn_end=None
        ):
            made = Completion(torch.tensor([5, 2]), torch.tensor([-1.0, -2.0]), "eos")
            return [[made] * r.n for r in requests]

    source = rollout(policy, rewards(even))
    source.sampler = Canned()
    batch = source().batch
    assert batch.logp[batch.mask].tolist() == [-1.0, -2.0] * 12
    assert batch.action[batch.mask].tolist() == [5, 2] * 12 and batch.terminated.all()


def test_dynamic_sampling_refills_with_mixed_groups(policy):
    dapo = logpi.algorithm("dapo")
    collected = rollout(policy, rewards(even), num_generations=2, algorithm=dapo)()
    totals = collected.batch.reward.sum(1).view(3, 2)
    assert (totals.sum(1) == 1).all()
    assert collected.metrics["groups/sampled"] > 3 and collected.metrics["groups/kept"] == 3


def test_dynamic_sampling_gives_up_clearly(policy):
    same = rewards(lambda prompts, completions, **_: [0.0] * len(completions))
    twice = logpi.algorithm("dapo", keep=MixedOutcomes(max_rounds=2))
    with pytest.raises(
        UserError, match=r"only 0 of 3 groups .* in 2 rounds \(6 prompts, mean reward 0\)"
    ):
        rollout(policy, same, algorithm=twice)()


def test_a_batch_that_cannot_be_filled_has_what_was_found(policy, caplog):
    """A policy that is nearly always right: one prompt alone tells answers apart."""
    first: list[str] = []

    def one(prompts, completions, **_):
        first[:] = first or prompts[:1]
        return [float(p == first[0] and i % 2) for i, p in enumerate(prompts)]

    twice = logpi.algorithm("dapo", keep=MixedOutcomes(max_rounds=2))
    source = rollout(policy, rewards(one), algorithm=twice)
    found = source()
    assert found.metrics["groups/kept"] == 1 and found.metrics["groups/sampled"] == 6
    assert found.batch.reward.sum(1).tolist() == [0.0, 1.0, 0.0, 1.0]
    first.clear()
    assert source().metrics["groups/kept"] == 1
    assert caplog.text.count("only 1 of 3 groups with differing rewards in 2 rounds") == 1


def test_dropping_every_group_makes_no_update(policy):
    same = rewards(lambda prompts, completions, **_: [0.0] * len(completions))
    made = logpi.algorithm("grpo", beta=0, keep=DropUniform())
    batch = rollout(policy, same, algorithm=made)().batch
    learner = logpi.Learner(policy, made, AdamW(lr=1.0))
    before = {k: v.clone() for k, v in policy.state_dict().items()}
    report = learner.update(batch)
    assert report["idle_rows"] == 1.0
    assert all(torch.equal(v, before[k]) for k, v in policy.state_dict().items())


def test_greedy_baseline_is_the_greedy_answers_reward(policy):
    batch = rollout(policy, rewards(even), algorithm=logpi.algorithm("remax"))().batch
    plain = rollout(policy, rewards(even))().batch
    assert batch.baseline is not None and plain.baseline is None
    assert all(len(set(batch.baseline[batch.group == g].tolist())) == 1 for g in range(3))
    assert len(batch) == 12


def test_truncated_sampling_is_refused_with_the_reason(policy):
    with pytest.raises(UserError, match="gradient would be that of another distribution"):
        rollout(policy, sampling=Sampling(top_p=0.9))


def test_state_restores_the_very_next_batch(policy):
    one = rollout(policy, rewards(even))
    one()
    saved = one.state_dict()
    expected = one().batch
    two = rollout(policy, rewards(even))
    two.load_state_dict(saved)
    found = two().batch
    assert torch.equal(found.obs, expected.obs) and torch.equal(found.group, expected.group)


def test_prompts_walk_over_a_file_in_a_new_order_each_pass(tmp_path):
    from logpi.envs.tasks import task

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"prompt": "p{i}", "answer": "{i}"}}\n' for i in range(30)))
    walk = TaskPrompts(task(str(path)), seed=0)
    size = len(walk.task.rows("train"))
    first, second = walk.take(size), walk.take(size)
    assert sorted(r["prompt"] for r in first) == sorted(r["prompt"] for r in second)
    assert [r["prompt"] for r in first] != [r["prompt"] for r in second]


@pytest.mark.parametrize("name", [n for n in logpi.algorithms.NAMES if n not in ("sft", "trpo")])
def test_every_algorithm_updates_a_language_model_on_policy(policy, name):
    made = logpi.algorithm(name)
    fresh = small_policy(
        TASK.alphabet, width=32, layers=2, heads=2, seed=3, critic=made.objective.needs_critic
    )
    source = rollout(fresh, rewards(even), algorithm=made)
    teacher = policy if made.objective.needs_teacher else None
    learner = logpi.Learner(fresh, made, AdamW(lr=1e-3), reference=teacher)
    before = [p.detach().clone() for p in fresh.parameters()]
    for _ in range(2):
        report = learner.update(source().batch)
        assert report["gap_old/max"] < 1e-4 and report["gap_sampler/max"] < 1e-4
        assert all(v == v for v in report.values()), report
    assert any(not torch.equal(a, b) for a, b in zip(before, fresh.parameters(), strict=True))


def test_demonstrations_mask_the_completion_and_its_end(policy):
    batch = Demonstrations(policy, TASK, rows=4, seed=0)().batch
    for i in range(4):
        row = TASK.rows("train", 0)[i]
        own = policy.tokenizer.decode(batch.action[i, batch.mask[i]])
        assert own == row["completion"] + "<eos>"
    assert batch.terminated.all() and len(set(batch.group.tolist())) == 4
    cut = Demonstrations(policy, TASK, rows=4, max_length=10)().batch
    assert not cut.terminated.any() and cut.obs.shape[1] == 10


def test_a_temperature_is_part_of_the_policy(policy):
    warm = small_policy(TASK.alphabet, width=32, layers=2, heads=2, seed=3, temperature=0.7)
    batch = rollout(warm, rewards(even))().batch
    assert torch.allclose(batch.logp, warm.evaluate(batch).logp, atol=1e-5)
    with pytest.raises(UserError, match="temperature"):
        rollout(warm, sampling=replace(Sampling(), temperature=1.0))
