"""Environments of OpenEnv. The first tests play sessions of the test's own, of the same interface;
those below need the package, and start a server of it on loopback.

Run: python -m pytest -q tests/envs/packages/test_openenv.py (needs `pip install openenv`)
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec

import pytest

import logpi
from logpi.engine.sampling import Sampling
from logpi.envs.conversation import Verdicts
from logpi.envs.packages import openenv
from logpi.envs.packages.openenv_sessions import Lost, Source, Step
from logpi.envs.tasks import task
from logpi.policies.causal_lm import CausalLM
from logpi.rollouts.chat import Chat
from logpi.rollouts.text_rollout import TextRollout
from logpi.rollouts.tool_conversations import ToolConversations
from logpi.rollouts.turns import TurnLimits
from tests.scripted import Scripted
from tests.tiny import tiny_model, tiny_tokenizer

real = pytest.mark.skipif(find_spec("openenv") is None, reason="needs the package openenv")
NUMBER = {
    "title": "GuessAction",
    "type": "object",
    "properties": {
        "number": {"type": "integer", "description": "Your guess."},
        "metadata": {"type": "object"},
    },
    "required": ["number"],
}
MOVE = {
    "title": "MoveAction",
    "type": "object",
    "description": "A move of a piece.",
    "properties": {
        "piece": {"type": "string"},
        "to": {"type": "integer"},
        "metadata": {"type": "object"},
    },
    "required": ["piece", "to"],
}
TOOLS = {"title": "CallToolAction", "type": "object", "properties": {}, "required": ["tool_name"]}
SAY = {
    "name": "say",
    "description": "Says it.",
    "input_schema": {
        "type": "object",
        "properties": {"word": {"type": "string"}},
        "required": ["word"],
    },
}


class Count:
    """A stub of a session: guess the seed modulo 10; −0.1 for a miss, 1 for a hit."""

    open = 0

    def __init__(self):
        Count.open += 1
        self.actions = []

    def reset(self, seed):
        self.secret = seed % 10
        return Step({"message": f"seed {seed}", "metadata": {"id": 1}}, 0.0, False)

    def step(self, action):
        self.actions.append(action)
        if action.get("type") == "list_tools":
            return Step({"tools": [SAY]}, 0.0, False)
        if action.get("type") == "call_tool":
            return self._call(action)
        if "number" in action and not isinstance(action["number"], int):
            raise ValueError("number: not an integer")
        hit = action.get("number", action.get("to")) == self.secret
        return Step({"x": len(self.actions), "hit": hit}, 1.0 if hit else -0.1, hit)

    def _call(self, action):
        word = action["arguments"]["word"]
        if word == "bad":
            return Step({"error": {"message": "no such word"}, "result": None}, 0.0, False)
        return Step({"result": {"data": {"said": word}}, "error": None}, 0.5, word == "stop")

    def close(self):
        Count.open -= 1


@pytest.fixture
def stub(monkeypatch):
    """Tasks over the stub, with a schema of actions."""
    Count.open = 0
    monkeypatch.setattr(openenv, "find_spec", lambda name: True)

    def make(schema, concurrent=True, session=Count, **options):
        given = Source("stub", schema, session, concurrent)
        monkeypatch.setattr(openenv, "source", lambda name, seconds: given)
        return openenv.OpenEnv("stub", **options)

    yield make
    assert Count.open == 0, "every session is closed"


def call(name, arguments):
    return f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


def test_one_required_field_is_the_turn(stub):
    made = stub(NUMBER)
    talk = made.env.start({"prompt": "", "seed": 17})
    asked = "seed 17\n\nReply with the number (integer): Your guess."
    assert talk.prompt == [{"role": "user", "content": asked}]
    reply = talk.reply("<think>3 or 7?</think> 3\n")
    assert reply.observation == [{"role": "user", "content": '{"x": 1, "hit": false}'}]
    assert (reply.reward, reply.done) == (-0.1, False)
    reply = talk.reply("seven")
    assert "Error: ValueError: number: not an integer" in reply.observation[0]["content"]
    assert (reply.reward, reply.done, reply.metrics) == (0.0, False, {"tool_errors": 1.0})
    reply = talk.reply("7")
    assert (reply.reward, reply.done) == (1.0, True) and made.env.tools == ()
    assert talk.end("") == Verdicts()


def test_plain_text_has_no_messages_and_its_own_prompt(stub):
    made = stub(NUMBER, chat=False, prompt="{observation}: ")
    talk = made.env.start({"prompt": "", "seed": 5})
    assert talk.prompt == "seed 5: "
    assert talk.reply("4").observation == '\n{"x": 1, "hit": false}\n'
    talk.end("")


def test_several_fields_are_a_tool(stub):
    made = stub(MOVE)
    (tool,) = made.env.tools
    assert tool["function"]["name"] == "step"
    assert tool["function"]["description"] == "A move of a piece."
    assert list(tool["function"]["parameters"]["properties"]) == ["piece", "to"]
    talk = made.env.start({"prompt": "", "seed": 4})
    wrong = talk.reply(call("step", '{"piece": "rook", "to": "x"}'))
    assert "must be of type integer" in wrong.observation[0]["content"] and wrong.reward == 0
    reply = talk.reply(call("step", '{"piece": "rook", "to": 1}') + call("step", '{"piece": "k"}'))
    assert reply.observation[0] == {
        "role": "tool",
        "name": "step",
        "content": '{"x": 1, "hit": false}',
    }
    assert reply.reward == -0.1 and reply.metrics["tool_errors/arguments"] == 1
    reply = talk.reply(call("step", '{"piece": "rook", "to": 4}'))
    assert (reply.reward, reply.done) == (1.0, True)
    talk.end("")


def test_a_refused_action_costs_what_the_user_says(stub):
    made = stub(NUMBER, refused=-0.25)
    talk = made.env.start({"prompt": "", "seed": 4})
    assert talk.reply("x").reward == -0.25 and talk.reply("3").reward == -0.1
    talk.end("")
    made = stub(MOVE, refused=-0.25)
    talk = made.env.start({"prompt": "", "seed": 4})
    bad, good = call("step", '{"to": 1}'), call("step", '{"piece": "k", "to": 1}')
    assert talk.reply(bad + good + bad).reward == pytest.approx(-0.6)
    talk.end("")


def test_an_environment_of_tools_lists_them(stub):
    made = stub(TOOLS)
    assert [t["function"]["name"] for t in made.env.tools] == ["say"]
    talk = made.env.start({"prompt": "", "seed": 1})
    assert talk.prompt == [{"role": "user", "content": "seed 1"}]
    reply = talk.reply(call("say", '{"word": "hi"}') + call("say", '{"word": "bad"}'))
    assert [m["content"] for m in reply.observation] == [
        '{"said": "hi"}',
        "Error: say: no such word.",
    ]
    assert (reply.reward, reply.done) == (0.5, False)
    reply = talk.reply(call("say", '{"word": "stop"}') + call("say", '{"word": "on"}'))
    assert reply.done and reply.reward == 0.5, "what is called after the end earns nothing"
    talk.end("")
    talk = made.env.start({"prompt": "", "seed": 1})
    assert talk.reply("I am done.").done
    talk.end("")


class Breaks(Count):
    """Its session is lost at the action 13; closing fails too."""

    def step(self, action):
        if action["number"] == 13:
            raise Lost("ConnectionClosed: no close frame")
        return super().step(action)

    def close(self):
        super().close()
        raise OSError("no such session")


def test_a_lost_session_has_no_verdict_and_is_no_refused_action(stub):
    made = stub(NUMBER, session=Breaks, refused=-0.25)
    talk = made.env.start({"prompt": "", "seed": 4})
    assert not talk.reply("3").done and talk.reply("13").done
    found = talk.end("")
    assert found.error == "failed: the session is lost: ConnectionClosed: no close frame"
    columns = {"verdicts": [asdict(found)], "step_reward": [-0.1]}
    (score,) = made.reward.score(["p"], ["3"], columns=columns)
    assert score.total is None and "the session is lost" in score.errors["openenv"]
    talk = made.env.start({"prompt": "", "seed": 4})
    assert talk.reply("4").reward == 1.0
    assert talk.end("") == Verdicts(), "what was earned counts, although its server cannot close it"


class NeverBegins(Count):
    def reset(self, seed):
        raise ValueError("no battery")


def test_a_session_that_does_not_begin_is_closed(stub):
    made = stub(NUMBER, session=NeverBegins)
    with pytest.raises(ValueError, match="no battery"):
        made.env.start({"prompt": "", "seed": 4})


def test_rows_are_seeds_in_two_parts(stub):
    made = stub(NUMBER)
    assert made.rows("train", 3)[5] == made.rows("train", 3)[5]
    assert made.rows("train")[0] != made.rows("test")[0] and len(made.rows("test")) == 100


def test_an_environment_for_one_episode_at_a_time_is_refused(stub):
    with pytest.raises(ValueError, match="at once.*openenv\\(concurrent=True\\):stub"):
        stub(NUMBER, concurrent=False)


def test_tokens_in_are_tokens_trained_and_rewards_stand_at_their_turns(stub):
    made = stub(NUMBER, chat=False, prompt="{observation}: ")
    policy = CausalLM(tiny_model("llama", max_position_embeddings=500), tiny_tokenizer(None))
    talk = ToolConversations(policy, made.env, TurnLimits(turns=3), Chat())
    rollout = TextRollout(
        policy,
        Scripted(policy, lambda row, turn: str([10, 11, 12][turn])),
        made,
        made.reward,
        algorithm=logpi.algorithm("grpo", beta=0),
        prompts=1,
        num_generations=2,
        sampling=Sampling(max_tokens=100),
        conversations=talk,
    )
    collected = rollout()
    batch = collected.batch
    own = policy.tokenizer.decode(batch.action[0][batch.mask[0]])
    assert own == "10<eos>11<eos>12<eos>"
    assert batch.reward[0][batch.reward[0] != 0].tolist() == pytest.approx([-0.1] * 3)
    at = batch.reward[0].nonzero().flatten()
    assert (batch.action[0][at] == policy.tokenizer.eos_token_id).all()
    assert collected.metrics["reward"] == pytest.approx(-0.3)
    assert collected.metrics["rewards/openenv/mean"] == pytest.approx(-0.3)


# --- the package itself ---

ROOMS = '''
from openenv.core.env_server import Environment
from openenv.core.env_server.types import Action, Observation, State

class Go(Action):
    """Where to go."""
    way: str

class Room(Observation):
    room: str = ""

class Rooms(Environment[Go, Room, State]):
    SUPPORTS_CONCURRENT_SESSIONS = True
    def __init__(self):
        super().__init__()
        self._state = State()
    def reset(self, seed=None, episode_id=None, **_):
        self.room = (seed or 0) % 3
        return Room(room=f"room {self.room}", reward=0.0)
    def step(self, action: Go, timeout_s=None, **_):
        self.room += {"on": 1, "back": -1}.get(action.way, 0)
        return Room(room=f"room {self.room}", reward=self.room / 4, done=self.room > 3)
    @property
    def state(self):
        return self._state

class Alone(Rooms):
    SUPPORTS_CONCURRENT_SESSIONS = False

class Seeded(Rooms):
    def reset(self, **settings):
        return super().reset(**settings)

class Unnamed(Rooms):
    def step(self, action: "Went", **_): ...
'''


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    path = tmp_path_factory.mktemp("openenv") / "oe_rooms.py"
    path.write_text(ROOMS)
    return path


def walked(made, seed=1):
    talk = made.env.start({"prompt": "", "seed": seed})
    replies = [talk.reply(way) for way in ("on", "back", "on", "on", "on")]
    talk.end("")
    return talk.prompt, [(r.observation, r.reward, r.done) for r in replies]


@contextmanager
def served(port=0):
    """A server of Rooms on loopback; its port."""
    import uvicorn
    from openenv.core.env_server import create_app

    module = __import__("oe_rooms")
    app = create_app(module.Rooms, module.Go, module.Room, max_concurrent_envs=2)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


@real
def test_a_class_and_its_server_are_the_same_environment(rooms):
    local = task(f"openenv:{rooms}:Rooms")
    with served() as port:
        remote = task(f"openenv:http://127.0.0.1:{port}")
        assert walked(local) == walked(remote)
        prompt, replies = walked(remote)
        assert prompt[0]["content"] == "room 1\n\nReply with the way (string)."
        assert [r[1] for r in replies] == [0.5, 0.25, 0.5, 0.75, 1.0] and replies[-1][2]
        talks = [remote.env.start({"prompt": "", "seed": 0}) for _ in range(2)]
        with pytest.raises(ValueError, match="session of its own: raise the server's"):
            remote.env.start({"prompt": "", "seed": 0})
        for talk in talks:
            talk.end("")


@real
def test_an_episode_does_not_go_on_in_another_session(rooms):
    """The client opens a closed connection anew; the environment behind it was never reset."""
    task(f"openenv:{rooms}:Rooms")
    with served() as port:
        remote = task(f"openenv:http://127.0.0.1:{port}")
        talk = remote.env.start({"prompt": "", "seed": 1})
        assert talk.reply("on").reward == 0.5
    with served(port):
        assert talk.reply("on").done
        assert talk.end("").error.startswith("failed: the session is lost: ")


@real
def test_a_reset_gets_its_seed_whatever_its_signature(rooms):
    seeded = task(f"openenv:{rooms}:Seeded")
    assert seeded.env.start({"prompt": "", "seed": 2}).prompt[0]["content"].startswith("room 2")


@real
def test_what_names_no_environment_is_one_line(rooms):
    with pytest.raises(ValueError, match="Alone.*at once"):
        task(f"openenv:{rooms}:Alone")
    assert task(f"openenv(concurrent=True):{rooms}:Alone")
    with pytest.raises(ValueError, match="no environment class 'Nope'"):
        task(f"openenv:{rooms}:Nope")
    with pytest.raises(ValueError, match=r"Unnamed.step names .* 'Went' is not defined"):
        task(f"openenv:{rooms}:Unnamed")
    with pytest.raises(ValueError, match="no module 'nosuch_env' is installed"):
        task("openenv:nosuch_env")
    with pytest.raises(ValueError, match="no OpenEnv server answers at http://127.0.0.1:9"):
        task("openenv:http://127.0.0.1:9")
