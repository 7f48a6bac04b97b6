"""How tests are read: every published form, and a refusal, with its line, of those that would pay
every program."""

from __future__ import annotations

import json
import sys

import pytest

from logpi.envs.benchmarks import Benchmark
from logpi.envs.tasks import task
from logpi.errors import UserError
from logpi.rewards import Code, Failure, rewards
from logpi.rewards.programs import program_of
from logpi.rewards.unit_tests import UnitTests

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is for Linux")

RIGHT, WRONG = "def add(a, b):\n    return a + b\n", "def add(a, b):\n    return a - b\n"
FENCE = "```"


def scores(tests, *programs: str, prompt: str = "?", **columns) -> list:
    given = {"tests": tests, **columns}
    many = len(programs)
    return Code(seconds=5)(
        [prompt] * many, list(programs), **{k: [v] * many for k, v in given.items()}
    )


NOTHING = {
    "empty": "",
    "white space": " \n",
    "a comment": "# add(1, 2) should be 3",
    "pass": "pass",
    "a docstring": '"""\n>>> add(1, 2)\n3\n"""',
    "a bare comparison": "add(1, 2) == 3",
    "prints": "print(add(1, 2) == 3)",
    "assert True": "add(1, 2)\nassert True",
    "a constant": "assert 1 + 2 == 3",
    "a tuple": "assert (add(1, 2) == 3, 'wrong')",
    "or True": "assert add(1, 2) == 3 or True",
    "itself": "assert add(1, 2) == add(1, 2)",
    "never called": "def run():\n    assert add(1, 2) == 3",
    "if False": "if False:\n    assert add(1, 2) == 3",
    "check returns": "def check(f):\n    return f(1, 2) == 3\ncheck(add)",
    "unittest's helper": (
        "import unittest\nclass T(unittest.TestCase):\n    def helper(self):\n       "
        " self.assertEqual(add(1, 2), 3)"
    ),
    "unittest's constants": (
        "import unittest\nclass T(unittest.TestCase):\n    def test_it(self):\n       "
        " self.assertTrue(True)"
    ),
    "no program": "x = 3\nassert x == 3",
    "an empty list": [],
    "a list of nothing": ["import math", "pass"],
    "no inputs": {"inputs": [], "outputs": []},
    "no such check": "def check(candidate):\n    assert candidate(1, 2) == 3",
    "a fixture": "def test_it(tmp_path):\n    assert add(1, 2) == 3",
    "not Python": "add(1, 2) should be 3",
}


@pytest.mark.parametrize("tests", NOTHING.values(), ids=NOTHING)
def test_rows_that_would_pay_everybody_are_refused(tests) -> None:
    [verdict] = scores(tests, RIGHT)
    assert isinstance(verdict, Failure) and verdict.kind == "invalid"
    with pytest.raises(UserError, match="^row 0: reward 'code' refuses its tests: .+"):
        Code().read_rows([{"prompt": "?", "tests": tests}])


