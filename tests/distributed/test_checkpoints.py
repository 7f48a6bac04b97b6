"""Checkpoints of several ranks: any number reads what any other wrote, damage and a failing disk
are everybody's, and there is no pickle."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from logpi.algorithms import algorithm
from logpi.distributed.parts import local, norm
from logpi.distributed.sharding import full_state, mesh_of
from logpi.distributed.world import current, is_sharded
from logpi.errors import RunError
from logpi.learner import Learner
from logpi.policies.causal_lm import CausalLM
from logpi.runs.checkpoint import Damaged, load, save
from logpi.runs.history import History
from logpi.updates.adamw import AdamW
from logpi.updates.masters import Masters
from tests.distributed.several import on_ranks
from tests.distributed.test_sharding import _loss
from tests.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("checkpoints")
    CausalLM(tiny_model("qwen2"), tiny_tokenizer()).save(home / "model")
    return home


def learner(home: Path, shard: str | None, dtype: str = "float32") -> Learner:
    torch.manual_seed(0)
    policy = CausalLM.load(home / "model", critic=True, shard=shard, dtype=dtype)
    return Learner(policy, algorithm("ppo", beta=0.0), AdamW(1e-3, eps=1e-4), total=6)


def steps(learns: Learner, until: int) -> None:
    """Updates by hand, each on rows of its own, shared out over the ranks."""
    world = current()
    while learns.updates < until:
        rows = torch.arange(20).roll(learns.updates * 3)[:16]
        learns.optimizer.zero_grad()
        _loss(learns.policy, "ppo", rows[world.rank :: world.size]).backward()
        grads = [p.grad for p in learns.policy.parameters() if p.grad is not None]
        world.sum([g for g in grads if not is_sharded(g)])
        factor = min(1.0, 1.0 / norm(grads))
        for g in grads:
            local(g).mul_(factor)
        learns.optimizer.step()
        learns.updates += 1


def weights(learns: Learner) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in full_state(learns.policy).items()}


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert set(a) == set(b)
    return max((float((a[k].float() - b[k].float()).abs().max()) for k in a), default=0.0)


def _two_ranks(home: Path) -> dict[str, Any]:
    """Goes on with one rank's checkpoint; and goes on itself, in memory and from its own."""
    world = current()
    assert not [p for p in home.rglob("*.partial")]
    learns = learner(home, "2")
    learns.load_state_dict(load(home / "one", 2, mesh_of(learns.policy)))
    steps(learns, 4)
    save(learns.state_dict(), home / "two", {"step": 4})
    steps(learns, 6)
    in_memory = weights(learns)

    again = learner(home, "1x2")  # read on another mesh than it was written on
    again.load_state_dict(load(home / "two", 4, mesh_of(again.policy)))
    replicas = weights(again)
    again = learner(home, "2")
    again.load_state_dict(load(home / "two", 4, mesh_of(again.policy)))
    on_disk = weights(again)
    steps(again, 6)
    whole = learner(home, None)
    whole.load_state_dict(load(home / "two", 4))
    first = world.first
    return {
        "bits": apart(in_memory, weights(again)),
        "replicas": apart(on_disk, replicas),
        "whole": apart(on_disk, whole.policy.state_dict() if first else {}),
        "end": {k: v.tolist() for k, v in in_memory.items()},
    }


def test_one_rank_two_ranks_one_rank(home: Path) -> None:
    throughout = learner(home, None)
    steps(throughout, 6)
    learns = learner(home, None)
    steps(learns, 2)
    save(learns.state_dict(), home / "one", {"step": 2})
    assert {p.name for p in (home / "one").iterdir()} == {
        "state.json",
        "state.safetensors",
        "manifest.json",
    }
    two, _ = on_ranks(2, _two_ranks, home)
    assert two["bits"] == two["replicas"] == two["whole"] == 0.0
    last = learner(home, None)
    last.load_state_dict(load(home / "two", 4))
    steps(last, 6)
    assert apart(weights(last), weights(throughout)) < 1e-6
    end = {k: torch.tensor(v) for k, v in two["end"].items()}
    assert apart(end, weights(throughout)) < 1e-6

    files = [p for p in (home / "two").rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".json", ".safetensors"}
    names = {str(p.relative_to(home / "two")) for p in files} - {"manifest.json"}
    manifest = json.loads((home / "two/manifest.json").read_text())
    assert set(manifest) == names | {"about", "shards"} and len(names) == 4
    state = json.loads((home / "two/state.json").read_text())
    tied = [state["policy"][f"model.{x}.weight"] for x in ("model.embed_tokens", "lm_head")]
    assert tied[0] == tied[1] == {"$shard": "policy.model.model.embed_tokens.weight"}


