"""Training in bfloat16: steps on float32 masters, exactly; gradients summed in float32; a state
that is restored; weights written by others."""

from __future__ import annotations

import copy
import gc
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from logpi import SGD, AdamW, Learner, algorithm
from logpi.cli import main
from logpi.envs.tasks import Addition
from logpi.jobs.memory import Role, memory
from logpi.policies.causal_lm import CausalLM
from logpi.policies.loading import four_bits
from logpi.policies.lora import add_lora
from logpi.policies.small import small_policy
from logpi.rollouts.demonstrations import Demonstrations
from logpi.runs import checkpoint
from logpi.types import Batch
from logpi.updates.adamw import Constant
from logpi.updates.masters import Masters
from tests.test_learner import Tiny, rollout
from tests.tiny import tiny_model, tiny_tokenizer

HALF = torch.bfloat16


def weights(*shape: int, scale: float = 0.05, dtype: torch.dtype = HALF) -> nn.Module:
    """A module with one parameter `w` of normal weights."""
    module = nn.Module()
    module.w = nn.Parameter((torch.randn(*shape) * scale).to(dtype))
    return module


def masters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    assert isinstance(optimizer, Masters)
    return optimizer.state_dict()["masters"]


def small(critic: bool = False) -> CausalLM:
    """A language model in bfloat16; its value head is float32."""
    policy = CausalLM(tiny_model("llama"), tiny_tokenizer(), critic=critic)
    policy.model.to(HALF)
    return policy


def demonstrations(policy: CausalLM, rows: int = 8, seed: int = 0) -> Demonstrations:
    return Demonstrations(policy, Addition(), rows=rows, max_length=64, seed=seed)


# --- small steps ---


def test_small_steps_are_lost_without_masters_and_add_up_with_them() -> None:
    """200 steps of 1e-6 down: half of what is between two neighbours of most of these weights."""
    ours, plain = weights(20_000), weights(20_000)
    plain.w.data.copy_(ours.w)
    begin, made = ours.w.detach().double(), AdamW(1e-6).build(ours)
    direct = torch.optim.AdamW([plain.w], lr=1e-6, weight_decay=0.0)
    for _ in range(200):
        for module, optimizer in ((ours, made), (plain, direct)):
            module.w.sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert (plain.w == begin).double().mean() > 0.98
    moved = ours.w.detach().double() - begin
    assert float(moved.mean()) == pytest.approx(-200e-6, rel=0.02)
    assert float((masters(made)[0].double() - begin).mean()) == pytest.approx(-200e-6, rel=0.02)


def test_the_first_step_moves_the_weights_on_average() -> None:
    """Masters that began as the weights would move only those below 5e-4, and by far less."""
    module = weights(400_000)
    begin, optimizer = module.w.detach().double(), AdamW(1e-6).build(module)
    module.w.sum().backward()
    optimizer.step()
    assert float((module.w.detach().double() - begin).mean()) == pytest.approx(-1e-6, rel=0.1)


def test_masters_begin_evenly_where_they_round_to_the_weights() -> None:
    module = weights(50_000)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, 3.38e38], dtype=HALF)
    module.w.data[:7] = special
    (master,) = masters(AdamW().build(module))
    torch.testing.assert_close(master.to(HALF), module.w.detach(), rtol=0, atol=0, equal_nan=True)
    assert (master[:2].abs() < 1e-40).all() and master.dtype == torch.float32
    part = (
        master[7:].view(torch.int32) - module.w.detach()[7:].float().view(torch.int32)
    ).double() / 2**16
    assert part.abs().max() <= 0.5 and abs(float(part.mean())) < 0.01
    assert float(part.std()) == pytest.approx(12**-0.5, rel=0.02)
    # (1 − 6r(1 − r)) / 12, r = .618
    assert float((part[1:] * part[:-1]).mean()) == pytest.approx(-0.0347, abs=0.0005)
    assert torch.equal(master[7:], masters(AdamW().build(module))[0][7:]), (
        "no luck: the same for the same weights"
    )


# --- exactness ---