RUN = {
    "asserts": "assert add(1, 2) == 3",
    "if and raise": "if add(1, 2) != 3:\n    raise ValueError('no')",
    "check": "def check(candidate):\n    assert candidate(1, 2) == 3\ncheck(add)",
    "unittest": (
        "import unittest\nfrom solution import add\nclass T(unittest.TestCase):\n    def"
        " test_it(self):\n        self.assertEqual(add(1, 2), 3)"
    ),
    "unittest.main": (
        "import unittest\nclass T(unittest.TestCase):\n    def setUp(self):\n        self.two ="
        " add(1, 1)\n    def test_it(self):\n        self.assertEqual(self.two, 2)\nif __name__ =="
        " '__main__':\n    unittest.main()"
    ),
    "pytest": "from my_solution import add\ndef test_it():\n    assert add(1, 2) == 3",
    "pytest class": (
        "class TestAdd:\n    def setup_method(self):\n        self.x = 1\n    def test_it(self):\n "
        "       assert add(self.x, 2) == 3"
    ),
    "parametrize": (
        "import pytest\n@pytest.mark.parametrize('a, b, c', [(0, 0, 0), (1, 2, 3)])\ndef test_it(a,"
        " b, c):\n    assert add(a, b) == pytest.approx(c)"
    ),
    "own arguments": "def test_all(a, b, c):\n    assert add(a, b) == c\ntest_all(1, 2, 3)",
    "__main__": "def main():\n    assert add(1, 2) == 3\nif __name__ == '__main__':\n    main()",
    "a loop": "for a, b in [(1, 2), (3, 4)]:\n    assert add(a, b) == a + b",
    "caught": (
        "try:\n    assert add(1, 2) == 3\n    print('passed')\nexcept AssertionError:\n   "
        " print('failed')"
    ),
    "a list with set-up": ["import math", "x = add(1, 2)", "assert x == 3"],
    "leaves": "import sys\nassert add(1, 2) == 3\nsys.exit(0)",
}


@pytest.mark.parametrize("tests", RUN.values(), ids=RUN)
def test_every_form_of_tests_runs(tests) -> None:
    assert scores(tests, RIGHT, WRONG) == [1.0, 0.0]


def test_check_without_an_entry_point_is_for_what_the_prompt_begins() -> None:
    check = "def check(candidate):\n    assert candidate(1, 2) == 3"
    assert scores(check, RIGHT, WRONG, prompt="def add(a, b):\n    '''Sum.'''\n") == [1.0, 0.0]


BROKEN = {
    "numpy": "import numpy as np\nassert np.isclose(add(1, 2), 3)",
    "numpy later": "def test_it():\n    x = add(1, 2)\n    import numpy\n    assert x == 3",
    "np": "assert np.isclose(add(1, 2), 3)",
    "set-up": "x = 1 / 0\nassert add(1, 2) == 3",
    "setUp": (
        "import unittest\nclass T(unittest.TestCase):\n    def setUp(self):\n        self.f ="
        " open('/data.txt')\n    def test_it(self):\n        self.assertEqual(add(1, 2), 3)"
    ),
    "wrong by itself": "assert len([]) == 1\nassert add(1, 2) == 3",
    "no check ran": "for a, b in []:\n    assert add(a, b) == 3",
    "did not ask": "def test_it():\n    f = lambda a, b: 3\n    assert f(1, 2) == 3\n    g = add",
}


@pytest.mark.parametrize("tests", BROKEN.values(), ids=BROKEN)
def test_broken_tests_give_no_verdict(tests) -> None:
    assert [v.kind for v in scores(tests, RIGHT, WRONG)] == ["invalid", "invalid"]
    [verdict] = scores("assert add(1, 2) == 3", RIGHT, setup="import numpy")
    assert verdict.kind == "invalid"


FN = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [3, 7]}


def test_published_forms() -> None:
    solution = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        return a + b\n"
    typed = (
        "class Solution:\n    def add(self, a: int, b: Optional[List[int]]) -> int:\n        return"
        " a + b\n"
    )
    assert scores(FN, RIGHT, WRONG, solution, typed) == [1.0, 0.0, 1.0, 1.0]
    assert scores(FN | {"outputs": [[3], [7]]}, RIGHT, WRONG) == [1.0, 0.0]
    assert scores(
        FN | {"outputs": [[1, 2], [3, 4]]},
        "def add(a, b): return a, b",
        "def add(a, b): return [a]",
    ) == [
        1.0,
        0.0,
    ]
    assert scores(FN | {"inputs": [[0.1, 0.2]], "outputs": [0.3]}, RIGHT, WRONG) == [1.0, 0.0]
    assert scores([{"fn_name": "add", "input": "1\n2", "output": "3"}], RIGHT, WRONG) == [1.0, 0.0]
    check = "def check(candidate):\n    assert candidate(a=1, b=2) == 3"
    assert scores(None, solution, WRONG, test=check, entry_point="Solution().add") == [1.0, 0.0]


