"""The formats and templates of published benchmarks: the meaning of a file's columns, and the
wording of a question.

    gsm8k      {question, answer "… #### 42"}      humaneval   {prompt, entry_point, test}
    svamp      {Body, Question, Answer, Type}      mbpp        {text, test_list, code}
    math500    {problem, answer, level}            rows        any layout that `data.py` knows
    aime       {problem, answer}

A format and a template are separate choices: the format gives a raw row its meaning, the template
words the question and says where the answer must stand. Left out: reading files and judging
answers (`benchmarks.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from logpi.rewards.text import after, last_boxed

if TYPE_CHECKING:
    from logpi.envs.task import Row


@dataclass(frozen=True)
class QuestionTemplate:
    """The wording of a question.

    Attributes:
        text: with {question}. shot: what follows it in a worked example, with {working} and
            {answer}; "": the template has no worked examples.
        place: reads the answer where the template asks for it; None: anywhere.
        stop: strings that end a response. source: where it was published.
    """

    text: str
    shot: str = ""
    place: Callable[[str], str | None] | None = None
    stop: tuple[str, ...] = ()
    source: str = ""


def marked(text: str) -> str | None:
    """The line behind the last ####, or None."""
    rest = after(text, "####")
    return rest.partition("\n")[0].strip() if rest else None


AUSTIN = (
    "You are an expert Python programmer, and here is your task: {question} Your code should pass"
    " these tests:\n\n{tests}\n[BEGIN]\n"
)
FENCED = (
    "Read the following function signature and docstring, and fully implement the function"
    " described. Your response should only contain the code for this function.\n{question}"
)
TEMPLATES = {
    "plain": QuestionTemplate("{question}"),
    "boxed": QuestionTemplate(
        "{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
        place=last_boxed,
        source="Qwen2.5-Math, arXiv:2409.12122",
    ),
    "qa": QuestionTemplate(
        "Question: {question}\nAnswer:",
        " {working}\n#### {answer}\n\n",
        marked,
        ("Question:",),
        "lm-evaluation-harness, gsm8k",
    ),
    "minerva": QuestionTemplate(
        "Problem:\n{question}\n\nSolution:",
        " {working}\n\n",
        last_boxed,
        ("Problem:",),
        "Minerva, arXiv:2206.14858, appendix D",
    ),
    "complete": QuestionTemplate(
        "{question}",
        stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
        source="Codex, arXiv:2107.03374, §2.1",
    ),
    "fenced": QuestionTemplate(FENCED, source="OpenAI simple-evals, humaneval_eval.py"),
    "austin": QuestionTemplate(
        AUSTIN, "{working}\n[DONE]\n\n", None, ("[DONE]",), "MBPP, arXiv:2108.07732, §3"
    ),
}


@dataclass(frozen=True)
class BenchmarkFormat:
    """What a benchmark's raw rows mean.

    Attributes:
        shape: (raw row, its place) → the row with columns question, answer or tests, perhaps
            working and level.
        template: without worked examples, by name. few: with them. reward: what is right, by name.
        needs: columns that every row must have. split: raw row → its published split; None: files
            are splits.
    """

    shape: Callable[[Mapping[str, Any], str], Row]
    template: str = "boxed"
    few: str = "qa"
    reward: str = "math"
    needs: tuple[str, ...] = ("question", "answer")
    split: Callable[[Row], str] | None = None


def _columns(raw: Any, where: str, *names: str) -> dict[str, Any]:
    """The row with lower-case names, `names` among them."""
    if not isinstance(raw, Mapping):
        raise ValueError(
            f"{where}: expected an object with named columns, got {type(raw).__name__}"
        )
    row = {str(k).lower(): v for k, v in raw.items() if v is not None}
    for name in names:
        if name not in row:
            raise ValueError(f"{where}: no column {name!r}; found: {', '.join(map(str, raw))}")
    return row


def _question(raw: Any, where: str) -> Row:
    """GSM8K, MATH and AIME: `data.py` reads the answer from "… #### 42" or from the solution's last
    box."""
    row = _columns(raw, where)
    question = next((row[n] for n in ("question", "problem", "prompt") if n in row), None)
    if question is None:
        raise ValueError(
            f"{where}: no column 'question' or 'problem'; found: {', '.join(map(str, raw))}"
        )
    level = row.get("level")
    digits = "".join(c for c in str(level) if c.isdigit())  # MATH: "Level 5"
    return (
        row
        | {"prompt": question, "question": question}
        | ({"level": int(digits)} if digits else {})
    )


def _svamp(raw: Any, where: str) -> Row:
    # Worked examples may come from a GSM8K file, for SVAMP has none of its own.
    if "body" not in _columns(raw, where):
        return _question(raw, where)
    row = _columns(raw, where, "body", "question", "answer")
    body = str(row["body"]).rstrip()
    question = f"{body}{'' if body.endswith(('.', '?', '!')) else '.'} {row['question']}"
    return row | {"prompt": question, "question": question, "level": row.get("type")}


def _humaneval(raw: Any, where: str) -> Row:
    row = _columns(raw, where, "prompt", "entry_point", "test")
    return row | {
        "question": row["prompt"],
        "working": f"{row['prompt']}{row.get('canonical_solution', '')}",
    }


def _mbpp(raw: Any, where: str) -> Row:
    row = _columns(raw, where, "test_list")
    question = row.get("text") or row.get("prompt")
    if question is None:
        raise ValueError(
            f"{where}: no column 'text' or 'prompt'; found: {', '.join(map(str, raw))}"
        )
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports", []))
    code = str(row.get("code", "")).replace("\r\n", "\n")
    return row | {
        "prompt": question,
        "question": str(question).strip(),
        "tests": list(row["test_list"]),
        "setup": setup,
        "working": code,
    }


def _mbpp_split(row: Row) -> str:
    """Austin et al.: 1–10 are for prompting, 11–510 the test, 511–600 validation, 601–974
    training."""
    number = int(row.get("task_id", 11))
    return (
        "shots"
        if number <= 10
        else "test"
        if number <= 510
        else "validation"
        if number <= 600
        else "train"
    )


def _plain(raw: Any, where: str) -> Row:
    return raw


FORMATS: dict[str, BenchmarkFormat] = {
    "gsm8k": BenchmarkFormat(_question),
    "svamp": BenchmarkFormat(_svamp),
    "math500": BenchmarkFormat(_question, few="minerva"),
    "aime": BenchmarkFormat(_question, few="minerva"),
    "humaneval": BenchmarkFormat(_humaneval, "fenced", "complete", "code", ("question", "test")),
    "mbpp": BenchmarkFormat(_mbpp, "austin", "austin", "code", ("question", "tests"), _mbpp_split),
    "rows": BenchmarkFormat(_plain, "plain", "plain", "math", ()),
}
