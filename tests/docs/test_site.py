"""The site's own tools: docstrings are rewritten for its API pages, TeX becomes MathML, links are
checked.

Left out: the build itself, which CI's documentation step does strictly.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))

import docs_api  # noqa: E402
import docs_links  # noqa: E402
import docs_site  # noqa: E402
from docs_strings import rewritten  # noqa: E402


def test_an_example_becomes_a_block_of_code() -> None:
    text = "Doubles.\n\n>>> 2 * 2\n4"
    assert rewritten(text) == "Doubles.\n\n```python\n>>> 2 * 2\n4\n```"


def test_names_that_share_an_entry_have_one_each() -> None:
    text = "Clips.\n\nAttributes:\n    low, high: ≥ 0."
    assert rewritten(text) == "Clips.\n\nAttributes:\n    low: ≥ 0.\n    high: as `low`."


def test_entries_that_share_a_line_have_one_each() -> None:
    names = frozenset({"logp", "entropy"})
    text = "Says.\n\nAttributes:\n    logp: [B, T] nats. entropy: [B, T] nats."
    lines = rewritten(text, names).splitlines()[3:]
    assert lines == ["    logp: [B, T] nats.", "    entropy: [B, T] nats."]


def test_a_name_inside_a_text_is_not_an_entry() -> None:
    text = "Says.\n\nArgs:\n    rows: of a batch. See below: nothing."
    assert rewritten(text, frozenset({"rows"})) == text


def test_an_equation_becomes_a_block() -> None:
    assert "```text\nρₜ Âₜ\n```" in rewritten("The weighted advantage.\n\nρₜ Âₜ")
    assert "```text\nÂₜ = R − b\n```" in rewritten("The advantage.\n\n    Âₜ = R − b")
    assert "```" not in rewritten("A text.\n\nγ = 1 is unbiased; γ < 1 has a bias.")


def test_a_section_on_one_line_becomes_a_section() -> None:
    assert rewritten("Loads.\nRaises: ValueError: no file.").endswith(
        "Raises:\n    ValueError: no file."
    )


def test_shapes_side_by_side_are_no_link() -> None:
    assert rewritten("P[s, a] [S, A] and [B] [T].") == "P[s, a] \\[S, A] and [B] \\[T]."


def test_mathematics_and_money() -> None:
    assert "<mi>x</mi>" in docs_site.mathml("so $x$ is")
    assert 'display="block"' in docs_site.mathml("$$\na = b\n$$")
    assert docs_site.mathml("costs $5 or $6") == "costs $5 or $6"
    text = "`$HOME` and `$x$`"
    assert docs_site.outside_code(text, docs_site.mathml) == text


def test_links_of_the_repository_become_links_of_the_site() -> None:
    files: set[str] = set()
    text = (
        "[a](docs/guide.md#metrics) [b](logpi/ops/kl.py) [c](https://x.y) [d](examples/products.py)"
    )
    assert docs_site.linked(text, "README.md", files) == (
        "[a](guide.md#metrics) [b](api/ops.md#logpi.ops.kl) [c](https://x.y)"
        " [d](source/examples/products.py.md)"
    )
    assert files == {"docs/guide.md", "examples/products.py"}


def test_every_public_name_has_a_place_in_the_api() -> None:
    page = docs_api.pages()["api/index.md"]
    assert "[`logpi.RL`](jobs.md#logpi.jobs.rl.RL)" in page
    assert docs_api.place("logpi/ops/surrogates.py") == ("api/ops.md", "logpi.ops.surrogates")
    assert "| `num_generations` |" in docs_api.pages()["api/options.md"]


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<a href="b.html#here">', None),
        ('<a href="b.html#there">', "a.html: b.html#there: no such anchor"),
        ('<a href="c.html">', "a.html: c.html: no such file"),
        ('<img src="no.png">', "a.html: no.png: no such file"),
        ('<script src="https://cdn.x/y.js">', "a.html: loads https://cdn.x/y.js"),
        ('<a href="https://x.y/z">', None),
    ],
)
def test_links_are_checked(tmp_path: Path, html: str, problem: str | None) -> None:
    (tmp_path / "a.html").write_text(html)
    (tmp_path / "b.html").write_text('<h1 id="here">')
    assert docs_links.problems(tmp_path) == ([problem] if problem else [])