KTH = "class Solution:\n    def kth(self, xs: List[int], k: int) -> int:\n        "


@pytest.mark.parametrize(
    ("more", "prompt", "columns"),
    [
        ({"fn_name": "kth"}, "?", {}),
        ({"testtype": "functional", "metadata": {"func_name": "kth"}}, "?", {}),
        ({"testtype": "functional"}, "?", {"entry_point": "Solution().kth"}),
        ({"type": "function_call"}, f"Complete:\n{KTH}", {}),
    ],
)
def test_inputs_of_a_function(more: dict, prompt: str, columns: dict) -> None:
    """As LiveCodeBench and its kin name the function."""
    tests = [
        {"input": "[4, 5]\n1", "output": "5", **more},
        {"input": "[7]\n0", "output": "7", **more},
    ]
    right, wrong = KTH + "return xs[k]\n", KTH + "return xs[0]\n"
    assert scores(json.dumps(tests), right, wrong, prompt=prompt, **columns) == [1.0, 0.0]


def test_columns_of_inputs_may_be_named_in_the_singular() -> None:
    """As CodeContests names them."""
    tests = {"input": ["3\n", "4\n"], "output": ["4\n", "5\n"]}
    assert scores(tests, "print(int(input()) + 1)", "print(4)") == [1.0, 0.0]
    assert scores({"input": "34", "output": "45"}, "print(int(input()) + 11)", "print(4)") == [
        1.0,
        0.0,
    ]


def test_a_function_without_a_name_is_refused_and_arguments_may_have_names() -> None:
    [verdict] = scores([{"input": "1", "output": "1", "testtype": "functional"}], RIGHT)
    assert isinstance(verdict, Failure) and "nothing says which" in verdict.message
    named = FN | {"inputs": [{"b": 1, "a": 3}], "outputs": [2]}
    assert scores(named, WRONG, RIGHT) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("wanted", "right", "wrong"),
    [
        ("0.3", "0.30000000000000004", "0.31"),
        ("0.333333333333", "0.3333333333", "0.3334"),
        ("3 4", "3.0  4", "3.5 4"),
        ("12345678.5", "12345678.50000001", "12345679.5"),
        ("9007199254740993", "9007199254740993.0", "9007199254740992.0"),
        ("*  *", "*  * ", "* *"),
        ("007", "007", "7"),
        ("0.00000001", "1e-8", "0.0"),
    ],
)
def test_numbers_of_an_output_are_numbers(wanted: str, right: str, wrong: str) -> None:
    tests = {"inputs": ["1"], "outputs": [wanted]}
    assert scores(tests, f"print({right!r})", f"print({wrong!r})") == [1.0, 0.0]


def test_prompts_in_markdown_and_in_messages() -> None:
    begun = 'from typing import List\n\ndef total(xs: List[int]) -> int:\n    """Their sum."""\n'
    fenced = f"Complete:\n{FENCE}python\n{begun}{FENCE}"
    body = f"{FENCE}python\n    return sum(xs)\n{FENCE}"
    whole = f"{FENCE}python\ndef total(xs: List[int]) -> int:\n    return sum(xs)\n{FENCE}"
    test = "def check(candidate):\n    assert candidate([1, 2]) == 3"
    messages = [{"role": "user", "content": fenced}]
    parts = [{"role": "user", "content": [{"type": "text", "text": fenced}]}]
    for prompt in (fenced, messages, parts):
        assert scores(None, body, whole, prompt=prompt, test=test, entry_point="total") == [
            1.0,
            1.0,
        ]


