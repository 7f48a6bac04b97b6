"""The objective of a run as mathematics: what `logpi describe` prints, with the formulas as MathML.

It is composed from the run's arguments as the job composed it. This needs torch, so it is done in a
process of its own, once for each composition, and the server stays small. An algorithm from a
user's file would be that file's code: it is not run.

    python -m logpi.viewer.mathematics < compositions.json      # a list
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

SECONDS = 60
# the commands whose algorithm no argument names
ALGORITHMS = {"sft": "sft", "reward-model": "reward_model"}


def objective_json(command: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The objective as JSON, or `{"why": …}`: why there is none to show."""
    return objectives_json([(command, arguments)])[0]


def objectives_json(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """As `objective_json`, of several runs: (command, arguments) of each."""
    words = [_words(command, arguments) for command, arguments in runs]
    new = sorted({w for w in words if isinstance(w, str) and w not in _composed})
    if new:
        _composed.update(zip(new, _compose_apart(new), strict=True))
    answers = (_composed[w] if isinstance(w, str) else w for w in words)
    return [
        answer | ({"note": PRESET} if command == "gym" and "title" in answer else {})
        for answer, (command, _) in zip(answers, runs, strict=True)
    ]


# composition -> its JSON
_composed: dict[str, dict[str, Any]] = {}
# arguments that change the composition
WORDS = ("options", "truncation", "groups", "max_completion_length", "dtype", "sampler")
PRESET = (
    "The preset of the environment may set other numbers (gamma, lambda, clips): the run's own"
    " output says them."
)
DAMAGED = {"why": "the objective cannot be composed: it may be of another version"}


def _words(command: str, arguments: Mapping[str, Any]) -> str | dict[str, Any]:
    """What a composition is made from, or why there is none."""
    name = arguments.get("algorithm") or ALGORITHMS.get(command)
    if isinstance(name, Mapping):
        return {"why": f"the algorithm is an object of a Python program: {name.get('object')}"}
    if not isinstance(name, str):
        return {"why": f"logpi {command} has no objective"}
    if ":" in name or name.endswith(".py"):
        return {"why": f"the algorithm is a user's own, {name}; its file is not run here"}
    words = {k: arguments.get(k) for k in WORDS} | {"algorithm": name}
    return json.dumps(words, sort_keys=True)


def _compose_apart(words: Sequence[str]) -> list[dict[str, Any]]:
    """The compositions, made in one process with torch."""
    command = [sys.executable, "-m", "logpi.viewer.mathematics"]
    try:
        run = subprocess.run(
            command, input=f"[{','.join(words)}]", capture_output=True, text=True, timeout=SECONDS
        )
        answers = json.loads(run.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return [DAMAGED] * len(words)
    return answers if len(answers) == len(words) else [DAMAGED] * len(words)


def compose(words: Mapping[str, Any]) -> dict[str, Any]:
    """In the process with torch: the objective as JSON.

    Errors: an algorithm or options that this version does not know give `{"why": …}`.
    """
    from logpi.algorithms import algorithm, options
    from logpi.errors import UserError
    from logpi.ops.selection import GROUPS, TRUNCATIONS

    name, chosen = words["algorithm"], dict(words.get("options") or {})
    try:
        known = {o.name for o in options(name)}
        length = words.get("max_completion_length")
        defaults = {"max_completion_length": length, "sampled": True}
        if length is not None:
            chosen = {k: v for k, v in defaults.items() if k in known} | chosen
        if words.get("truncation") in TRUNCATIONS:
            chosen["truncation"] = TRUNCATIONS[words["truncation"]]
        if words.get("groups") in GROUPS:
            chosen["keep"] = GROUPS[words["groups"]]
        method = algorithm(name, **{k: v for k, v in chosen.items() if k in known})
        own = words.get("sampler") in (None, "own") and words.get("dtype") in (None, "float32")
        if not own and words.get("sampler") is not None:
            method = replace(method, objective=method.objective.corrected())
    except (AttributeError, UserError, ValueError, TypeError) as error:
        return {"why": f"this version cannot compose it: {error}"}
    return _json(method)


def _json(method: Any) -> dict[str, Any]:
    from logpi.algorithms.description import Description, choices, divergences, latex

    explanation = method.objective.explain()
    formulas = [explanation.goal, *explanation.where]
    return {
        "title": method.name,
        "source": method.source,
        "mathml": _mathml([latex(formula) for formula in formulas]),
        "text": "\n".join([explanation.goal, *(f"where  {x}" for x in explanation.where)]),
        "parts": [[axis, choice] for axis, choice in choices(method).items()],
        "sources": list(dict.fromkeys(explanation.sources)),
        "differs": list(divergences(method)),
        "description": str(Description(method)),
    }


def _mathml(formulas: list[str]) -> str:
    """Formulas below each other; "" if one cannot be converted."""
    from html import unescape
    from xml.etree.ElementTree import Element, SubElement, tostring

    from latex2mathml.converter import convert_to_element

    whole = Element("math", {"xmlns": "http://www.w3.org/1998/Math/MathML", "display": "block"})
    table = SubElement(whole, "mtable")
    for formula in formulas:
        try:
            row = convert_to_element(formula).find("mrow")
        except Exception:
            # the package raises many kinds for what it does not know
            return ""
        cell = SubElement(SubElement(table, "mtr"), "mtd")
        cell.extend([row] if row is not None else [])
    for element in whole.iter():
        # the package writes characters as entities, for its own writer
        element.text = unescape(element.text) if element.text else None
    return tostring(whole, encoding="unicode")


if __name__ == "__main__":
    print(json.dumps([compose(words) for words in json.load(sys.stdin)]))
