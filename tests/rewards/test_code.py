"""Programs against unit tests: the honest ones pass, those that forge a verdict do not."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from logpi.rewards import Code, Failure, Rewards, Weighted, reward
from logpi.rewards.programs import program_of
from logpi.rewards.unit_tests import UnitTests
from logpi.sandbox import (
    LocalSandbox,
    ProgramLimits,
    ProgramResult,
    ProgramVerdict,
    Sandbox,
    SandboxError,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is for Linux")

PROMPT = '''def mean(xs):
    """The mean of a list; 0 of none.

    >>> mean([1, 2])
    1.5
    """
'''
CHECK = """
def check(candidate):
    assert candidate([1, 2]) == 1.5
    assert candidate([4]) == 4
    assert candidate([]) == 0
"""
ASSERTS = ["assert mean([1, 2]) == 1.5", "assert mean([4]) == 4", "assert mean([]) == 0"]
RIGHT = "def mean(xs):\n    return sum(xs) / len(xs) if xs else 0\n"


@pytest.fixture(scope="module")
def box():
    made = LocalSandbox()
    yield made
    made.close()


def test_the_forms_of_tests() -> None:
    columns = {"test": [CHECK], "entry_point": ["mean"]}
    assert Code()(
        [PROMPT], ["    return sum(xs) / len(xs) if xs else 0\n\nprint(mean([1]))"], **columns
    ) == [1.0]
    assert Code()([PROMPT], [f"Here:\n```python\n{RIGHT}```\nIt is right."], **columns) == [1.0]
    assert Code()(["?"], [RIGHT], test_list=[ASSERTS]) == [1.0]
    assert Code(tests="mine")(["?"], [RIGHT], mine=[ASSERTS]) == [1.0]
    pairs = {"inputs": ["1 2\n", "5 5\n"], "outputs": ["3\n", "10\n"]}
    listed = [{"input": "1 2", "output": "3"}, {"input": "5 5", "output": "10 "}]
    for tests in (pairs, listed, str(pairs).replace("'", '"').replace("\n", "\\n")):
        assert Code()(["?"], ["print(sum(map(int, input().split())))"], tests=[tests]) == [1.0]
    named = {"fn_name": "mean", "inputs": [[[1, 2]], [[]]], "outputs": [1.5, 0]}
    assert Code()(["?"] * 2, [RIGHT, "def mean(xs): return 1.5"], tests=[named] * 2) == [1.0, 0.0]


def test_all_or_a_share() -> None:
    half = "def mean(xs):\n    return sum(xs) / len(xs)\n"
    assert Code()(["?"], [half], tests=[ASSERTS]) == [0.0]
    assert Code(partial=True)(["?"], [half], tests=[ASSERTS]) == [2 / 3]
    pairs = [{"input": str(i), "output": str(min(i, 1))} for i in range(4)]
    assert Code(partial=True)(["?"], ["print(input())"], tests=[pairs]) == [0.5]


def test_a_batch_keeps_its_order_and_a_bad_row_its_own() -> None:
    programs = [
        RIGHT,
        "def mean(xs): while",
        "I cannot do that.",
        "",
        "import os; os._exit(0)",
        RIGHT,
    ]
    tests = [ASSERTS] * 5 + [None]
    assert Code()(["?"] * 6, programs, tests=tests) == [1.0, 0.0, 0.0, 0.0, 0.0, None]


# --- forgeries: each must fail ---

ALWAYS_EQUAL = """
class Always:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __getattr__(self, name): return Always()
    def __call__(self, *a, **k): return Always()
    def __sub__(self, other): return 0
    def __lt__(self, other): return True
