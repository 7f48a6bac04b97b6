"""The shape of the code base, kept by a test: which way imports point, what is heavy, what is
public, how long things are.

Imports are read from the source (`ast`), those at module level and those inside functions apart.
Exceptions are listed by name: a new one is a decision, not an accident.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "logpi"
FILES = sorted(PACKAGE.rglob("*.py"))

# What a part of the library may import of the others: when it is loaded, inside its functions and
# for its annotations. Left to right, nothing points back.
MAY_IMPORT = {
    "types": set(),
    "errors": set(),
    "distributed": {"errors", "types"},
    "sandbox": {"distributed", "errors"},
    "ops": {"types"},
    "objectives": {"ops", "types"},
    "updates": {"distributed", "errors", "objectives", "ops", "types"},
    "algorithms": {"errors", "objectives", "ops", "runs", "types", "updates"},
    "learner": {*("algorithms", "distributed", "errors", "objectives", "ops", "types", "updates")},
    "runs": {"distributed", "errors", "types"},
    "train": {"distributed", "errors", "learner", "runs", "types"},
    "calls": {"errors"},
    "policies": {"calls", "distributed", "errors", "ops", "runs", "types"},
    "engine": {"calls", "distributed", "errors", "policies", "types"},
    "rewards": {"calls", "distributed", "errors", "policies", "runs", "sandbox", "types"},
    "envs": {"calls", "errors", "ops", "policies", "rewards", "runs", "sandbox", "types"},
    "rollouts": {
        *("algorithms", "calls", "distributed", "engine", "envs", "errors", "ops", "policies"),
        *("rewards", "types", "updates"),
    },
    "evaluation": {
        *("distributed", "engine", "envs", "errors", "policies", "rewards", "rollouts", "runs"),
        *("types", "updates"),
    },
    "viewer": {"algorithms", "errors", "ops", "runs", "types"},
    "testing": {
        *("calls", "engine", "envs", "errors", "policies", "rewards", "rollouts", "types"),
        "updates",
    },
    "lab": {
        *("algorithms", "engine", "envs", "errors", "learner", "objectives", "ops", "policies"),
        *("rewards", "rollouts", "runs", "types", "updates"),
    },
}
# The doors may use everything but what stands behind them.
DOORS = ("jobs", "commands", "demos", "cli", "__main__")
MAY_IMPORT["jobs"] = set(MAY_IMPORT) - {"lab", "testing", "viewer"}
MAY_IMPORT["commands"] = {*MAY_IMPORT, "lab", "testing", "viewer"} - {"commands"}
MAY_IMPORT["demos"] = set(MAY_IMPORT) - {"commands", "lab", "testing", "viewer"}
MAY_IMPORT["cli"] = {"commands", "distributed", "errors"}
MAY_IMPORT["__main__"] = {"cli"}
# Packages that are slow to load or not always installed, and the only parts that name them: (at
# module level, inside functions).
HEAVY = {
    "transformers": (set(), {"engine", "policies", "rollouts"}),
    "tokenizers": (set(), {"policies", "rollouts", "viewer"}),
    "datasets": (set(), {"envs"}),
    "pyarrow": (set(), {"envs"}),
    "matplotlib": (set(), {"demos", "envs", "jobs", "lab", "runs"}),
    "gymnasium": ({"envs", "rollouts"}, {"commands", "envs", "rollouts", "jobs"}),
    "tensorboard": (set(), {"runs"}),
    "IPython": (set(), {"runs"}),
    "pandas": (set(), {"runs"}),
    "wandb": (set(), {"runs"}),
    "mlflow": (set(), {"runs"}),
    "trackio": (set(), {"runs"}),
    "bm25s": (set(), {"envs"}),
    # a plugin of verifiers is loaded with it, and verifiers loads httpx
    "httpx": ({"envs"}, {"engine", "envs", "rewards"}),
    "verifiers": ({"envs"}, {"envs"}),
    "openenv": (set(), {"envs"}),
    "vllm": (set(), {"engine"}),
    "ray": (set(), {"distributed"}),
    "mcp": (set(), {"envs"}),
    "mpmath": (set(), {"rewards"}),
    "jsonschema": (set(), {"calls"}),
    "reasoning_gym": ({"rewards"}, {"envs"}),
    "filelock": (set(), {"runs"}),
    "huggingface_hub": (set(), {"policies"}),
    "imageio": (set(), {"commands"}),
    "peft": (set(), {"policies"}),
    "PIL": (set(), {"commands"}),
    "scipy": (set(), set()),
    "shtab": (set(), {"cli", "commands", "jobs"}),
    "yaml": (set(), {"jobs"}),
    "starlette": ({"engine", "viewer"}, {"engine", "viewer"}),
    "uvicorn": (set(), {"commands"}),
    "latex2mathml": (set(), {"viewer"}),
}
LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(f) for f in FILES}


def layer(name: str) -> str:
    """`logpi.ops.kl` is of layer `ops`; `logpi` itself of none."""
    return [*name.split("."), ""][1]


LAYERS = {layer(m) for m in MODULES} - {""}
FIRST_LEVEL = {
    *("algorithms", "calls", "cli", "commands", "demos", "distributed", "engine", "envs", "errors"),
    "evaluation",
    *("jobs", "lab", "learner", "objectives", "ops", "policies", "rewards", "rollouts", "runs"),
    *("sandbox", "testing", "train", "types", "updates", "viewer", "__main__"),
}


def test_the_first_level_is_the_plans() -> None:
    """docs/architecture.md says what each is; a new name is a decision."""
    assert LAYERS == FIRST_LEVEL


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module, inside a function?) of each import, those for annotations among them.

    `from logpi.runs import disk` is an import of `logpi.runs.disk`.
    """

    def walk(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, lazy) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: relative import"
                for alias in child.names:
                    inner = f"{child.module}.{alias.name}"
                    yield (inner if inner in MODULES else child.module or "", lazy)
            else:
                late = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                late |= isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from walk(child, lazy or late)

    return walk(ast.parse(path.read_text(encoding="utf-8")), False)


