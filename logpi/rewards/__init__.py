"""Rewards: judge completions by numbers.

    combine.py     the weighted sum, with every part
    spec.py        rewards from words of a command line, or from objects
    user.py        a function of the user's own file, in a worker process
    text.py        finds the answer in a completion
    match.py       compares it with the row's answer   format.py      the form of a completion
    length.py      soft overlong punishment            language.py    the language's script
    math.py        final answers: notation.py, numerals.py, expressions.py and answers.py read them
                   into trees.py; values.py, agreement.py, units.py, real_sets.py and equality.py
                   compare them
    code.py        programs by unit tests (unit_tests.py reads them), in the sandbox
    pattern.py     regular expressions, JSON schemas   command.py     any external checker
    arithmetic.py  exact expressions, countdown        qa.py          short answers
    tool_calls.py  ToolRL's reward; call_matching.py   bfcl.py        the leaderboard's verdict
    model.py       a learned reward model              workers/       code in worker processes

A reward is any function of TRL's signature: `f(prompts, completions, completion_ids=None,
**columns)`, plain or async. It gives each completion a float, None (not applicable) or a `Failure`
(no verdict). Left out: the training of reward models.
"""

from logpi.rewards.arithmetic import CountdownReward, ExpressionError, evaluate
from logpi.rewards.bfcl import BfclReward
from logpi.rewards.code import Code
from logpi.rewards.combine import Rewards, RewardScore, failures
from logpi.rewards.command import CommandReward
from logpi.rewards.format import ThinkAnswer
from logpi.rewards.language import LanguageConsistency
from logpi.rewards.length import SoftOverlong
from logpi.rewards.match import Boxed, Corrected, ExactAnswer, Number, TagAnswer
from logpi.rewards.math import Math
from logpi.rewards.pattern import JsonSchema, Regex
from logpi.rewards.qa import AnswerF1, AnswerMatch
from logpi.rewards.spec import NAMES, reward, rewards
from logpi.rewards.tool_calls import ToolCalls, ToolFormat, ToolLength
from logpi.rewards.user import UserReward, user_reward
from logpi.rewards.weighted import Weighted
from logpi.rewards.workers.processes import Failure
from logpi.rewards.workers.worker import from_verl

__all__ = [
    "NAMES",
    "AnswerF1",
    "AnswerMatch",
    "BfclReward",
    "Boxed",
    "Code",
    "CommandReward",
    "Corrected",
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
    "RewardScore",
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
