"""Environments of verifiers, played with the package itself: what it scores is our reward, to the
bit, and what it says is what the policy reads.

Run: python -m pytest -q tests/envs/packages/test_verifiers.py (needs `pip install verifiers`)
"""

from __future__ import annotations

import asyncio
import sys
import textwrap
from dataclasses import asdict

import pytest

import logpi
from logpi.engine.sampling import Sampling
from logpi.envs.tasks import task
from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.chat import Chat
from logpi.rollouts.text_rollout import TextRollout
from logpi.rollouts.tool_conversations import ToolConversations
from logpi.rollouts.turns import TurnLimits
from tests.rollouts.test_turns import CHATML
from tests.scripted import Scripted
from tests.tiny import tiny_model, tiny_tokenizer

vf = pytest.importorskip("verifiers.v1", reason="needs the package verifiers")

ECHO = """
import verifiers.v1 as vf

class Data(vf.TaskData):
    answer: str

class EchoTask(vf.Task[Data]):
    @vf.reward(weight=2.0)
    async def right(self, trace) -> float:
        return float(trace.last_reply == self.data.answer)

    @vf.reward(weight=-0.25)
    async def length(self, trace) -> float:
        return len(trace.last_reply) / 4

    @vf.reward
    async def several(self, trace) -> dict:
        return {"vowels": sum(c in "aeiou" for c in trace.last_reply), "one": 1.0}

    @vf.metric
    async def turns(self, trace) -> float:
        return float(trace.num_turns)

class EchoTaskset(vf.Taskset[EchoTask, vf.TasksetConfig]):
    def load(self):
        return [EchoTask(Data(prompt=f"say {w}", system_prompt="Echo.", answer=w), self.config.task)
                for w in ("ada", "bob", "eve", "kim", "lou", "max", "ned", "oto", "pia", "ron")]

__all__ = ["EchoTaskset"]
"""
ASKING = """
import verifiers.v1 as vf

class AskTask(vf.Task):
    @vf.stop
    async def enough(self, trace: vf.Trace) -> bool:
        return trace.num_turns >= 3

    @vf.reward
    async def answered(self, trace) -> float:
        return float(len(trace.assistant_messages))

class AskEnv(vf.SingleAgentEnv):
    async def run(self, task, agents):
        async with agents.agent.interaction(task) as talk:
            for question in ("who", "where", "when", "why"):
                if (await talk.turn(f"{task.data.name}: {question}?")).terminated:
                    break

class AskTaskset(vf.Taskset[AskTask, vf.TasksetConfig]):
    INFINITE = True
    def load(self):
        i = 0
        while True:
            yield AskTask(vf.TaskData(name=f"n{i}"), self.config.task)
            i += 1

__all__ = ["AskEnv", "AskTaskset"]
"""
SHELL = """
import verifiers.v1 as vf

class ShellTask(vf.Task):
    @vf.reward
    async def ran(self, trace, runtime: vf.Runtime) -> float:
        return float((await runtime.run(["echo", "ok"], {})).stdout == "ok\\n")

class ShellTaskset(vf.Taskset[ShellTask, vf.TasksetConfig]):
    def load(self):
        return [ShellTask(vf.TaskData(prompt=f"p{i}"), self.config.task) for i in range(20)]

__all__ = ["ShellTaskset"]
"""
TWO = """
import verifiers.v1 as vf

class TwoConfig(vf.EnvConfig):
    left: vf.AgentConfig = vf.AgentConfig()
    right: vf.AgentConfig = vf.AgentConfig()

class TwoEnv(vf.Env[TwoConfig]):
    async def run(self, task, agents): ...

class TwoTaskset(vf.Taskset[vf.Task, vf.TasksetConfig]):
    def load(self):
        return [vf.Task(vf.TaskData(prompt="p"))]

__all__ = ["TwoEnv", "TwoTaskset"]
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A directory of environments; verifiers' tool servers are not among them."""
    path = tmp_path_factory.mktemp("environments")
    sources = {"vf_echo": ECHO, "vf_ask": ASKING, "vf_shell": SHELL, "vf_two": TWO}
    for name, source in sources.items():
        (path / f"{name}.py").write_text(textwrap.dedent(source))
    yield path
    sys.path[:] = [p for p in sys.path if p != str(path)]


@pytest.fixture(scope="module")
def echo(packages):
    return task(f"verifiers:{packages}/vf_echo.py")


def own_score(echo_task, text):
    """verifiers' own verdict of a completion, without our driver: its graph, its `score`."""
    from verifiers.v1 import graph

    data = echo_task.data
    trace = vf.Trace(
        task=vf.TraceTask(type="EchoTask", data=data),
        agent=vf.AgentInfo(config=vf.AgentConfig(model="m")),
    )
    asked = [vf.SystemMessage(content="Echo."), vf.UserMessage(content=data.prompt)]
    message = vf.AssistantMessage(content=text)
    response = vf.Response(id="r", created=0, model="m", message=message, finish_reason="stop")
    graph.prepare_turn(trace, asked).commit(response)
    asyncio.run(echo_task.score(trace))
    return trace


