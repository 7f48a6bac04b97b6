"""Tools for any task: `--tools FILE.py:FUNCTION`, `logpi.RL(tools=[f])`."""

from __future__ import annotations

import asyncio
import json

import pytest

import logpi
from logpi.engine.sampling import Sampling
from logpi.envs.data import RowsTask
from logpi.envs.tasks import task as make_task
from logpi.errors import UserError
from logpi.jobs import evaluate
from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.chat import Chat
from logpi.rollouts.text_rollout import TextRollout
from tests.rollouts.test_turns import CHATML
from tests.scripted import Scripted
from tests.tiny import TEMPLATE, tiny_model, tiny_tokenizer

ROWS = [{"prompt": f"{a}+1=", "answer": str(a + 1)} for a in range(60)]
SHORT = {
    "steps": 1,
    "prompts": 2,
    "num_generations": 2,
    "max_completion_length": 6,
    "eval_items": 1,
    "beta": 0,
}
CALL = '<tool_call>{"name": "plus", "arguments": {"a": %s, "b": 1}}</tool_call>'
FILE = '''
async def plus(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b

def untold(a, b):
    return a
'''


def plus(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


async def slowly(a: int, b: int) -> int:
    """Adds two numbers."""
    await asyncio.sleep(0)
    return a + b


slowly.__name__ = "plus"


def broken(a: int, b: int) -> int:
    """Adds two numbers."""
    raise RuntimeError("no battery")


broken.__name__ = "plus"


def policy(template: str | None = CHATML, context: int = 3000) -> CausalLM:
    model = tiny_model("llama", max_position_embeddings=context)
    return CausalLM(model, tiny_tokenizer(template))


def conversations(template, tools, rows=ROWS, wrap=True, **options):
    job = logpi.RL(model="none", task=rows, tools=tools, beta=0, **options)
    return job.conversations(RowsTask(rows), policy(template), Chat(wrap=wrap))


def collected(template, tool, says, wrap=True):
    """A batch of one prompt and one row, whose turns are `says`."""
    talk = conversations(template, [tool], wrap=wrap)
    task = RowsTask(ROWS)
    rollout = TextRollout(
        talk.policy,
        Scripted(talk.policy, lambda row, turn: says[turn]),
        task,
        task.reward,
        algorithm=logpi.algorithm("reinforce"),
        prompts=1,
        num_generations=1,
        sampling=Sampling(max_tokens=2000),
        chat=talk.chat,
        conversations=talk,
    )
    return talk.policy, rollout()


@pytest.mark.parametrize(
    ("template", "wrap", "form"),
    [
        (CHATML, True, (True, True)),  # the template lists tools
        (TEMPLATE, True, (True, False)),  # it has no place for them: a system message does
        (None, False, (False, False)),  # plain text
        (CHATML, False, (False, False)),  # --no-chat
    ],
)
def test_a_tool_is_told_in_the_form_that_the_model_reads(template, wrap, form):
    talk = conversations(template, [plus], wrap=wrap)
    assert (talk.environment.chat, talk.environment.native) == form
    asked = talk.policy.tokenizer.decode(talk.prompt(ROWS[2]))
    assert "Adds two numbers." in asked and "2+1=" in asked


@pytest.mark.parametrize("tool", [plus, slowly])
@pytest.mark.parametrize(("template", "wrap"), [(CHATML, True), (TEMPLATE, True), (None, False)])
def test_results_are_read_and_never_trained(template, wrap, tool):
    said = [CALL % 40, "41"]
    policy, batch = collected(template, tool, said, wrap)
    row = batch.batch
    own = policy.tokenizer.decode(row.action[0][row.mask[0]])
    assert own == f"{said[0]}<eos>41<eos>"
    after = policy.tokenizer.decode(row.action[0]).split(said[0])[1]
    assert after.count("41") == 2, "the result stands in the context, then the answer"
    assert batch.metrics["tools/calls"] == 1 and batch.metrics["tools/errors"] == 0


def test_a_benchmark_that_is_a_test_alone_takes_tools(tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_text('{"problem": "1+1", "answer": "2"}\n')
    task = make_task(f"math500:{file}")
    job = evaluate.Evaluate(model="none", task=f"math500:{file}", tools=[plus])
    talk = job.conversations(task, policy(None), Chat(wrap=False))
    assert talk is not None and talk.environment.chat is False


def test_an_error_of_the_function_is_what_the_model_reads():
    policy, batch = collected(CHATML, broken, [CALL % 40, "41"])
    assert "Error: RuntimeError: no battery" in policy.tokenizer.decode(batch.batch.action[0])
    assert batch.metrics["tools/errors/failed"] == 1
    policy, batch = collected(CHATML, plus, [CALL % '"x"', "41"])
    text = policy.tokenizer.decode(batch.batch.action[0])
    assert "'a' must be of type integer" in text and batch.metrics["tools/errors/arguments"] == 1


def test_the_turn_limit_ends_a_model_that_only_calls():
    talk = conversations(CHATML, [plus], max_turns=2)
    assert talk.limits.turns == 2
    _, batch = collected(CHATML, plus, [CALL % 1] * 8)
    assert batch.metrics["turns/mean"] == 8 and batch.metrics["stopped/turns"] == 1


def test_what_cannot_be_a_tool_is_one_line(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    with pytest.raises(UserError, match="untold.*docstring|docstring.*untold"):
        logpi.RL(model=policy(), task=ROWS, tools=[f"{file}:untold"], **SHORT).run()
    with pytest.raises(UserError, match="has no 'plu'.*plus"):
        logpi.RL(model=policy(), task=ROWS, tools=[f"{file}:plu"], **SHORT).run()
    with pytest.raises(UserError, match="facts has an environment.*leave tools out"):
        logpi.RL(model=policy(), task="facts", tools=[plus], **SHORT).run()
    with pytest.raises(UserError, match="no two of one name"):
        logpi.RL(model=policy(), task=ROWS, tools=[plus, slowly], **SHORT).run()


def test_rl_and_eval_take_functions_and_words(tmp_path, monkeypatch):
    file, model = tmp_path / "mine.py", tmp_path / "model"
    file.write_text(FILE)
    policy().save(model)
    monkeypatch.chdir(tmp_path)
    result = logpi.RL(model=policy(), task=ROWS, tools=[plus], out=tmp_path / "run", **SHORT).run()
    assert "tools/calls" in result.metrics
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    words = f"--model {model} --task rows:{rows} --tools {file}:plus --samples 1"
    words += f" --max-completion-length 4 --items 2 --out {tmp_path / 'eval'}"
    assert evaluate.main(words.split()) == 0
    record = json.loads((tmp_path / "eval" / "responses.jsonl").read_text().splitlines()[0])
    assert "conversations" in record
    # what the model was given, and not the bare prompt alone
    assert record["prompt"] in record["read"] and record["read"] != record["prompt"]