# --- direction ---


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_point_one_way(path: Path) -> None:
    mine = layer(module(path))
    if not mine:
        return
    assert mine in MAY_IMPORT, f"{mine} is new: say in MAY_IMPORT what it may import"
    others = {layer(name) for name, _ in imports(path) if name.startswith("logpi.")}
    assert others & LAYERS - {mine} <= MAY_IMPORT[mine]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """What is left of a graph when all that points at nothing is taken away, again and again."""
    while free := {k for k, v in graph.items() if not v & set(graph)}:
        graph = {k: v for k, v in graph.items() if k not in free}
    return sorted(graph)


def test_the_allowed_directions_have_no_circle() -> None:
    assert not circle(MAY_IMPORT)
    assert circle({"a": {"b"}, "b": {"a"}, "c": {"a"}, "d": set()}) == ["a", "b", "c"]


def test_no_two_files_import_each_other_even_by_detours() -> None:
    """At module level, inside functions and for annotations alike."""
    assert not circle({module(f): {name for name, _ in imports(f)} - {module(f)} for f in FILES})


def test_ops_know_torch_and_types_alone() -> None:
    for path in FILES:
        if layer(module(path)) == "ops":
            for name, _ in imports(path):
                top = name.split(".")[0]
                allowed = (
                    top in sys.stdlib_module_names
                    or top == "torch"
                    or layer(name) in ("ops", "types")
                )
                assert allowed, f"{module(path)} imports {name}"


@pytest.mark.parametrize("package", HEAVY)
def test_heavy_packages_stay_where_they_belong(package: str) -> None:
    for path in FILES:
        for name, lazy in imports(path):
            if name.split(".")[0] == package:
                assert layer(module(path)) in HEAVY[package][lazy], f"{module(path)} imports {name}"


# --- loading ---


def loaded_by(code: str) -> tuple[set[str], float]:
    """Top-level modules in a fresh interpreter after `code`, and its CPU seconds."""
    tail = (
        "import sys, time; print(chr(10)); print(time.process_time(), *{m.split('.')[0] for m in"
        " sys.modules})"
    )
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tail}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    seconds, *names = run.stdout.splitlines()[-1].split()
    return set(names), float(seconds)


def test_import_logpi_is_light() -> None:
    names, seconds = loaded_by("import logpi")
    assert not names & {"torch", "numpy", *HEAVY} and seconds < 1.0


