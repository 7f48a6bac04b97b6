"""ToolRL's rewards: the worked values of the published code, the best assignment, formats, lengths.

Run: python -m pytest -q tests/rewards/test_tool_calls.py
"""

from __future__ import annotations

import itertools
import json
import random
import time

import pytest

from logpi.calls import Call
from logpi.rewards import ToolCalls, ToolFormat, ToolLength, rewards
from logpi.rewards.call_matching import GRAINS, _best, _greedy, jaccard, same

GOLD = [{"name": "add", "arguments": {"a": 1, "b": 2}}]
TWO = [{"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {"y": "z"}}]


def lines(*calls, thought="ok"):
    body = "\n".join(
        c if isinstance(c, str) else json.dumps({"name": c[0], "parameters": c[1]}) for c in calls
    )
    return f"<think>{thought}</think>\n<tool_call>\n{body}\n</tool_call>"


def worth(completion, gold=GOLD, **options):
    return ToolCalls(**options)(prompts=["?"], completions=[completion], calls=[gold])[0]


@pytest.mark.parametrize(
    ("completion", "gold", "value"),
    [  # as the published rlla.py gives them
        (lines(("add", {"a": 1, "b": 2})), GOLD, 3.0),
        (lines(("add", {"b": 2, "a": 1})), GOLD, 3.0),
        (lines(("add", {"a": 1, "b": 3})), GOLD, 1.5),
        (lines(("sub", {"a": 1, "b": 2})), GOLD, -3.0),
        ("<think>none</think>\n<response>3</response>", GOLD, -3.0),
        (lines(("add", {"a": 1, "b": 2}), ("sub", {"a": 1, "b": 2})), GOLD, 2.25),
        (lines(*[("add", {"a": 1, "b": 2})] * 5), GOLD, 1.8),
        (lines(("g", {"y": "z"}), ("f", {"x": 1})), TWO, 3.0),
        (lines(("add", {"a": "1", "b": "2"})), GOLD, 0.0),
        (lines(("add", {"a": 1, "b": 2, "c": 3})), GOLD, 2.5),
        (lines('{\n  "name": "add",\n  "parameters": {"a": 1, "b": 2}\n}'), GOLD, -3.0),
        (lines(("add", {"a": 1, "b": 2})), [], 0.0),
        ("hello", [], 0.0),
    ],
)
def test_published_values(completion, gold, value):
    assert worth(completion, gold) == pytest.approx(value, abs=1e-12)


def test_assignment_is_optimal_and_the_published_one_is_greedy():
    gold = [{"name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": {"a": 1, "b": 2}}]
    said = lines(("f", {"a": 1, "b": 2}), ("f", {"b": 2, "a": 1}))
    assert worth(said, gold) == worth(said, gold, greedy=True)
    # {a: 1} likes both calls alike; greedily it takes the first, which {a: 1, b: 2} needed
    said = lines(("f", {"a": 1, "b": 2}), ("f", {"a": 1, "c": 9}))
    best, greedy = worth(said, gold), worth(said, gold, greedy=True)
    assert best == pytest.approx(
        6 * (1 + 1.5 + 3) / 6 - 3
    )  # S = names 1 + (1/2 + 1) + (1 + 2), Smax = 1 + 2 + 3
    assert greedy == pytest.approx(6 * (1 + 1.5 + (1 / 3 + 1)) / 6 - 3)


def test_the_best_assignment_is_that_of_trying_everything():
    rng = random.Random(0)
    for _ in range(300):
        n, m = rng.randint(1, 5), rng.randint(1, 5)
        table = [
            [rng.choice([0.0, 0.5, 1.0, 2.0, rng.random() * 3]) for _ in range(m)] for _ in range(n)
        ]
        tall = table if n <= m else [list(r) for r in zip(*table)]
        every = max(
            sum(row[j] for row, j in zip(tall, p))
            for p in itertools.permutations(range(len(tall[0])), len(tall))
        )
        assert _best(table) == pytest.approx(every)
        assert _greedy(table) <= every + 1e-12


def test_many_calls_of_one_name_cost_little():
    """A hostile completion of 64 calls against 12 of the same name; greedy from there on."""
    start = time.monotonic()
    golds = [{"name": "f", "arguments": {"x": i}} for i in range(12)]
    said = lines(*[("f", {"x": i % 15}) for i in range(64)])
    assert worth(said, golds[:10]) > worth(said, [*golds[:9], {"name": "g", "arguments": {}}])
    assert worth(said, golds) == worth(said, golds, greedy=True)
    assert time.monotonic() - start < 10


def test_grains():
    def share(grain, *calls, gold=TWO):
        return GRAINS[grain](
            [Call(g["name"], g["arguments"]) for g in gold], [Call(*c) for c in calls]
        )

    right, near = [("f", {"x": 1}), ("g", {"y": "z"})], [("f", {"x": 1}), ("g", {"y": "w"})]
    for grain in GRAINS:
        assert share(grain, *right) == share(grain, *right[::-1]) == 1.0
        assert share(grain, ("h", {"q": 1})) == 0.0
    assert share("fine", *near) == pytest.approx(4 / 5)
    assert share("strict", *near) == pytest.approx(4 / 5)
    assert share("call", *near) == pytest.approx(2 / 3)
    assert share("all", *near) == 0.0
    extra = [("f", {"x": 1, "k": 0}), ("g", {"y": "z"})]
    assert share("fine", *extra) == pytest.approx(4.5 / 5) and share(
        "strict", *extra
    ) == pytest.approx(4 / 5)
    assert share("all", *right, right[0]) == 0.0
    assert share("strict", right[0]) == pytest.approx(2 / 5) and share(
        "fine", right[0]
    ) == pytest.approx(2.5 / 5)


def test_equality_is_jsons():
    assert (
        same(1, 1.0)
        and same([1, {"a": 2}], [1.0, {"a": 2}])
        and same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    )
    assert (
        not same(True, 1)
        and not same(0, False)
        and not same("1", 1)
        and not same([1], [1, 2])
        and not same(None, False)
    )
    assert jaccard(["a", "a", "b"], ["a", "b", "b"]) == 0.5


def test_rows_that_ask_for_no_call():
    call, plain = lines(("add", {"a": 1})), "<think>x</think>\n<response>no</response>"
    assert (worth(call, [], idle=True), worth(plain, [], idle=True)) == (-3.0, 3.0)
    assert worth(plain, None) is None


def test_a_flood_of_calls_is_cheap_and_worth_little():
    import time

    start = time.process_time()
    value = worth(lines(*[("add", {"a": 1, "b": 2})] * 5_000))
    assert time.process_time() - start < 1.0 and value < 1.6


def test_styles_and_ranges():
    said = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
    assert worth(said, style="hermes", low=0.0, high=1.0) == 1.0
    assert worth(
        said + "<tool_call>broken</tool_call>", style="hermes", low=0.0, high=1.0
    ) == pytest.approx(3.5 / 4)
    xml = (
        "<tool_call><function=add><parameter=a>1</parameter><parameter=b>2</parameter>"
        "</function></tool_call>"
    )
    tools = [
        {
            "function": {
                "name": "add",
                "parameters": {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
            }
        }
    ]
    assert ToolCalls(style="xml")(
        prompts=["?"], completions=[xml], calls=[GOLD], tools=[tools]
    ) == [3.0]
    for bad in ({"grain": "rough"}, {"style": "yaml"}, {"low": 1.0, "high": 1.0}):
        with pytest.raises(ValueError, match="grain is one of|no style"):
            ToolCalls(**bad)


@pytest.mark.parametrize(
    ("text", "calls", "respond", "value"),
    [
        (lines(("add", {})), GOLD, False, 1.0),
        (lines(("add", {})) + "\n<response>done</response>", GOLD, True, 1.0),
        ("<think>a</think>\n<response>b</response>", [], True, 1.0),
        ("<think>a</think>", [], False, 1.0),
        (lines(("add", {})), GOLD, True, 0.0),
        (lines(("add", {})) + "\n<response>done</response>", GOLD, False, 0.0),
        ("junk " + lines(("add", {})), GOLD, False, 0.0),
        (lines(("add", {})) + " junk", GOLD, False, 0.0),
        (
            "<think>a</think> <think>b</think>\n<response>b</response>",
            [],
            True,
            0.0,
        ),  # full marks in the published code
        ("<think>a</think><response>b</response>", [], True, 0.0),
        ("<think>a</think>\n<tool_call>{}</tool_call>", GOLD, False, 0.0),
        ("<response>b</response>\n<think>a</think>", [], True, 0.0),
        ("</think><think>\n<response></response>", [], True, 0.0),
        ("", [], True, 0.0),
    ],
)
def test_format(text, calls, respond, value):
    assert ToolFormat()(prompts=["?"], completions=[text], calls=[calls], respond=[respond]) == [
        value
    ]


def test_length_fixed_and_growing():
    text = [
        "<think>" + "w " * 256 + "</think>",
        "<think>" + "w " * 9_999 + "</think>",
        "no thought",
        "<think>open",
    ]
    assert ToolLength()(prompts=text, completions=text) == [0.5, 1.0, 0.0, 0.0]
    growing = ToolLength(words=384, grow=256 / 105)
    assert growing.needs == ("step",) and ToolLength().needs == ()
    assert growing(prompts=text[:1] * 2, completions=text[:1] * 2, step=[0, 105]) == pytest.approx(
        [256 / 384, 256 / 640]
    )
    with pytest.raises(ValueError, match="needs the column 'step'"):
        growing(prompts=text, completions=text)


def test_by_name_and_only_the_policys_own_words():
    both = rewards(
        ["tool_calls(grain=all, style=hermes, low=0, high=1)", "tool_format:0.5", "tool_length(64)"]
    )
    assert both.names == ("tool_calls", "tool_format", "tool_length")
    tool_said = [
        {"role": "assistant", "content": "hm"},
        {"role": "tool", "content": lines(("add", {"a": 1, "b": 2}))},
    ]
    assert worth(tool_said) == -3.0
