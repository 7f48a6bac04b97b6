"""A run given back, with its policy: `logpi.open_run(path)`.

What a run holds is read in `runs/reading.py`; here is which command leaves which kind of model.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from logpi.errors import RunError, as_user_errors
from logpi.jobs.options.fingerprint import is_record, shown
from logpi.runs.directory import allow
from logpi.runs.reading import RunView


def open_run(path: str | Path, trust: bool = False) -> RunView:
    """A finished or running run: its metrics as arrays, samples, pictures and policy.

    Args:
        trust: `policy()` may run the code that a stranger's run names (an environment's file).

    Raises:
        RunError: there is no run at `path`.
    """
    return RunView(path, partial(_policy, trust=trust))


def _policy(run: RunView, trust: bool) -> Any:
    """The run's model, as what it is."""
    with as_user_errors():
        if run.command == "gym":
            allow(run.path, trust)
            return _control_policy(run)
        if run.command == "reward-model":
            from logpi.policies.reward_model import RewardModel

            return RewardModel.load(str(run.model))
        from logpi.engine.language_model import LanguageModel

        return LanguageModel.load(str(run.model))


def _control_policy(run: RunView) -> Any:
    """Networks for the run's environment, which has to be made once more for its spaces."""
    from logpi.envs.control.make import make_vector_environment
    from logpi.jobs.gym_parts import load_policy, own_network

    for name in ("env", "network"):
        saved = run.arguments.get(name)
        if is_record(saved):
            raise RunError(
                f"{run.path} was made from Python with {shown(saved)} as its {name}, which no word"
                " names: use the job's own result.policy"
            )
    env = make_vector_environment(run.arguments["env"], 1, False, 1, **run.arguments["env_options"])
    return load_policy(run.model, env, own_network(run.arguments.get("network")))