def test_steps_are_those_of_float32_adamw_on_the_masters() -> None:
    """Five updates of several micro-batches each, clipped, decaying, with a float32 value head: bit
    for bit torch's, on float32 sums."""
    torch.manual_seed(0)
    ours = small(critic=True)
    nn.init.normal_(ours.value_head.weight)  # type: ignore[union-attr]
    theirs, rates = copy.deepcopy(ours), AdamW(1e-3, weight_decay=0.1)
    optimizer, clip = rates.build(ours), SGD(max_grad_norm=0.5)._clip
    copies = iter(masters(optimizer))
    held = [
        (p, nn.Parameter(next(copies).clone() if p.dtype == HALF else p.detach().clone()))
        for p in in_groups(theirs)
    ]
    decays = [
        {"params": [m for _, m in held if (m.ndim >= 2) == d], "weight_decay": 0.1 * d}
        for d in (True, False)
    ]
    reference = torch.optim.AdamW(decays, lr=rates.lr, betas=rates.betas, eps=rates.eps, fused=True)
    source = demonstrations(ours)
    for _ in range(5):
        optimizer.zero_grad(), reference.zero_grad()
        for part in parts(source().batch, 3):
            cost(ours, part).backward()
            theirs.zero_grad()
            cost(theirs, part).backward()
            for p, m in held:
                assert p.grad is not None
                m.grad = p.grad.float() + (0 if m.grad is None else m.grad)
        assert all(p.grad is None for p in ours.parameters() if p.dtype == HALF), (
            "they were handed over"
        )
        assert clip(optimizer) == clip(reference) > 0.5
        optimizer.step(), reference.step()
        for p, m in held:
            p.data.copy_(m)
        assert all(
            torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)
        )
    assert all(
        torch.equal(m, n)
        for m, n in zip(masters(optimizer), (m for p, m in held if p.dtype == HALF), strict=True)
    )


def in_groups(policy: nn.Module) -> list[nn.Parameter]:
    """As the optimiser groups them: matrices, then vectors."""
    every = list(policy.parameters())
    return [p for p in every if p.ndim >= 2] + [p for p in every if p.ndim < 2]


def parts(batch: Batch, count: int) -> list[Batch]:
    return [batch.rows(rows) for rows in torch.arange(len(batch)).tensor_split(count)]


def cost(policy: CausalLM, batch: Batch) -> Tensor:
    now = policy.evaluate(batch)
    assert now.value is not None
    return now.value.square().mean() - now.logp.sum() / 100


def test_a_thousand_micro_batches_add_up() -> None:
    """In bfloat16 the sum of ones ends at 256."""
    module = weights(4)
    optimizer = AdamW(1e-3).build(module)
    for _ in range(1000):
        module.w.sum().backward()
    (master,) = optimizer.param_groups[0]["params"]
    assert (master.grad == 1000).all() and module.w.grad is None


def test_the_micro_batch_is_memory_alone_but_for_its_own_rounding() -> None:
    """Each micro-batch's gradient has 8 bits; their sum has all. The gradient of float32 weights is
    the measure."""
    ours = small()
    exact = copy.deepcopy(ours).float()
    batch = demonstrations(ours, rows=24)().batch

    def gradient(policy: CausalLM, tokens: int) -> Tensor:
        learner = Learner(
            policy, algorithm("sft", micro_tokens=tokens, max_grad_norm=None), AdamW(0.0)
        )
        learner.update(batch)
        return torch.cat(
            [p.grad.flatten() for g in learner.optimizer.param_groups for p in g["params"]]
        )

    truth = gradient(exact, 10_000)
    error = [
        float((gradient(copy.deepcopy(ours), n) - truth).norm() / truth.norm())
        for n in (10_000, 100, 1)
    ]
    assert max(error) < 0.02 and max(error) < 1.25 * error[0], error


# --- what else may happen to weights and gradients ---


