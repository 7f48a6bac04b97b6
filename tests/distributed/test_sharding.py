"""Weights in shards: the same gradient, the same step, the same tokens, the same files as whole."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from logpi.algorithms import algorithm
from logpi.distributed.parts import local, norm
from logpi.distributed.sharding import Shard, full_state, mesh_of, reshard, sharded, whole
from logpi.distributed.world import current, is_sharded
from logpi.engine.engine import Engine
from logpi.engine.sampling import Request, Sampling
from logpi.errors import RunError, UserError
from logpi.learner import Learner
from logpi.policies.causal_lm import CausalLM
from logpi.policies.lora import Merging, add_lora
from logpi.policies.reward_model import RewardModel, WithCritic
from logpi.types import Batch, PolicyOutput
from logpi.updates.adamw import AdamW
from logpi.updates.micro_batches import evaluate
from tests.distributed.several import on_ranks
from tests.tiny import VOCABULARY, tiny_model, tiny_tokenizer

KINDS = ("llama", "qwen2", "gemma2")  # qwen2 has tied embeddings, gemma2 a cap on its logits


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        CausalLM(tiny_model(kind), tiny_tokenizer()).save(home / kind)
    return home


def ragged(groups: int = 5, size: int = 4) -> Batch:
    """Groups of very different lengths, with an idle group, a dead row and a tool's gaps."""
    g = torch.Generator().manual_seed(1)
    draw = lambda low, high: int(torch.randint(low, high, (), generator=g))  # noqa: E731
    lengths = [(draw(3, 9), draw(2, 6 + 8 * (i // size % 3))) for i in range(groups * size)]
    width = max(p + n for p, n in lengths) - 1
    rows = len(lengths)
    obs = torch.randint(3, VOCABULARY, (rows, width + 1), generator=g)
    mask, reward = torch.zeros(rows, width, dtype=torch.bool), torch.zeros(rows, width)
    for i, (p, n) in enumerate(lengths):
        obs[i, :p] = obs[i - i % size, :p]
        mask[i, p - 1 : p + n - 1] = True
        if n > 6:
            mask[i, p + 1 : p + 3] = False
        reward[i, p + n - 2] = 1.0 if i // size == 2 else float(draw(0, 2))
    mask[5] = False
    group = torch.arange(rows) // size
    ended = torch.rand(rows, generator=g) < 0.7
    blank = torch.zeros(rows, width)
    baseline = torch.rand(rows, generator=g)
    return Batch(obs, obs[:, 1:].clone(), mask, reward, ended, group, blank, baseline=baseline)


def _loss(policy, method: str, mine: torch.Tensor | None = None) -> torch.Tensor:
    """The objective's loss of some rows of a batch that was prepared whole."""
    objective, batch = algorithm(method).objective, ragged()
    now = evaluate(policy, batch, None)
    reference = PolicyOutput(now.logp - 0.1 * batch.mask, now.entropy)
    targets = objective.prepare(batch, now, reference)
    weight = objective.weight(batch.mask, batch.group)
    rows = torch.arange(len(batch)) if mine is None else mine
    some = batch.rows(rows)
    width = some.mask.shape[1]
    known = targets.rows(rows, width)
    return objective.loss(some, known, weight[rows, :width], policy.evaluate(some))[0]


def _filled(policy):
    """A value head and adapters of numbers, since both begin with zeros."""
    g = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in policy.named_parameters():
            if "value_head.weight" in name or "lora_B" in name or "score" in name:
                p.copy_(torch.randn(p.shape, generator=g) * 0.1)
    return policy


def _made(path: Path, case: dict, shard: str | None) -> Any:
    options = {k: v for k, v in case.items() if k not in ("kind", "method", "shard", "lora", "own")}
    torch.manual_seed(3)
    policy = CausalLM.load(path / case["kind"], shard=shard, temperature=0.9, **options)
    if case.get("lora"):
        add_lora(policy, 4)
    if case.get("own"):
        policy = WithCritic(policy, RewardModel.load(path / case["kind"], shard=shard))
    return _filled(policy)


CASES = {
    "llama": dict(kind="llama"),
    "tied": dict(kind="qwen2"),
    "capped, in chunks": dict(kind="gemma2", chunk=200),
    "in chunks": dict(kind="llama", chunk=200),
    "checkpointing, tied": dict(kind="qwen2", gradient_checkpointing=True),
    "value head": dict(kind="llama", method="ppo", critic=True),
    "value head, tied": dict(kind="qwen2", method="ppo", critic=True),
    "critic of its own": dict(kind="llama", method="ppo", own=True),
    "LoRA": dict(kind="llama", lora=True),
    "LoRA, checkpointing, critic": dict(
        kind="qwen2", lora=True, gradient_checkpointing=True, method="ppo", critic=True
    ),
    "2x1": dict(kind="llama", shard="2x1"),
    "1x2": dict(kind="qwen2", shard="1x2"),
}


def _gradients(policy) -> dict[str, torch.Tensor]:
    """By name, added up over the ranks and whole."""
    grads = {n: p.grad for n, p in policy.named_parameters() if p.grad is not None}
    current().sum([g for g in grads.values() if not is_sharded(g)])
    return {n: g.full_tensor() if is_sharded(g) else g for n, g in grads.items()}


def _differences(path: Path, cases: dict[str, dict]) -> dict[str, tuple[float, float]]:
    """By case the largest difference of a gradient, relative to the largest, and that of its
    norm."""
    world = current()
    # the first rank has more rows, and others
    mine = torch.arange(20).tensor_split([14 - world.size, 17, 18][: world.size - 1])[world.rank]
    out = {}
    for name, case in cases.items():
        method = case.get("method", "reinforce_plus_plus")
        one, policy = _made(path, case, None), _made(path, case, case.get("shard", "2"))
        assert sharded(policy) and mesh_of(policy) is not None and not sharded(one)
        _loss(one, method).backward()
        _loss(policy, method, mine).backward()
        expected = {n: p.grad for n, p in one.named_parameters() if p.grad is not None}
        found = _gradients(policy)
        assert set(found) == set(expected)
        top = max(float(g.abs().max()) for g in expected.values())
        worst = max(float((found[n] - g).abs().max()) for n, g in expected.items()) / top
        size = norm(list(expected.values()))
        summed = norm([p.grad for p in policy.parameters() if p.grad is not None])
        out[name] = worst, abs(summed / size - 1)
    return out


def test_the_gradient_is_that_of_one_process(models: Path) -> None:
    _check(on_ranks(2, _differences, models, CASES))


def test_shards_with_replicas(models: Path) -> None:
    # peft takes such layers for those of tensor parallelism
    _check(on_ranks(4, _differences, models, {"LoRA": CASES["LoRA"] | {"shard": "2x2"}}))


def _check(ranks: list[dict[str, tuple[float, float]]]) -> None:
    for name, (gradient, size) in ranks[0].items():
        assert gradient <= 1e-5, (name, ranks[0])
        assert size <= 1e-5, (name, ranks[0])
    for others in ranks[1:]:
        assert {n: x[1] for n, x in others.items()} == {n: x[1] for n, x in ranks[0].items()}


def _steps(path: Path) -> dict[str, float]:
    """A step of AdamW on shards and whole: how far weights are apart, and how many stayed."""
    out = {}
    for case in ("tied", "value head", "LoRA, checkpointing, critic"):
        one, policy = (_made(path, CASES[case], shard) for shard in (None, "2"))
        before = {n: x.clone() for n, x in full_state(policy).items()}
        optimizers = []
        for p in (one, policy):
            # what is whole after a forward without backward would not be the model's (trap)
            evaluate(p, ragged(), None)
            optimizers.append(AdamW(1e-3, eps=1e-3).build(p))
        method = CASES[case].get("method", "reinforce_plus_plus")
        _loss(one, method).backward()
        mine = torch.arange(12) if current().first else torch.arange(12, 20)
        _loss(policy, method, mine).backward()
        current().sum(
            [p.grad for p in policy.parameters() if p.grad is not None and not is_sharded(p)]
        )
        for optimizer in optimizers:
            optimizer.step()
        learning = {id(p) for p in policy.parameters() if p.requires_grad}
        assert {id(p) for g in optimizers[1].param_groups for p in g["params"]} == learning
        after, expected = full_state(policy), one.state_dict()
        assert set(after) == (set(expected) if current().first else set())
        for name, value in after.items():
            moved = float((value - before[name]).abs().max())
            assert moved > 0, f"{name} stayed"
            key = f"{case}: {name}"
            out[key] = float((value - expected[name]).abs().max())
    return out


def test_a_step_moves_every_weight_as_in_one_process(models: Path) -> None:
    first, _ = on_ranks(2, _steps, models)
    # of steps of 1e-3
    assert max(first.values()) < 1e-6, {k: v for k, v in first.items() if v >= 1e-6}


def _trap(path: Path) -> None:
    policy = _made(path, CASES["llama"], "2")
    policy.model.lm_head.set_reshard_after_forward(False)
    with torch.no_grad():
        policy.evaluate(ragged())
    assert not is_sharded(policy.model.lm_head.weight)
    reshard(policy)
    assert all(map(is_sharded, policy.parameters()))


def _files(path: Path, out: Path) -> None:
    """Sharded policies write what whole ones write."""
    for name, case in {
        "tied": CASES["tied"],
        "head": CASES["value head"],
        "lora": CASES["LoRA"],
        "bfloat16": dict(kind="llama", dtype="bfloat16"),
    }.items():
        one, policy = _made(path, case, None), _made(path, case, "2")
        for p, place in ((one, out / f"{name}-one"), (policy, out / f"{name}-two")):
            saver = Merging(p) if case.get("lora") else p
            saver.save(place)
        if current().first:
            _same_files(out / f"{name}-one", out / f"{name}-two")
    reward, chance = RewardModel.load(path / "llama"), torch.get_rng_state()
    two = RewardModel.load(path / "llama", shard="2")
    assert torch.equal(torch.get_rng_state(), chance)
    for p, place in ((reward, out / "reward-one"), (two, out / "reward-two")):
        _filled(p).save(place)
    if current().first:
        _same_files(out / "reward-one", out / "reward-two")
    rows = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
    again = RewardModel.load(current().broadcast(out / "reward-two"), trained=True, shard="2")
    torch.testing.assert_close(again.scores(rows), reward.scores(rows))


def _same_files(one: Path, two: Path) -> None:
    names = [{str(p.relative_to(d)) for p in d.rglob("*") if p.is_file()} for d in (one, two)]
    assert names[0] == names[1]
    for name in names[0]:
        a, b = one / name, two / name
        if name.endswith(".safetensors"):
            for key, x in load_file(a).items():
                torch.testing.assert_close(load_file(b)[key], x, msg=f"{b}: {key}")
            assert set(load_file(a)) == set(load_file(b))
        else:
            assert a.read_text() == b.read_text(), b


def _samples(path: Path) -> None:
    """While weights are whole ranks may sample different things, and sample what one would."""
    requests = [Request([5, 6, 7], 3), Request([9, 8], 1), Request([4], 2)]
    for kind in ("llama", "qwen2", "gemma2"):
        one, policy = (CausalLM.load(path / kind, shard=s) for s in (None, "2"))
        mine = requests if current().first else requests[:1]
        texts = []
        for p in (one, policy):
            with whole(p):
                texts.append(
                    Engine(p).generate(
                        mine, Sampling(max_tokens=12), torch.Generator().manual_seed(1)
                    )
                )
        tokens = [[[c.tokens.tolist() for c in row] for row in text] for text in texts]
        assert tokens[0] == tokens[1]
        assert all(map(is_sharded, policy.parameters()))
        _loss(policy, "reinforce_plus_plus").backward()


def _copies(path: Path) -> None:
    """A sharded policy can be copied; a loaded model can be cut; bfloat16 computes as whole."""
    policy, batch = _made(path, CASES["value head, tied"], "2"), ragged()
    reference = copy.deepcopy(policy)
    before = evaluate(policy, batch, None)
    torch.testing.assert_close(evaluate(reference, batch, None).value, before.value)
    with torch.no_grad():
        for p in policy.parameters():
            local(p).mul_(1.5)
    assert float((evaluate(policy, batch, None).logp - before.logp).abs().max()) > 0.1
    torch.testing.assert_close(evaluate(reference, batch, None).logp, before.logp)

    cut = CausalLM.load(tiny_model("qwen2"), tokenizer=tiny_tokenizer(), shard="2")
    one = CausalLM.load(path / "qwen2")
    assert sharded(cut)
    torch.testing.assert_close(evaluate(cut, batch, None).logp, evaluate(one, batch, None).logp)
    with pytest.raises(RunError, match="disagree about the model's weights"):
        model = tiny_model(seed=current().rank)
        CausalLM.load(model, tokenizer=tiny_tokenizer(), shard="2")

    half, whole_half = (
        CausalLM.load(path / "llama", dtype="bfloat16", shard=s) for s in ("2", None)
    )
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    a, b = (evaluate(p, batch, None).logp for p in (half, whole_half))
    torch.testing.assert_close(a, b, rtol=0, atol=0.05)
    assert type(AdamW(1e-3).build(half)) is torch.optim.AdamW
    _loss(half, "reinforce_plus_plus").backward()
    grads = [p.grad for p in half.parameters()]
    assert all(g is not None and g.dtype == torch.float32 for g in grads)


def _everything_else(path: Path, out: Path) -> None:
    for work in (_trap, _samples, _copies):
        work(path)
    _files(path, out)


def test_files_samples_copies(models: Path, tmp_path: Path) -> None:
    on_ranks(2, _everything_else, models, tmp_path)


def test_bad_input_is_one_line(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    assert not Shard.parse("auto") and not Shard.parse(None) and not Shard.parse("none")
    with pytest.raises(UserError, match="--shard 4 is for 4 ranks and there are 1"):
        Shard.parse("4")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert Shard.parse("4x2") == Shard(4, 2) and not Shard.parse("auto")
    for word in ("x", "0", "2x", "4x0", "-1", "2x2x2"):
        with pytest.raises(UserError, match="--shard is auto, none, N or NxM"):
            Shard.parse(word)
    with pytest.raises(UserError, match="--shard 4x3 is for 12 ranks and there are 8"):
        Shard.parse("4x3")
    with pytest.raises(ValueError, match="neither GGUF files nor 4 bits go with --shard"):
        CausalLM.load(models / "llama", four_bit=True, shard="8")
    home = lambda: torch.device("cuda")  # noqa: E731
    monkeypatch.setattr(torch.accelerator, "current_accelerator", home)
    with pytest.raises(ValueError, match="--shard puts weights on the cuda of each rank"):
        CausalLM.load(models / "llama", device="cpu", shard="8")
    with pytest.raises(ValueError, match="this CausalLM is whole: load its path with shard"):
        CausalLM.load(CausalLM(tiny_model(), tiny_tokenizer()), shard="8")


def test_auto_shards_what_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    device = SimpleNamespace(total_memory=80 * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    auto = Shard.parse("auto", offload=True)
    # 16 bytes · 3e9 = 60 % of 80 GB
    assert auto.for_model(3 * 10**9) == Shard()
    assert auto.for_model(3 * 10**9 + 1) == Shard(8, offload=True)
    assert Shard(4, 2).for_model(1) == Shard(4, 2)


def _updates(path: Path) -> float:
    """Three updates by the learner itself, with a reference, whole and in shards."""
    ends = []
    for shard in (None, "2"):
        policy = CausalLM.load(path / "qwen2", shard=shard)
        learner = Learner(policy, algorithm("grpo"), AdamW(1e-3, eps=1e-4), total=3)
        for _ in range(3):
            batch = ragged()
            logp = evaluate(policy, batch, 60).logp
            learner.update(replace(batch, logp=torch.where(batch.mask, logp, 0.0)))
        ends.append(full_state(policy))
    return max((float((x - ends[1][n]).abs().max()) for n, x in ends[0].items()), default=0.0)


def test_the_learner_learns_in_shards(models: Path) -> None:
    assert on_ranks(2, _updates, models)[0] < 1e-6