def play(environment, row, *turns):
    """The verdict of a conversation with these turns, and the replies."""
    conversation = environment.env.start(row)
    replies = [conversation.reply(text) for text in turns]
    return conversation.end(""), replies


def test_the_rewards_are_its_own(echo):
    names = echo.declared
    assert names == {"right": 2.0, "length": -0.25, "several": 1.0}
    for row, text in zip(echo.rows()[:4], ("ada", "bob", "aeiou", ""), strict=True):
        found, (reply,) = play(echo, row, text)
        trace = own_score(echo.tasks[row["item"]], text)
        (score,) = echo.reward.score(["p"], [text], columns={"verdicts": [asdict(found)]})
        assert score.total == pytest.approx(trace.reward, abs=1e-12)
        assert score.parts["right"] == trace.rewards["right"].score
        assert score.parts["verifiers"] == trace.rewards["vowels"].value + 1.0
        assert reply.done and reply.metrics["verifiers/turns"] == 1.0


def test_rows_are_its_tasks_in_two_parts(echo):
    train, test = echo.rows("train"), echo.rows("test")
    assert len(train) + len(test) == 10 and not {r["key"] for r in train} & {r["key"] for r in test}
    asked = train[0]["prompt"]
    assert asked == [
        {"role": "system", "content": "Echo."},
        {"role": "user", "content": f"say {train[0]['answer']}"},
    ]


def test_a_users_questions_are_read_and_its_stop_holds(packages):
    ask = task(f"verifiers(items=30):{packages}/vf_ask.py")
    row = ask.rows()[0]
    name = ask.tasks[row["item"]].data.name
    assert ask.env.start(row).prompt == [{"role": "user", "content": f"{name}: who?"}]
    found, replies = play(ask, row, "ann", "here", "now")
    assert replies[0].observation == [{"role": "user", "content": f"{name}: where?"}]
    assert [r.done for r in replies] == [False, False, True], "its stop refuses a fourth turn"
    assert found.numbers == {"answered": 3.0}


def test_a_conversation_that_a_limit_ends_is_judged_as_it_is(packages, echo):
    ask = task(f"verifiers(items=30):{packages}/vf_ask.py")
    row = ask.rows()[0]
    assert play(ask, row, "ann")[0].numbers == {"answered": 1.0}
    conversation = ask.env.start(row)
    conversation.reply("ann")
    assert conversation.end("hal").numbers == {"answered": 2.0}, "the turn that was cut off counts"
    assert ask.env.start(row).end("a").numbers == {"answered": 1.0}
    assert ask.env.start(row).end("").numbers == {}, "nothing was said, nothing is judged"
    row = echo.rows()[0]
    cut = echo.env.start(row).end(row["answer"][:2])
    assert cut.numbers["length"] == 0.5 and cut.numbers["right"] == 0.0


@pytest.mark.parametrize("chat", [True, False])
def test_tokens_in_are_tokens_trained(packages, chat):
    ask = task(f"verifiers(items=30, chat={chat}):{packages}/vf_ask.py")
    template = CHATML if chat else None
    policy = CausalLM(tiny_model("llama", max_position_embeddings=2000), tiny_tokenizer(template))
    texts = ["ann", "over there", "now"]
    talk = ToolConversations(policy, ask.env, TurnLimits(turns=3), Chat(wrap=chat))
    rollout = TextRollout(
        policy,
        Scripted(policy, lambda row, turn: texts[turn]),
        ask,
        ask.reward,
        algorithm=logpi.algorithm("grpo", beta=0),
        prompts=2,
        num_generations=2,
        sampling=Sampling(max_tokens=200),
        conversations=talk,
        chat=talk.chat,
    )
    collected = rollout()
    batch = collected.batch
    for i in range(4):
        own = policy.tokenizer.decode(batch.action[i][batch.mask[i]])
        assert own == "".join(f"{t}<eos>" for t in texts)
        assert "where?" in policy.tokenizer.decode(batch.obs[i])
        assert batch.reward[i].sum() == 3.0
    assert collected.metrics["rewards/answered/mean"] == 3.0


def test_a_sandbox_is_refused_unless_it_is_allowed(packages):
    path = f"{packages}/vf_shell.py"
    with pytest.raises(ValueError, match=r"sandbox \(ran takes its runtime\).*runtime=subprocess"):
        task(f"verifiers:{path}")
    shell = task(f"verifiers(runtime=subprocess):{path}")
    assert play(shell, shell.rows()[0], "x")[0].numbers == {"ran": 1.0}


def test_what_cannot_be_played_is_one_line(packages):
    with pytest.raises(ValueError, match=r"2 agents \(left, right\)"):
        task(f"verifiers:{packages}/vf_two.py")
    with pytest.raises(ValueError, match="no environment 'nosuch_env' is installed"):
        task("verifiers:owner/nosuch-env@0.1")
    with pytest.raises(ValueError, match="cannot be made: .*nosuch"):
        task(f"verifiers(config={{'nosuch': 1}}):{packages}/vf_echo.py")
    with pytest.raises(ValueError, match="no such file"):
        task(f"verifiers:{packages}/nosuch.py")