def stepped(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module.w.square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("way", ["load_state_dict", "data"])
def test_weights_that_were_written_by_others_stay_written(way: str) -> None:
    module, other = weights(1000), weights(1000)
    optimizer = AdamW(1e-2).build(module)
    stepped(module, optimizer)
    (
        module.load_state_dict(other.state_dict())
        if way == "load_state_dict"
        else module.w.data.copy_(other.w)
    )
    optimizer.param_groups[0]["lr"] = 0.0
    stepped(module, optimizer)
    assert torch.equal(module.w, other.w) and torch.equal(masters(optimizer)[0].to(HALF), other.w)


def test_what_others_did_not_write_keeps_its_master() -> None:
    module = weights(1000)
    optimizer = AdamW(1e-2).build(module)
    stepped(module, optimizer)
    before = masters(optimizer)[0].clone()
    module.w.data[:10] += 1
    optimizer.param_groups[0]["lr"] = 0.0
    stepped(module, optimizer)
    assert torch.equal(masters(optimizer)[0][10:], before[10:])
    assert torch.equal(masters(optimizer)[0][:10], module.w[:10].float())


def test_weights_that_get_no_gradient_stay_and_go_on_later() -> None:
    module = weights(100)
    module.v = nn.Parameter(module.w.detach().clone())
    optimizer = AdamW(1e-2).build(module)
    begin = module.v.detach().clone()
    module.v.requires_grad_(False)
    stepped(module, optimizer)
    assert torch.equal(module.v, begin)
    module.v.requires_grad_(True)
    (module.w + module.v).square().sum().backward()
    optimizer.step()
    assert (module.v != begin).float().mean() > 0.9 and module.v.grad is None


def test_a_gradient_that_is_not_finite_is_left_out_and_forgotten() -> None:
    policy = Tiny().to(HALF)
    learner = Learner(policy, algorithm("reinforce"), AdamW(1e-2))
    batch = rollout(policy, 0)
    before = copy.deepcopy((policy.state_dict(), masters(learner.optimizer)))
    broken = replace(batch, reward=batch.reward * 1e38 * 1e38)
    try:
        report = learner.update(broken)
    except (ValueError, RuntimeError):
        report = {"skipped": 1.0}
    assert report["skipped"] == 1.0
    assert all(torch.equal(v, before[0][k]) for k, v in policy.state_dict().items())
    assert all(
        torch.equal(m, n) for m, n in zip(masters(learner.optimizer), before[1], strict=True)
    )
    assert learner.update(batch)["skipped"] == 0.0
    assert all(p.isfinite().all() for p in policy.parameters())


def test_release_frees_every_gradient() -> None:
    policy = small()
    learner = Learner(policy, algorithm("sft"), AdamW(1e-3))
    learner.update(demonstrations(policy)().batch)
    learner.release()
    assert all(p.grad is None for g in learner.optimizer.param_groups for p in g["params"])


def test_gradients_are_the_weights_own_again_without_the_optimiser() -> None:
    module = weights(3)
    optimizer = AdamW().build(module)
    double = copy.deepcopy(module)
    double.w.sum().backward()
    assert double.w.grad is not None, "a copy (the reference) has nothing to do with it"
    del optimizer
    gc.collect()
    module.w.sum().backward()
    assert module.w.grad is not None


def test_two_optimisers_of_the_same_weights_are_an_error() -> None:
    module = weights(3)
    first, _second = AdamW().build(module), AdamW().build(module)
    with pytest.raises(RuntimeError, match="delete that one"):
        module.w.sum().backward()
    del first


# --- restart ---


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_a_saved_learner_goes_on_bit_for_bit(tmp_path, name: str) -> None:
    """As in float32 (tests/test_learner.py), by way of a checkpoint's files."""
    options = {"epochs": 2, "minibatches": 3, "beta": 0.1, "kl_target": 0.01}

    def make(seed: int) -> Learner:
        policy = Tiny(critic=True, seed=seed).to(HALF)
        policy.critic.float()  # type: ignore[union-attr]
        forward, critic = policy.critic.forward, policy.critic  # type: ignore[union-attr]
        critic.forward = lambda h: forward(h.float())  # type: ignore[union-attr]
        made = algorithm(name, **options)
        return Learner(
            policy, made, AdamW(1e-3, warmup=3, weight_decay=0.1), total=6, refresh=3, seed=seed
        )

    through = make(0)
    for seed in range(4):
        through.update(rollout(through.policy, seed))  # type: ignore[arg-type]
    checkpoint.save(through.state_dict(), tmp_path / "state")
    # every number of it must come from the state
    other = make(7)
    other.load_state_dict(checkpoint.load(tmp_path / "state"))
    for seed in range(4, 6):
        batch = rollout(through.policy, seed)  # type: ignore[arg-type]
        assert through.update(batch) == other.update(batch)
    for a, b in zip(through.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(masters(through.optimizer), masters(other.optimizer), strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype == torch.float32
    moments = [v for s in other.optimizer.state.values() for k, v in s.items() if k != "step"]
    assert moments and all(v.dtype == torch.float32 for v in moments)


# --- learning ---


def curve(policy: CausalLM, lr: float, steps: int, plain: bool = False) -> float:
    """How far the loss of held-out sums falls in so many steps."""
    learner = Learner(policy, algorithm("sft"), AdamW(lr, schedule=Constant()), total=steps)
    if plain:
        del learner.optimizer
        learner.optimizer = torch.optim.AdamW(
            policy.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.0
        )
        learner.peaks = [lr]
    test = Demonstrations(policy, Addition(), rows=100, max_length=64, split="test")().batch
    source = demonstrations(policy, rows=16)

    @torch.no_grad()
    def loss() -> float:
        return -float(policy.evaluate(test).logp[test.mask].mean())

    begin = loss()
    for _ in range(steps):
        learner.update(source().batch)
    return begin - loss()


def test_a_text_task_is_learned_as_in_float32() -> None:
    """At a rate at which bfloat16 weights of their own hardly learn."""
    base = small_policy(Addition().alphabet, width=32, layers=2, heads=2, seed=1)
    with torch.no_grad():
        for p in base.parameters():
            # weights as large as trained ones, the same for all three
            p.copy_(p.mul(4 if p.ndim > 1 else 1).to(HALF))
    ours, direct, whole = (copy.deepcopy(base).to(d) for d in (HALF, HALF, torch.float32))
    full = curve(whole, 1e-5, 40)
    assert curve(ours, 1e-5, 40) == pytest.approx(full, rel=0.05)
    assert curve(direct, 1e-5, 40, plain=True) < 0.5 * full


def test_adapters_of_a_bfloat16_model_learn() -> None:
    policy = small()
    add_lora(policy, rank=2, alpha=4)
    frozen = {n: p.detach().clone() for n, p in policy.named_parameters() if not p.requires_grad}
    learner = Learner(policy, algorithm("sft"), AdamW(1e-2))
    batch = demonstrations(policy)().batch
    losses = [learner.update(batch)["loss"] for _ in range(10)]
    assert isinstance(learner.optimizer, Masters) and losses[-1] < 0.9 * losses[0]
    assert all(torch.equal(p, frozen[n]) for n, p in policy.named_parameters() if n in frozen)


# --- what is refused, and what is told ---


def test_float16_is_for_inference() -> None:
    with pytest.raises(ValueError, match="train in bfloat16"):
        AdamW().build(weights(3, dtype=torch.float16))
    with pytest.raises(ValueError, match="use bfloat16"):
        four_bits("float16")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sft", "--dtype", "float16"], "small gradients are 0 in float16: train in bfloat16"),
        (
            ["rl", "--algorithm", "trpo", "--dtype", "bfloat16"],
            "lost in the rounding of 16-bit weights: train in float32",
        ),
    ],
)
def test_commands_say_so_in_one_line(capsys, tmp_path, words: list[str], said: str) -> None:
    CausalLM(tiny_model(), tiny_tokenizer(chat_template=None), critic=True).save(tmp_path / "m")
    assert (
        main(
            [
                *words,
                "--model",
                str(tmp_path / "m"),
                "--task",
                "addition",
                "--out",
                str(tmp_path / "run"),
            ]
        )
        != 0
    )
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and not (tmp_path / "run").exists()


def test_the_table_of_memory_counts_masters() -> None:
    half, whole = weights(2**18), weights(2**18, dtype=torch.float32)
    lines = memory([Role("half", half), Role("whole", whole)]).splitlines()
    assert [line.split()[2:4] for line in lines[1:3]] == [["0.5", "4.0"], ["1.0", "3.0"]]
