"""What recipes share: a demonstration's untrained model, which a kill must not leave half; on which
device a job runs."""

import json
from pathlib import Path

import pytest
import torch

from logpi.demos.chain import base_model
from logpi.distributed.threads import NUMBER, OURS
from logpi.errors import UserError
from logpi.jobs import common
from logpi.jobs.common import opened, settle_threads
from logpi.jobs.options.run import RunArguments, read
from logpi.jobs.options.saved import to_json
from logpi.jobs.rl import RL
from logpi.policies.loading import place
from logpi.runs.directory import Run


def test_a_base_model_is_there_whole_or_not_at_all_and_is_made_once(tmp_path):
    made = []

    class Model:
        def __init__(self, dies: bool) -> None:
            made.append(dies)
            self.dies = dies

        def save(self, directory: Path) -> None:
            (directory / "config.json").write_text("{}")  # what `transformers` writes first
            if self.dies:
                raise KeyboardInterrupt
            (directory / "tokenizer.json").write_text("{}")

    path = tmp_path / "run" / "base"
    with pytest.raises(KeyboardInterrupt):
        base_model(path, lambda: Model(dies=True))  # type: ignore[arg-type]
    assert not path.exists()
    for _ in range(2):
        assert base_model(path, lambda: Model(dies=False)) == path  # type: ignore[arg-type]
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "tokenizer.json"] and made == [
        True,
        False,
    ]


def test_a_device_is_found_or_refused_in_one_line(monkeypatch):
    assert place("cpu") == torch.device("cpu")
    for name in ("gpu", "mps", "meta"):
        with pytest.raises(
            ValueError, match=rf"unknown device '{name}': cpu, cuda, cuda:1, … or auto"
        ):
            place(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert place("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match=r"no CUDA device here: .*; --device cpu does without"):
            place(name)
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert (
        [place("auto"), place("cuda:1")] == chosen == [torch.device("cuda"), torch.device("cuda:1")]
    )
    with pytest.raises(ValueError, match=r"no device cuda:2 here: there are cuda:0, cuda:1"):
        place("cuda:2")


def test_a_run_goes_on_where_it_was_or_where_it_is_told_to(tmp_path):
    from logpi.jobs.options.saved import to_json
    from logpi.jobs.rl import RL

    def resumed(*words: str, **saved: str) -> RL:
        arguments = to_json(RL(model="m", steps=7)) | saved
        if saved.get("device") == "":  # a run older than the option
            del arguments["device"]
        (tmp_path / "arguments.json").write_text(
            json.dumps({"command": "rl", "arguments": arguments})
        )
        return read(RL, ["--resume", str(tmp_path), *words], "rl", "")

    assert (
        resumed().device == "auto"
        and resumed(device="cuda").device == "cuda"
        and resumed().steps == 7
    )
    assert resumed(device="").device == "cpu"
    moved = resumed("--device=cpu", device="cuda:1")
    assert moved.device == "cpu"
    with opened(moved, "rl") as run:
        run.rewind(0)
    assert (
        read(RL, [f"--resume={tmp_path}"], "rl", "").device == "cpu"
    )  # once it goes on, it stays there
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        resumed("--device", "gpu", device="cuda")
    assert read(RL, [f"--resume={tmp_path}"], "rl", "").device == "cuda"
    for words, fixed in (
        (["--seed", "1"], "--seed"),
        (["--device", "cpu", "--lr=1"], "--lr"),
        (["--repeat", "x"], "--repeat"),
    ):
        with pytest.raises(
            UserError,
            match=(
                rf"{fixed} cannot change. --resume takes nothing else but .*--save-every, .*--steps"
            ),
        ):
            resumed(*words)
    for words in (["--device"], ["--device", "cpu", "more"], ["--sed", "1"]):
        with pytest.raises(SystemExit):
            resumed(*words)


def test_a_resumed_run_may_lack_the_gpus_that_it_had():
    from logpi.runs.rng import load_rng_state, rng_state

    load_rng_state(rng_state() | {"cuda": [torch.get_rng_state()]})


@pytest.mark.parametrize("command", ["demo", "preferences", "tools", "r1"])
def test_a_device_that_is_not_there_leaves_nothing_behind(command, tmp_path):
    from importlib import import_module

    words = ["search"] if command == "tools" else []
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        import_module(f"logpi.demos.{command}").main(
            [*words, "--device", "gpu", "--out", str(tmp_path / "x")]
        )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "algorithm,cause", [("nope", "unknown algorithm"), ("sft", "learns from given data")]
)
def test_the_demo_knows_its_algorithm_before_it_begins(algorithm, cause, tmp_path):
    from logpi.demos.demo import main

    with pytest.raises(UserError, match=cause):
        main(["--algorithm", algorithm, "--out", str(tmp_path / "x")])
    assert not (tmp_path / "x").exists()


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A run that began with three threads, on a machine where nobody chose and two would do."""
    arguments = to_json(RL(model="m", task="addition", out=tmp_path / "run"))
    with Run.create(tmp_path / "run", "rl", arguments) as run:
        (run.path / "versions.json").write_text('{"threads": 3}')
    for name in (*NUMBER, OURS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(common, "cores", lambda: 2)
    common._say.cache_clear()
    before = torch.get_num_threads()
    yield run.path
    torch.set_num_threads(before)


def test_a_resumed_run_computes_with_as_many_threads_as_it_began_with(begun, capsys, monkeypatch):
    settle_threads(RunArguments(resume=begun))
    assert torch.get_num_threads() == 3
    said = capsys.readouterr().err
    assert said.startswith(
        "this run began with 3 threads and goes on with them, for the same bits;"
    )
    assert "--threads 2 (the same up to rounding)" in said
    # once in a process
    settle_threads(RunArguments(resume=begun))
    assert not capsys.readouterr().err
    settle_threads(RunArguments(resume=begun, threads=1))
    assert torch.get_num_threads() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settle_threads(RunArguments(resume=begun))
    assert torch.get_num_threads() == 1
    # what logpi chose itself is no wish
    monkeypatch.setenv(OURS, "OMP_NUM_THREADS|2 cores, others keep 1.0 busy")
    settle_threads(RunArguments(resume=begun))
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(
    "text", ["", "[]", '{"threads": "3"}', '{"threads": 0}', '{"threads": 1e9}']
)
def test_a_run_that_says_no_number_of_threads_changes_none(begun, text):
    before = torch.get_num_threads()
    (begun / "versions.json").write_text(text)
    settle_threads(RunArguments(resume=begun))
    assert torch.get_num_threads() == before


def test_a_repeated_run_has_its_number_of_threads_too(begun, monkeypatch):
    words = ["--repeat", str(begun), "--trust"]
    assert read(RL, words, "rl", "").threads == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert read(RL, words, "rl", "").threads is None
