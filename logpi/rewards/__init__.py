"""Rewards: what a completion is worth.

    text.py        where the answer stands in a completion          match.py    is it the row's answer?
    format.py      <think>…</think><answer>…</answer>               length.py   soft overlong punishment
    qa.py          exact match and F1 of short answers          tool_calls.py  ToolRL's; bfcl.py  the leaderboard's verdict
    arithmetic.py  exact expressions, countdown                     user.py     the user's own function, in a workers/worker.py
    math.py        final answers: notation.py (one way to write); numerals.py, expressions.py, answers.py (trees.py);
                   values.py, agreement.py, units.py, real_sets.py, equality.py (the rules), apart
                   where it takes many digits
    code.py        programs against unit tests, in the sandbox      pattern.py  regular expressions, JSON schemas
    command.py     any external checker, with limits                apart/      what runs in worker processes
    combine.py     the weighted sum, with every part kept           spec.py     all of it by name, for a command line

A reward is any function of TRL's signature: `f(prompts, completions, completion_ids=None,
**columns)`, plain or async, giving a float or None (not applicable) for each completion, or a
`Failure`: no verdict. Left out: the training of learned reward models (a policy's business).
"""

from logpi.rewards.arithmetic import CountdownReward, ExpressionError, evaluate
from logpi.rewards.bfcl import BfclReward
from logpi.rewards.code import Code
from logpi.rewards.combine import Rewards, Score, Weighted, failures
from logpi.rewards.command import Command
from logpi.rewards.format import ThinkAnswer
from logpi.rewards.language import LanguageConsistency
from logpi.rewards.length import SoftOverlong
from logpi.rewards.match import Boxed, ExactAnswer, Number, TagAnswer
from logpi.rewards.math import Math
from logpi.rewards.pattern import JsonSchema, Regex
from logpi.rewards.qa import AnswerF1, AnswerMatch
from logpi.rewards.spec import NAMES, reward, rewards
from logpi.rewards.tool_calls import ToolCalls, ToolFormat, ToolLength
from logpi.rewards.user import UserReward, user_reward
from logpi.rewards.workers.processes import Failure
from logpi.rewards.workers.worker import from_verl

__all__ = [
    "NAMES",
    "AnswerF1",
    "AnswerMatch",
    "BfclReward",
    "Boxed",
    "Code",
    "Command",
    "CountdownReward",
    "ExactAnswer",
    "ExpressionError",
    "Failure",
    "JsonSchema",
    "LanguageConsistency",
    "Math",
    "Number",
    "Regex",
    "Rewards",
    "Score",
    "SoftOverlong",
    "TagAnswer",
    "ThinkAnswer",
    "ToolCalls",
    "ToolFormat",
    "ToolLength",
    "UserReward",
    "Weighted",
    "evaluate",
    "failures",
    "from_verl",
    "reward",
    "rewards",
    "user_reward",
]
