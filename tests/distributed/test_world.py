"""The world of several ranks: everybody holds the same, and a failure on one is everybody's."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from logpi.distributed import cores
from logpi.distributed.world import World, alone, current
from logpi.errors import RunError
from tests.distributed.several import on_ranks, outcomes


def _exchanges() -> dict:
    world = current()
    tensors = [torch.full((3,), float(world.rank)), torch.tensor([[1.0, 2.0]], dtype=torch.float64)]
    world.sum(tensors)
    shares = [[0, 3], [1], [2]][: world.size]
    return {
        "rank": world.rank,
        "gathered": world.gather(world.rank * 10),
        "broadcast": world.broadcast({"path": "x"} if world.first else None),
        "by_first": world.by_first(lambda: world.rank),
        "sum": [x.tolist() for x in tensors],
        "max": world.max(world.rank),
        "split": world.split(list("abcd"), lambda mine: [x.upper() for x in mine], shares),
        "channel": world.channel().gather(world.rank),
    }


def test_everybody_holds_the_same() -> None:
    for rank, result in enumerate(on_ranks(3, _exchanges)):
        assert result == {
            "rank": rank,
            "gathered": [0, 10, 20],
            "broadcast": {"path": "x"},
            "by_first": 0,
            "sum": [[3.0, 3.0, 3.0], [[3.0, 6.0]]],
            "max": 2,
            "split": ["A", "B", "C", "D"],
            "channel": [0, 1, 2],
        }


def test_alone_does_the_work_itself() -> None:
    x = torch.ones(2)
    alone.sum([x])
    assert (x == 1).all()
    assert alone.first and alone.gather(3) == [3] and alone.broadcast(4) == 4
    assert alone.split([1, 2], lambda mine: [2 * i for i in mine], [[0, 1]]) == [2, 4]
    alone.same({"anything": [1]})
    with pytest.raises(ZeroDivisionError):
        alone.each(lambda: 1 / 0)


def _one_raises() -> None:
    world = current()

    def work() -> int:
        if world.rank == 1:
            raise ValueError("no such answer")
        return 1

    world.each(work)


def test_what_one_raises_all_raise() -> None:
    texts = [text for text, _ in outcomes(2, _one_raises)]
    assert texts == ["RunError: rank 1: no such answer", "ValueError: no such answer"]


def _differ() -> str:
    world: World = current()
    world.same({"the batch": [torch.ones(2), 3]})
    with pytest.raises(RunError, match="rank 1 and rank 0 disagree about the batch"):
        world.same({"seeds": [1], "the batch": [torch.ones(2) * (1 + 1e-6 * world.rank)]})
    return "said"


def test_ranks_that_disagree_say_so() -> None:
    assert on_ranks(2, _differ) == ["said", "said"]


def _dies() -> None:
    world = current()
    world.gather(0)
    if world.rank == 1:
        import os

        os._exit(3)
    world.gather(0)


def test_a_rank_that_is_gone_is_noticed_at_once() -> None:
    start = time.perf_counter()
    first, second = outcomes(2, _dies)
    assert first[0].startswith("RunError: another rank is gone; its own message says more")
    assert second[0] == "exit code 3"
    assert time.perf_counter() - start < 60


def _hangs() -> None:
    world = current()
    world.gather(0)
    if world.rank == 1:
        time.sleep(8)
        return
    world.gather(0)


def test_a_rank_that_hangs_is_noticed_at_the_time_out() -> None:
    first, _ = outcomes(2, _hangs, LOGPI_DATA_TIMEOUT="2")
    assert first[0].startswith("RunError: another rank does not answer in time"), first


def test_a_meeting_that_never_happens_is_one_line() -> None:
    [(text, _)] = outcomes(1, current, WORLD_SIZE="2", LOGPI_WEIGHTS_TIMEOUT="2")
    assert text.startswith("RunError: the ranks cannot meet at 127.0.0.1:"), text


def test_ranks_on_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    for said, share in (("1", 8), ("3", 2), ("16", 1), ("many", 8)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", said)
        assert cores() == share


def _index(corpus: str, cache: str) -> tuple[int, list[str]]:
    from logpi.envs.tools import ranking

    made = []
    tokens = ranking.terms

    def counted(text: str) -> list[str]:
        made.append(text)
        return tokens(text)

    ranking.terms = counted
    world = current()
    world.gather(0)
    found = ranking.Corpus(corpus, cache).search(["rome"], 1)[0]
    return len(made), [document.id for document in found]


def test_an_index_is_made_once_on_a_machine(tmp_path: Path) -> None:
    rows = [{"id": "0", "contents": "Paris is in France"}, {"id": "1", "contents": "Rome in Italy"}]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = on_ranks(3, _index, str(corpus), str(tmp_path / "cache"))
    assert [ids for _, ids in results] == [["1"]] * 3
    # the query is one more text
    assert sorted(count for count, _ in results) == [1, 1, 3]


def _out_of_step() -> None:
    world = current()
    world.max(0) if world.first else world.together(lambda: None)


def test_ranks_that_do_different_things_say_so() -> None:
    for text, _ in outcomes(2, _out_of_step):
        assert text.startswith(
            "RunError: rank 0 is comparing numbers and rank 1 is ending a piece of work: every rank"
        ), text