def test_long_outputs_threads_and_leaving() -> None:
    long = {"inputs": ["200000"], "outputs": ["x" * 200_000]}
    assert scores(long, "print('x' * int(input()))", "print('y' * int(input()))") == [1.0, 0.0]
    io = {"inputs": ["1 2\n"], "outputs": ["3\n"]}
    program = "a, b = map(int, input().split())\nprint(a + b)\n"
    assert (
        scores(
            io,
            *(program + f"{leave}\n" for leave in ("exit()", "quit()", "import sys; sys.exit()")),
        )
        == [1.0] * 3
    )
    threads = (
        "import threading, time\ndef add(a, b):\n    ts = [threading.Thread(target=time.sleep,"
        " args=(0.2,)) for _ in range(32)]\n    for t in ts: t.start()\n    for t in ts: t.join()\n"
        "    return a + b\nexit()"
    )
    assert scores("assert add(1, 2) == 3", threads) == [1.0]


def test_names_of_modules_may_be_functions() -> None:
    program = "def queue(x): return x + 1\ndef code(s): return s * 2"
    assert scores(
        ["assert queue(1) == 2", "assert list(map(code, 'ab')) == ['aa', 'bb']"], program
    ) == [1.0]
    assert scores("assert math.floor(add(1.5, 1)) == 2", RIGHT) == [
        1.0
    ]  # a module where it is used as one


def test_a_fence_in_a_docstring_is_the_programs() -> None:
    program = (
        f'def add(a, b):\n    """\n    {FENCE}\n    add(1, 2)\n    {FENCE}\n    """\n    return a'
        " + b\n"
    )
    assert program_of(f"{FENCE}python\n{program}{FENCE}\nDone.") == program


def test_where_the_program_stands() -> None:
    fenced = f"{FENCE}python\n{RIGHT}{FENCE}"
    item = f"1. So:\n   {FENCE}python\n   def add(a, b):\n       return a + b\n   {FENCE}"
    assert program_of(item) == RIGHT
    assert program_of(f"- {FENCE}python\n  x = 1\n  {FENCE}") == "x = 1\n"
    assert (
        program_of(f"<answer>{fenced}\n</answer>")
        == program_of(f"<answer>\n{fenced}</answer>")
        == RIGHT
    )
    assert program_of(f"<answer>\n{RIGHT}</answer>").strip() == RIGHT.strip()
    assert (
        program_of(
            f"{fenced}\nUse it:\n{FENCE}python\nprint(add(1, 2))\n{FENCE}\n{FENCE}\n3\n{FENCE}",
            names={"add"},
        )
        == RIGHT
    )
    assert program_of(f"{fenced}\nIt prints:\n{FENCE}\n3\n{FENCE}") == RIGHT
    assert program_of(f"{FENCE}python\n{RIGHT}") == RIGHT  # cut off before the fence was closed
    begun = "from typing import List\n\ndef f(xs: List[int]) -> int:\n"
    assert (
        program_of("def f(xs: List[int]): return 1", begun, "f")
        == "from typing import List\ndef f(xs: List[int]): return 1"
    )


def test_classes_that_a_prompt_names() -> None:
    assert UnitTests.of("assert 3 in Bag([3])", prompt="Write a class Bag.").classes == ("Bag",)


def test_the_file_and_line_of_a_refused_row(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": f"Add {i}.", "tests": "pass" if i == 40 else "assert add(1, 2) == 3"}
        for i in range(60)
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(
        UserError, match=r"rows.jsonl, line 41: reward 'code' refuses its tests: they check nothing"
    ):
        every = [*task(str(path)).rows("train", 0), *task(str(path)).rows("test")]
        rewards(["code"], "cpu").check(["prompt"], (), every)
    humaneval = [
        {"prompt": "def f(x):\n", "entry_point": "f", "test": f"def check(c):\n    {s}"}
        for s in ("assert c(1) == 1", "pass")
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in humaneval))
    made = Benchmark("humaneval", str(path))
    with pytest.raises(
        UserError, match=r"rows.jsonl, line 2: reward 'code' refuses its tests: they check nothing"
    ):
        made.reward.check(["prompt"], made.rows("test"))