def mean(xs): return Always()
"""
FORGERIES = {
    "always equal": ALWAYS_EQUAL,
    "an int that is": (
        "class N(int):\n def __eq__(self, o): return True\n __hash__ = None\ndef mean(xs): return"
        " N(7)"
    ),
    "a list that is": "class L(list):\n def __eq__(self, o): return True\ndef mean(xs): return L()",
    "a str that is": (
        "class S(str):\n def __eq__(self, o): return True\n def __str__(self): return '0'\ndef"
        " mean(xs): return S('x')"
    ),
    "nan": "def mean(xs): return float('nan')",
    "early exit": "import os\nos._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "exit in the call": "import os\ndef mean(xs): os._exit(0)",
    "raise SystemExit": "def mean(xs): raise SystemExit(0)",
    "raise KeyboardInterrupt": "def mean(xs): raise KeyboardInterrupt",
    "printed verdict": (
        "print('[true, \"\"]\\n' * 9, flush=True)\nimport os\nos.write(1, b'[true, \"\"]\\n' *"
        " 3)\nos._exit(0)"
    ),
    "verdict on every descriptor": (
        "import os\nfor i in range(64):\n try: os.write(i, b'[true, \"\"]\\n' * 3)\n except"
        " OSError: pass"
    ),
    "patched builtins": (
        "import builtins\nbuiltins.AssertionError = ValueError\nbuiltins.len = lambda x: 1\ndef"
        " mean(xs): return 2"
    ),
    "its own math": (
        "class math:\n isclose = staticmethod(lambda *a, **k: True)\ndef mean(xs): return 2"
    ),
    "patched json": (
        "import json\njson.loads = json.dumps = lambda *a, **k: {'value': True}\ndef mean(xs):"
        " return 2"
    ),
    "frames": (
        "import sys, gc\ndef mean(xs):\n f = sys._getframe()\n found = []\n while f:\n  found +="
        " [str(f.f_locals), str(f.f_globals)[:9999]]\n  f = f.f_back\n text = ''.join(found) +"
        " ''.join(str(o) for o in gc.get_objects() if isinstance(o, (str, list, dict)))\n return"
        " 1.5 if 'as' + 'sert mean' in text else None"
    ),
    "memory": (
        "import ctypes, os\ndef mean(xs):\n for p in ('/proc/self/mem', '/proc/1/mem',"
        " f'/proc/{os.getppid()}/mem'):\n  open(p, 'rb')\n return 1.5"
    ),
    "hang": "def mean(xs):\n while 1: pass",
    "huge answer": "def mean(xs): return [0] * (1 << 25)",
    "deep answer": "def mean(xs):\n x = []\n for i in range(10 ** 5): x = [x]\n return x",
    "endless iterator": "import itertools\ndef mean(xs): return itertools.count()",
    "output flood": "def mean(xs):\n while 1: print('x' * 10000)",
    "memory flood": "def mean(xs): return bytearray(4 << 30)",
    "garbage on the wire": "import os\nos.write(4, b'\\xff' * 100)\ndef mean(xs): return 0",
    "replies unasked": (
        "import os, json, struct\nfor i in range(9):\n b = json.dumps({'value': True, 'raised':"
        " 'SystemExit'}).encode()\n os.write(4, struct.pack('>I', len(b)) + b)\ndef mean(xs):"
        " return 0"
    ),
    "asks the tests": (
        "import os, json, struct\nfor op in ('get', 'name', 'item', 'call'):\n"
        " b = json.dumps({'op': op, 'on': 0, 'args': ['__globals__'], 'named': {}}).encode()\n"
        " os.write(4, struct.pack('>I', len(b)) + b)\ndef mean(xs): return 0"
    ),
    "threads": (
        "import threading\ndef f():\n while 1: pass\nfor i in range(9):"
        " threading.Thread(target=f).start()\ndef mean(xs): return 2"
    ),
    "no such function": "x = 1",
    "mutated argument": "def mean(xs):\n xs.clear()\n xs.extend([0] * 10)\n return 2",
}


@pytest.mark.parametrize("program", FORGERIES.values(), ids=FORGERIES)
def test_forgeries_fail(box: LocalSandbox, program: str) -> None:
    tests = [
        *ASSERTS[:2],
        "assert math.isclose(mean([3]), 3)",
        "assert len([mean([1, 1, 1]), 1]) == 2 and mean([1]) == 1",
    ]
    verdict = box.judge(program, tests, limits=ProgramLimits(seconds=1.5))
    assert verdict.decided and verdict.passed == 0 and verdict.status != "ok" and verdict.message


def test_what_the_tests_define_is_theirs(box: LocalSandbox) -> None:
    """HumanEval/38: the prompt's own helper is used by the tests; the program brings a forged
    one."""
    setup = "def encode(s):\n    return s[::-1]\n\ndef decode(s):\n    '''Undo encode.'''\n"
    test = "def check(f):\n    assert f(encode('abc')) == 'abc'\ncheck(decode)"
    right = "def decode(s): return s[::-1]"
    forged = "def encode(s): return s\ndef decode(s): return s"
    assert box.judge(right, [test], setup, "decode").status == "ok"
    assert box.judge(forged, [test], setup, "decode").status == "wrong"


# --- honest programs ---

HONEST = {
    "classes": (
        "class P:\n def __init__(s, x): s.x = x\n def double(s): return P(2 * s.x)",
        "p = P(3); assert p.double().x == 6",
    ),
    "attributes": (
        "class N:\n def __init__(s, v): s.v, s.left = v, None",
        "n = N(1); n.left = N(2); assert n.left.v == 2",
    ),
    "methods": (
        "class Solution:\n def two(self, xs): return sorted(xs)[:2]",
        "assert Solution().two([3, 1, 2]) == [1, 2]",
    ),
    "generators": (
        "def f(n):\n for i in range(n): yield i * i",
        "assert list(f(4)) == [0, 1, 4, 9]",
    ),
    "an infinite one": (
        "import itertools\ndef f(): return itertools.count(3)",
        "g = f(); assert next(g) == 3 and next(g) == 4",
    ),
    "in place": ("def f(xs): xs.sort()", "xs = [3, 1, 2]; f(xs); assert xs == [1, 2, 3]"),
    "callbacks": (
        "def f(g, xs): return [g(x) for x in xs]",
        "assert f(lambda x: x + 1, [1, 2]) == [2, 3]",
    ),
    "built-in callbacks": (
        "def f(g, xs): return list(map(g, xs))",
        "assert f(abs, [-1]) == [1] and f(str, [2]) == ['2']",
    ),
    "exceptions": (
        "def f(x):\n if x < 0: raise ValueError('negative')",
        "try:\n f(-1)\n assert False\nexcept ValueError as e: assert 'neg' in str(e)",
    ),
    "own exceptions": (
        "class E(KeyError): pass\ndef f(): raise E('k')",
        "try:\n f()\n assert 0\nexcept KeyError: pass",
    ),
    "types": (
        (
            "from fractions import Fraction\ndef f(): return (1, {2}, {3: [4.5]}, b'6', None, 1 +"
            " 2j, frozenset([7]), Fraction(1, 2), range(3))"
        ),
        (
            "from fractions import Fraction\nassert f() == (1, {2}, {3: [4.5]}, b'6', None, 1 + 2j,"
            " frozenset([7]), Fraction(1, 2), range(3))"
        ),
    ),
    "big integers": ("def f(n): return 7 ** n", "assert f(5000) == 7 ** 5000"),
    "counters": (
        "from collections import Counter\ndef f(s): return Counter(s)",
        "assert f('aab') == {'a': 2, 'b': 1}",
    ),
    "tuples and lists differ": ("def f(): return (1, 2)", "assert f() == (1, 2) and f() != [1, 2]"),
    "truth of a match": (
        "import re\ndef f(s): return re.match('a', s)",
        "assert f('ab') and not f('b')",
    ),
    "keyword arguments": ("def f(*a, b=1): return [a, b]", "assert f(1, 2, b=3) == [(1, 2), 3]"),
    "a built-in's name": ("def sum(a, b): return a * b", "assert sum(2, 3) == 6"),
    "import of the solution": (
        "def f(): return 1",
        "from solution import f\nimport solution\nassert f() == solution.f() == 1",
    ),
    "main guard": (
        "def f(): return 1\nif __name__ == '__main__': print(input())",
        "assert f() == 1",
    ),
    "recursion": ("def f(n): return 0 if n == 0 else 1 + f(n - 1)", "assert f(900) == 900"),
    "prints": ("def f():\n print('x' * 100000)\n return 1", "print('hi'); assert f() == 1"),
}


@pytest.mark.parametrize(("program", "test"), HONEST.values(), ids=HONEST)
def test_honest_programs_pass(box: LocalSandbox, program: str, test: str) -> None:
    verdict = box.judge(program, [test])
    assert verdict.status == "ok", verdict.message


def test_tests_at_fault_leave_no_verdict(box: LocalSandbox) -> None:
    assert box.judge(RIGHT, ["assert mean("]).status == "invalid"
    assert box.judge(RIGHT, ["class X: pass\nassert mean(X())"]).status == "invalid"
    assert Code()(["?"], [RIGHT], tests=[["def ("]]) == [
        Failure("invalid", "the tests are not Python: invalid syntax (<unknown>, line 1)")
    ]
    assert isinstance(Code()(["?"], [RIGHT], tests=[{"a": 1}])[0], Failure)


def test_one_line_says_what_went_wrong(box: LocalSandbox) -> None:
    assert box.judge("def f(): return 2", ["assert f() == 1"]).message == "assert f() == 1"
    assert "does not load: ZeroDivisionError" in box.judge("1/0", ["assert f() == 1"]).message
    assert "not defined by the program" in box.judge("g = 1", ["assert f() == 1"]).message
    assert (
        box.judge(
            "def f():\n while 1: pass", ["assert f()"], limits=ProgramLimits(seconds=0.5)
        ).status
        == "timeout"
    )


# --- before any work ---


def test_data_that_disagree_with_themselves_are_refused() -> None:
    rows = [{"prompt": "?", "tests": ["assert f(1) == 2"], "solution": "def f(x): return x"}] * 3
    judged = Rewards((Weighted(Code()),))
    with pytest.raises(
        ValueError, match=r"disagrees with itself: 3 of 3 .*row 0: assert f.1. == 2."
    ):
        judged.check(list(rows[0]), rows)
    judged.check(list(rows[0]), [rows[0] | {"solution": "def f(x): return x + 1"}])
    with pytest.raises(ValueError, match="no row has tests in tests, test, test_list"):
        judged.check(["prompt"], [{"prompt": "?"}])


def test_no_sandbox_is_a_line_at_the_start(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SandboxError, match="code is run on Linux"):
        Code(sandbox="landlock").try_rows([{"tests": ASSERTS}])


def test_by_name() -> None:
    made = reward('code(tests="test_list", partial=True, seconds=3):0.5')
    assert made.weight == 0.5 and made.function == Code("test_list", True, 3)


def test_where_the_program_stands() -> None:
    text = (
        "<think>```python\nwrong\n```</think>\n```\nfirst\n```\nthen\n```py\ndef g():"
        " 1\n```\nso\n```text\nx\n```"
    )
    assert program_of(text) == "def g(): 1\n"
    assert (
        program_of("```python\ndef f(): 1\n```\n```python\nf()\n```", entry_point="f")
        == "def f(): 1\n"
    )
    assert UnitTests.of('{"inputs": [[1, 2]], "outputs": ["3"]}').pairs == (("1\n2", "3"),)


class FakeSandbox:
    """A sandbox elsewhere: it runs nothing and knows what comes of it."""

    def __init__(self, status: str = "ok") -> None:
        self.calls: list[tuple] = []
        self.status = status

    def run(self, code, stdin="", limits=None) -> ProgramResult:
        self.calls.append(("run", code, stdin, limits))
        if self.status == "down":
            raise ConnectionError("no route\nto it")
        return ProgramResult("42\n" if "6 * 7" in code else stdin.upper(), "", self.status)

    def judge(self, code, tests, setup="", entry_point="", limits=None, classes=()):
        self.calls.append(("judge", code, list(tests), entry_point, limits))
        passed = len(tests) if "return" in code else 0
        return ProgramVerdict(passed, len(tests), "ok" if passed else "wrong")


def test_a_sandbox_elsewhere_takes_the_place_of_this_machines(tmp_path) -> None:
    fake = FakeSandbox()
    judge = Code(sandbox=fake, seconds=2, memory=64)
    judge.try_rows([{"prompt": "?", "tests": ASSERTS, "solution": RIGHT}])
    assert judge(["?"] * 2, [RIGHT, "pass"], tests=[ASSERTS] * 2) == [1.0, 0.0]
    kind, code, tests, entry, limits = fake.calls[-1]
    assert (kind, code, tests, entry) == ("judge", "pass", ASSERTS, "")
    assert (limits.cpu, limits.memory) == (2, 64 << 20)
    pairs = {"inputs": ["a", "b"], "outputs": ["A", "c"]}
    assert Code(sandbox=fake, partial=True)(["?"], ["echo"], tests=[pairs]) == [0.5]
    file = tmp_path / "mine.py"
    file.write_text("from tests.rewards.test_code import FakeSandbox as Remote\n")
    named = reward(f"code(sandbox='{file}:Remote')").function
    assert named(["?"], [RIGHT], tests=[ASSERTS]) == [1.0]


def test_a_sandbox_that_fails_is_no_verdict_and_a_line_at_the_start() -> None:
    rows = [{"prompt": "?", "tests": ASSERTS}]
    for status, line in (
        ("down", "the sandbox fails: ConnectionError: no route to it"),
        ("x", "x"),
    ):
        with pytest.raises(ValueError, match=line) as error:
            Code(sandbox=FakeSandbox(status)).try_rows(rows)
        assert "\n" not in str(error.value)
    pairs = {"inputs": ["a"], "outputs": ["A"]}
    [failure] = Code(sandbox=FakeSandbox("down"))(["?"], [RIGHT], tests=[pairs])
    assert isinstance(failure, Failure) and failure.kind == "failed"
    assert "no route to it" in failure.message


def test_the_documentations_sandbox_is_one(monkeypatch) -> None:
    """docs/verifiers.md: a sandbox behind HTTP in ten lines."""
    page = (Path(__file__).parents[2] / "docs" / "verifiers.md").read_text("utf-8")
    [block] = [b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "class Remote" in b]

    def post(url, json):
        result = LocalSandbox("unsafe").run(json["code"], json["stdin"])
        answer = {"stdout": result.stdout, "stderr": result.stderr, "exit_code": result.exit_code}
        return SimpleNamespace(json=lambda: answer)

    monkeypatch.setitem(sys.modules, "httpx", SimpleNamespace(post=post))
    space: dict = {}
    exec(block, space)
    remote = space["Remote"]()
    assert isinstance(remote, Sandbox) and isinstance(LocalSandbox("unsafe"), Sandbox)
    judge = Code(sandbox=remote)
    judge.try_rows([{"prompt": "?", "tests": ASSERTS}])
    assert judge(["?"] * 2, [RIGHT, "def mean(xs): return 1"], tests=[ASSERTS] * 2) == [1.0, 0.0]
