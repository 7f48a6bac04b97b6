"""The weights that `logpi serve` serves: of a model, of a run's newest checkpoint, and later ones.

    model directory, hub name       as it is
    run, finished                   its model, or a checkpoint that is newer
    run that goes on                its newest checkpoint, in the model that it began with

Left out: serving them (`engine/openai_server/`), and runs that were begun from Python with objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logpi.errors import UserError, as_user_errors

if TYPE_CHECKING:
    from logpi.engine.language_model import LanguageModel

START = "start"
# how prompts are written and answers end
ENDING = ("template_options", "end_token")


@dataclass(frozen=True)
class Newest:
    """The newest weights of a run. name: `model`, `step-000040` or `start`. path: where."""

    name: str
    path: Path | None


@dataclass
class Weights:
    """Where a server's weights come from.

    Attributes:
        model: a directory or name; "": the run's own. run: the run that is followed, or None.
        loading: how models are loaded; a run's own `ENDING` stands where it says nothing. served:
            number of models that were loaded.
    """

    model: str
    run: Path | None
    loading: Mapping[str, Any]
    served: int = field(default=0, init=False)

    def __call__(self, path: str | None) -> tuple[LanguageModel, str]:
        """A `Source` of the server. Raises UserError."""
        if path is not None and not Path(path).is_dir():
            raise UserError(f"{path[:200]} is no directory here: give a model's or a run's")
        run = self.run if path is None else Path(path)
        self.served += 1
        if run is not None and (path is None or is_run(run)):
            found = newest(run)
            return self._of_run(run, found), found.name
        source = self.model if path is None else path
        return self._load(source, self.loading), f"{Path(source).name}-{self.served}"

    def _of_run(self, run: Path, found: Newest) -> LanguageModel:
        arguments = arguments_of(run)
        own = {k: arguments[k] for k in ENDING if k in arguments and not self.loading.get(k)}
        loading = {**self.loading, **own}
        if found.path is not None and found.path.name == "model":
            return self._load(str(found.path), loading)
        base = self.model or arguments.get("model")
        if not isinstance(base, str):
            raise UserError(f"{run} was begun with a model from Python: name it with --model")
        policy = self._load(base, loading)
        if found.path is not None:
            restore(policy, found.path, arguments)
        return policy

    def _load(self, source: str, loading: Mapping[str, Any]) -> LanguageModel:
        from logpi.engine.language_model import LanguageModel

        with as_user_errors():
            policy = LanguageModel.load(source, **loading)
            # an --end-token that is no token raises now
            _ = policy.template
        return policy


def is_run(path: Path) -> bool:
    return (path / "arguments.json").is_file()


def arguments_of(run: Path) -> Mapping[str, Any]:
    from logpi.runs.directory import read_arguments

    return read_arguments(run)[1]


def newest(run: Path) -> Newest:
    """The newest weights of a run. Raises RunError if there is no run."""
    from logpi.runs.history import History

    arguments_of(run)
    places = [*History(run).whole()[-1:], run / "model"]
    found = [p for p in places if (p / "manifest.json").exists() or (p / "config.json").exists()]
    last = max(found, key=_written, default=None)
    if last is None:
        return Newest(START, None)
    return Newest(f"model-{int(_written(last))}" if last.name == "model" else last.name, last)


def _written(path: Path) -> float:
    file = path / "manifest.json"
    return (file if file.exists() else path / "config.json").stat().st_mtime


def restore(policy: LanguageModel, path: Path, arguments: Mapping[str, Any]) -> None:
    """Put a checkpoint's weights into the policy that its run began with.

    Raises:
        UserError: they do not fit it. RunError: they cannot be read, or are gone by now.
    """
    from logpi.runs import checkpoint
    from logpi.updates.restoring import fit_module

    state = checkpoint.load(path)["learner"]["policy"]
    state = {k: v for k, v in state.items() if not k.startswith("value_head.")}
    rank = arguments.get("lora")
    with as_user_errors():
        if isinstance(rank, int) and rank:
            from logpi.policies.lora import add_lora

            add_lora(policy, rank, arguments.get("lora_alpha", 32.0))
        elif rank:
            raise ValueError("the run's adapters were given from Python: serve its final model")
        try:
            policy.load_state_dict(fit_module(state, policy))
        except (RuntimeError, KeyError) as error:
            raise ValueError(f"{path} does not fit the model: {error}") from None