def test_help_loads_no_torch() -> None:
    names, seconds = loaded_by("from logpi.cli import main\nassert main(['--help']) == 0")
    assert not names & {"torch", *HEAVY} and seconds < 1.0


def test_no_commands_help_loads_torch() -> None:
    """All in one process: whatever one of them loads is there at the end."""
    names, _ = loaded_by("""
import contextlib
from logpi.cli import main
from logpi.commands import COMMANDS
for command in COMMANDS:
    with contextlib.suppress(SystemExit):
        main([command, "--help"])""")
    assert not names & {"torch", "numpy", *HEAVY}


def test_the_core_loads_no_model_library() -> None:
    names, _ = loaded_by(
        "import logpi\nlogpi.algorithm('dapo'), logpi.Learner\nimport logpi.testing, logpi.types,"
        " logpi.train"
    )
    assert "torch" in names and not names & {
        "transformers",
        "datasets",
        "gymnasium",
        "matplotlib",
        "tokenizers",
    }


# --- public names ---

DOCUMENTED = sorted(
    module(f)
    for f in FILES
    if layer(module(f))
    in ("ops", "objectives", "algorithms", "types", "updates", "learner", "testing")
)


def test_all_of_the_public_page() -> None:
    import logpi

    assert len(set(logpi.__all__)) == len(logpi.__all__)
    for name in logpi.__all__:
        assert getattr(logpi, name) is not None
    assert set(dir(logpi)) == set(logpi.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        logpi.nothing  # noqa: B018


@pytest.mark.parametrize("name", DOCUMENTED)
def test_public_things_are_documented(name: str) -> None:
    mod = importlib.import_module(name)
    assert mod.__doc__
    for public in mod.__all__:
        thing = getattr(mod, public)  # also: everything in __all__ is there
        if inspect.isfunction(thing) or (inspect.isclass(thing) and thing.__module__ == name):
            assert thing.__doc__ and not thing.__doc__.startswith(f"{public}("), (
                f"{name}.{public} has no docstring"
            )
    hidden = [
        k
        for k, v in vars(mod).items()
        if not k.startswith("_")
        and inspect.isclass(v)
        and v.__module__ == name
        and k not in mod.__all__
    ]
    assert not hidden, f"{name}: public classes that are not in __all__: {hidden}"


@pytest.mark.parametrize("path", FILES, ids=module)
def test_every_file_opens_with_what_it_does(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def parts() -> list[type]:
    from logpi.ops import advantages, ratios, surrogates, weights

    bases = (advantages.Advantage, ratios.Ratio, surrogates.Surrogate, weights.Weight)
    modules = (advantages, ratios, surrogates, weights)
    classes = (c for module in modules for c in vars(module).values() if inspect.isclass(c))
    return [c for c in classes if issubclass(c, bases) and c not in bases]


def test_every_part_carries_its_equation_and_source() -> None:
    from logpi.ops.weights import FixedLength

    assert len(parts()) >= 22
    for part in parts():
        made = FixedLength(8) if part is FixedLength else part()
        assert made.equation and made.source, f"{part.__name__} has no equation or source"
        assert made == type(made)(**vars(made)) and hash(made) is not None
    from logpi.ops.kl import k1, k2, k3

    assert all(k.equation and k.name for k in (k1, k2, k3))


# --- size ---


@pytest.mark.parametrize("path", FILES, ids=module)
def test_files_and_functions_are_short(path: Path) -> None:
    text, name = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).as_posix()
    assert len(text.splitlines()) <= LONG_FILES.get(name, 400)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONG_FUNCTIONS.get(f"{name}:{node.name}", 50), (
                f"{name}: {node.name} has {length} lines"
            )


def test_no_hasattr() -> None:
    """Style: what an object can do is known from its type."""
    users = [module(f) for f in FILES if re.search(r"\bhasattr\(", f.read_text(encoding="utf-8"))]
    assert not users


# --- examples run ---


@pytest.mark.parametrize(
    "path", [f for f in FILES if ">>>" in f.read_text(encoding="utf-8")], ids=module
)
def test_docstring_examples(path: Path) -> None:
    result = doctest.testmod(
        importlib.import_module(module(path)), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert result.attempted and not result.failed