def _halves(home: Path) -> float:
    """bfloat16 whole, with masters, goes on in shards of 32 bits."""
    learns = learner(home, "2", "bfloat16")
    state = load(home / "masters", mesh=mesh_of(learns.policy))
    learns.load_state_dict(state)
    save(learns.state_dict(), home / "shards")
    if not current().first:
        return 0.0
    trained = [p for g in learns.optimizer.param_groups for p in g["params"]]
    return float(sum(local(p).double().sum() for p in trained))


def test_masters_are_the_shards_of_16_bits(home: Path) -> None:
    learns = learner(home, None, "bfloat16")
    assert isinstance(learns.optimizer, Masters)
    steps(learns, 2)
    save(learns.state_dict(), home / "masters")
    on_ranks(2, _halves, home)
    again = learner(home, None, "bfloat16")
    again.load_state_dict(load(home / "shards"))
    assert isinstance(again.optimizer, Masters)
    for (p, m), (q, n) in zip(again.optimizer.pairs, learns.optimizer.pairs, strict=True):
        assert torch.equal(p, q) and torch.equal(m, n)
    steps(again, 3)
    steps(learns, 3)
    assert apart(weights(again), weights(learns)) == 0.0


def _tensors(home: Path) -> None:
    """Tensors with fewer rows than ranks, of other precisions, empty, and in two places."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    world = current()
    mesh = init_device_mesh("cpu", (world.size,))
    there = {
        "row": torch.arange(3.0)[None],
        "odd": torch.arange(15).view(5, 3),
        "half": torch.arange(8).bfloat16(),
        "one": torch.ones(1, dtype=torch.float64),
    }
    parts = {k: distribute_tensor(v, mesh, [Shard(0)]) for k, v in there.items()}
    state = {**parts, "again": parts["odd"], "number": 3, "plain": torch.arange(4)}
    save(state, home / "tensors")
    back = load(home / "tensors", mesh=mesh)
    for name, x in parts.items():
        assert torch.equal(local(back[name]), local(x)) and back[name].dtype == x.dtype
    assert back["again"] is back["odd"] and back["number"] == 3 and len(back["plain"]) == 4


def _refusals(home: Path) -> list[str]:
    """What each rank says of a damaged shard, and of a disk that fails on either rank."""
    world = current()
    _tensors(home)
    said = []
    state = load(home / "tensors", mesh=None)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (world.size,))
    history = History(home / "run")
    big = {"x": distribute_tensor(torch.zeros(20_000), mesh, [Shard(0)])}
    for step in (1, 2):
        save(big | {"step": step}, history.directory(step), {"step": step})
    for unlucky in (0, 1):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        if world.rank == unlucky:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(RunError) as error:
            save(big, history.directory(2), then="mend it")
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        said.append(str(error.value))
    assert load(history.directory(2), 2)["step"] == 2
    if world.first:
        file = next((history.directory(2) / "shards").glob("shard-00002-*"))
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    world.gather(None)
    with pytest.raises(Damaged) as damaged:
        load(history.directory(2))
    said.append(str(damaged.value))
    found = history.newest(mesh)
    assert found is not None and found[0] == 1 and found[1]["step"] == 1
    assert [p.name for p in history.named()] == ["step-000001"] and state["number"] == 3
    return said


def test_damage_and_a_failing_disk_are_everybody_s(home: Path) -> None:
    first, second = on_ranks(2, _refusals, home)
    for lines in (first, second):
        assert "File too large" in lines[0] and "File too large" in lines[1], lines
        assert "is damaged: shards/shard-00002-model-00001-of-00001.safetensors" in lines[2]
        assert not any("\n" in line for line in lines)
    state = load(home / "tensors")
    assert state["row"].tolist() == [[0.0, 1.0, 2.0]] and state["odd"].shape == (5, 3)
    assert state["again"] is state["odd"] and state["one"].dtype == torch.float64
